"""`python -m gradtx bench`: checks what was asked for, measures it, and reports."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pathlib
from collections.abc import Iterator, Sequence
from types import ModuleType

import jax

from gradtx.bench import lineup, measure, plots, report, suites
from gradtx.bench.suites import SUITES, Row, Setting

INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended, as shells have it."""

_CHART_DPI = 110


class UsageError(ValueError):
    """What was asked for cannot be done; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for on the command line; `None` means the suite's usual.

    Attributes:
      suite: names of `SUITES`, separated by commas.
      optimizers: names separated by commas.
      repeats: measurements of each contender, at least 1.
      size: rows and columns of a large leaf, at least 1.
      leaves: number of leaves, at least 1.
      json: file to write all measurements to; `None` for none.
      out: folder to write a chart for each suite to; `None` for none.
      device: JAX's name of a platform; `None` for the one that JAX chooses.
    """

    suite: str = ",".join(SUITES)
    optimizers: str | None = None
    repeats: int | None = None
    size: int = 1000
    leaves: int | None = None
    json: pathlib.Path | None = None
    out: pathlib.Path | None = None
    device: str | None = None


def run(request: Request) -> int:
    """Runs suites and returns the exit code: 0, or `INTERRUPTED` if Ctrl-C ended them early.

    Everything is checked before anything runs. Rows are printed, and written as JSON, as
    soon as they are measured.

    Raises:
      UsageError: what was asked for cannot be done.
    """
    optax, torch = (_load(name) for name in ("optax", "torch"))
    names = _choose("suite", request.suite, list(SUITES))
    optimizers = None
    if request.optimizers is not None:
        optimizers = _choose("optimizer", request.optimizers, list(lineup.recipes(optax)))
    device = _find_device(request.device)
    torch_device = _torch_device(torch, device)
    with _writing_to(request.out):
        if request.out is not None:
            request.out.mkdir(parents=True, exist_ok=True)
    with _writing_to(request.json):
        if request.json is not None:
            request.json.parent.mkdir(parents=True, exist_ok=True)
            request.json.open("a").close()

    with jax.default_device(device):
        setting = Setting(
            bandwidth=measure.copy_bandwidth(),
            optax=optax,
            torch=torch if torch_device else None,
            torch_device=torch_device or "",
            optimizers=optimizers,
            size=request.size,
            leaves=request.leaves,
            repeats=request.repeats,
        )
        machine = report.machine(device, setting.bandwidth, (optax, torch))
        print(report.head(machine), flush=True)
        rows: list[Row] = []
        status = "complete"
        try:
            for row in _measure_all(names, setting):
                rows.append(row)
                _write(request.json, machine, setting, rows, "running")
        except KeyboardInterrupt:
            status = "interrupted"
            print("Interrupted: writing what is finished.")
    _write(request.json, machine, setting, rows, status)
    if request.out is not None:
        _draw_all(request.out, setting, rows)
    return 0 if status == "complete" else INTERRUPTED


def _measure_all(names: Sequence[str], setting: Setting) -> Iterator[Row]:
    """Prints and yields the rows of suites."""
    for name in names:
        print(f"\n{suites.title(name, setting)}")
        rows: list[Row] = []
        for row in SUITES[name](setting):
            if not rows:
                print(report.headings(row))
            rows.append(row)
            print(report.lines(row), flush=True)
            yield row
        for line in report.summary(rows):
            print(line)


def _load(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(f'{name} is missing and left out; install it with: pip install "gradtx[bench]"')
        return None


def _choose(kind: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
    return names


def _find_device(platform: str | None) -> jax.Device:
    try:
        return jax.devices(platform)[0]
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"JAX has no device {platform!r} here: {reason}") from error


def _torch_device(torch: ModuleType | None, device: jax.Device) -> str | None:
    """PyTorch's name of the same device, or `None` where it cannot use it."""
    if torch is None:
        return None
    if device.platform == "cpu":
        return "cpu"
    if device.platform == "gpu" and torch.cuda.is_available():
        return "cuda"
    print(f"this torch cannot use the {device.platform} and is left out")
    return None


def _write(
    path: pathlib.Path | None,
    machine: report.Machine,
    setting: Setting,
    rows: Sequence[Row],
    status: str,
) -> None:
    with _writing_to(path):
        if path is not None:
            report.write_json(path, machine, setting, rows, status)


def _draw_all(folder: pathlib.Path, setting: Setting, rows: Sequence[Row]) -> None:
    for suite in dict.fromkeys(row.suite for row in rows):
        path = folder / f"{suite}.png"
        drawn = plots.figure(
            suites.title(suite, setting), [row for row in rows if row.suite == suite]
        )
        with _writing_to(path):
            drawn.savefig(path, dpi=_CHART_DPI)
        print(f"Open {path}")


@contextlib.contextmanager
def _writing_to(path: pathlib.Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write to {str(path)!r}: {error.strerror or error}") from error
