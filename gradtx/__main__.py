"""The command line: `python -m gradtx race`, `python -m gradtx bench`."""

from __future__ import annotations

import argparse
import functools
import importlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

_BAD_USAGE = 2


class _UsageError(Exception):
    """One line for stderr, and the name of the command that it is about."""

    def __init__(self, command: str, message: str) -> None:
        super().__init__(f"{command}: error: {message}")


class _Parser(argparse.ArgumentParser):
    """argparse, with one line for a mistake where it would print the usage too."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(self.prog, message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0; 2 for bad usage; 130 after Ctrl-C.

    Args:
      arguments: the words after the program's name; by default those of the process.
    """
    parser = _Parser(prog="gradtx", description="Functional gradient transformations for JAX.")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_race(commands)
    _add_bench(commands)
    try:
        options = vars(parser.parse_args(arguments))
        command: Callable[..., int] = options.pop("command")
        return command(**options)
    except _UsageError as error:
        print(error, file=sys.stderr)
        return _BAD_USAGE
    except KeyboardInterrupt:
        return 130


def _add_race(commands: Any) -> None:
    parser = commands.add_parser(
        "race",
        help="race optimizers on real data",
        description="Trains each optimizer with a grid of learning rates and compares the best.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--task", help="digits (default), text, quadratic, local-minimum, saddle, rosenbrock, beale"
    )
    add(
        "--optimizers",
        help="names and calls separated by commas, such as "
        '"sgd,adam,chain(clip_by_global_norm(1.0), adam(3e-3))"',
    )
    add("--steps", type=_whole_number(1), help="steps for each optimizer; default: the task's")
    add("--batch-size", type=_whole_number(1), help="examples in a batch; default: the task's")
    add("--seed", type=_whole_number(0), help="of initial parameters and batches; default: 0")
    add("--out", type=pathlib.Path, help="folder to write to; default: race")
    parser.set_defaults(command=functools.partial(_run, parser.prog, "lab"))


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure optimizers beside Optax's and PyTorch's",
        description="Measures gradtx, Optax and PyTorch in turns, in one process.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--suite",
        help="large, many-leaves, wrappers, memory, compile, separated by commas; default: all",
    )
    add("--optimizers", help="names separated by commas; default: the suite's own choice")
    add("--repeats", type=_whole_number(1), help="measurements of each; default: some seconds'")
    add("--size", type=_whole_number(1), help="rows and columns of a large leaf; default: 1000")
    add(
        "--leaves",
        type=_whole_number(1),
        help="number of leaves; default: 20 large or 1000 small ones",
    )
    add("--json", type=pathlib.Path, help="file to write all measurements to")
    add("--out", type=pathlib.Path, help="folder to write a bar chart of each suite to")
    add("--device", help="cpu, gpu or tpu; default: JAX's choice")
    parser.set_defaults(command=functools.partial(_run, parser.prog, "bench"))


def _run(program: str, room: str, **request: Any) -> int:
    """Runs a command that lives in a room of its own, whose extra has the same name."""
    try:  # here, because the extras need not be installed
        command = importlib.import_module(f"gradtx.{room}.command")
    except ModuleNotFoundError as error:
        missing = f'{error.name} is missing; install it with: pip install "gradtx[{room}]"'
        raise _UsageError(program, missing) from error
    try:
        code: int = command.run(command.Request(**request))
    except command.UsageError as error:
        raise _UsageError(program, str(error)) from error
    return code


def _whole_number(low: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < low or int(text) >= 2**31:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {low} to {2**31 - 1}, got {text!r}"
            )
        return int(text)

    return convert


if __name__ == "__main__":
    sys.exit(main())
