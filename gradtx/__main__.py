"""The command line: `python -m gradtx race`, `bench`, `list`, `describe`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib
import json
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

import gradtx
from gradtx.inspect import listing
from gradtx.parse import parse_transformation

_BAD_USAGE = 2
_Array: Any = jax.ShapeDtypeStruct


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
    _add_list(commands)
    _add_describe(commands)
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


def _add_list(commands: Any) -> None:
    parser = commands.add_parser(
        "list",
        help="list the optimizers",
        description="Lists every optimizer: state, what an update depends on, source.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", dest="as_json", action="store_true", help="print it as JSON")
    parser.set_defaults(command=_list)


def _add_describe(commands: Any) -> None:
    parser = commands.add_parser(
        "describe",
        help="tell what a transformation holds",
        description="Tells stages, slots and bytes of state of a transformation.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("call", help='its call text, such as "chain(clip(1.0), adamw(1e-3))"')
    add(
        "--shapes",
        type=_shapes,
        default="4096x4096,4096",
        help="of the parameters, separated by commas, with or without a path, such as "
        '"dense/w=4096x4096,dense/b=4096"; default: %(default)s',
    )
    add("--dtype", type=_dtype, default="float32", help="of the parameters; default: %(default)s")
    parser.set_defaults(command=functools.partial(_describe, parser.prog))


def _list(*, as_json: bool) -> int:
    listed = list(listing.optimizers(gradtx))
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in listed], indent=2))
    else:
        print(listing.table(listed))
    return 0


def _describe(program: str, *, call: str, shapes: dict[str, tuple[int, ...]], dtype: Any) -> int:
    params = {path: _Array(shape, dtype) for path, shape in shapes.items()}
    try:
        print(gradtx.describe(parse_transformation(call), params))
    except (TypeError, ValueError) as error:
        raise _UsageError(program, " ".join(str(error).split())) from error
    return 0


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


def _shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Shapes by path, of a text such as `dense/w=4096x4096,dense/b=4096`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, piece in enumerate(text.split(",")):
        path, _, sizes = piece.strip().rpartition("=")
        if not re.fullmatch(r"[0-9]+(x[0-9]+)*", sizes) or (path or str(i)) in shapes:
            raise argparse.ArgumentTypeError(
                f"expected shapes such as 4096x4096,4096 or w=4096x4096,b=4096, got {text!r}"
            )
        shapes[path or str(i)] = tuple(map(int, sizes.split("x")))
    return shapes


def _dtype(text: str) -> Any:
    try:
        return jnp.dtype(text)
    except TypeError:
        raise argparse.ArgumentTypeError(f"there is no dtype {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
