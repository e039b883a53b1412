"""What a benchmark prints, and leaves behind as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
from collections.abc import Iterator, Sequence
from types import ModuleType

import jax

import gradtx
from gradtx.bench.measure import Spread
from gradtx.bench.suites import Row, Setting, TimedRow

_CASE, _CONTENDER = 30, 14


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where and when it ran.

    Attributes:
      date: when it began, UTC.
      device: JAX's name of the device.
      cores: of the machine's processor.
      processor: its model.
      bandwidth: bytes per second of a copy in the device's memory.
      versions: of the libraries that took part.
    """

    date: str
    device: str
    cores: int
    processor: str
    bandwidth: float
    versions: dict[str, str]


def machine(device: jax.Device, bandwidth: float, peers: Sequence[ModuleType | None]) -> Machine:
    """Describes this machine, now."""
    libraries = [gradtx, jax, *(peer for peer in peers if peer is not None)]
    return Machine(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        device=f"{device.platform}: {device.device_kind}",
        cores=os.cpu_count() or 1,
        processor=_processor(),
        bandwidth=bandwidth,
        versions={library.__name__: library.__version__ for library in libraries},
    )


def head(machine: Machine) -> str:
    """What stands above the tables."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{versions}\n"
        f"{machine.device}; {machine.cores} cores of {machine.processor}; {machine.date}\n"
        f"copy bandwidth {machine.bandwidth / 1e9:.1f} GB/s: jitted, donated x + 1 on a large "
        "array, bytes read and written\n"
        "floor: each input read once, each output written once, at that bandwidth"
    )


def headings(row: Row) -> str:
    """The head of the table that begins with this row."""
    if isinstance(row, TimedRow):
        return (
            f"{'':{_CASE}}{'':{_CONTENDER}}{'ms':>11}  {'quartiles':19}"
            f"{'gradtx / it':>12}  {'quartiles':12}  {'/ floor':>7}"
        )
    labels = list(row.footprints)
    names = ("temporaries", "bytes accessed", "kernels")
    above = "".join(f"{name:^{9 * len(labels)}}" for name in names)
    below = "".join(f"{label:>9}" for label in labels) * len(names)
    return f"{'':{_CASE + 7}}{above.rstrip()}\n{'per parameter':{_CASE}}{'floor':>7}{below}"


def lines(row: Row) -> str:
    """A row as text: a line for each contender, or one for the compiler's figures."""
    if isinstance(row, TimedRow):
        return "\n".join(_timed_lines(row))
    found = row.footprints.values()
    return (
        f"{row.case:{_CASE}}{row.floor:7.1f}"
        + "".join(f"{footprint.temporaries:9.2f}" for footprint in found)
        + "".join(f"{footprint.accessed:9.1f}" for footprint in found)
        + "".join(f"{footprint.kernels:9d}" for footprint in found)
    )


def summary(rows: Sequence[Row]) -> list[str]:
    """For each other contender of timed rows, how gradtx compares over all of them."""
    timed = [row for row in rows if isinstance(row, TimedRow)]
    found = []
    for label in dict.fromkeys(label for row in timed for label in row.ratios):
        ratios = {row.case: row.ratios[label].median for row in timed if label in row.ratios}
        worst = max(ratios, key=lambda case: ratios[case])
        found.append(
            f"gradtx / {label}: geometric mean {statistics.geometric_mean(ratios.values()):.2f}, "
            f"largest {ratios[worst]:.2f} ({worst})"
        )
    return found


def write_json(
    path: pathlib.Path, machine: Machine, setting: Setting, rows: Sequence[Row], status: str
) -> None:
    """Writes everything that was measured; a reader never sees half a file.

    Args:
      path: the file.
      machine: where it ran.
      setting: how it was measured.
      rows: what is finished.
      status: "running", "interrupted" or "complete".

    Raises:
      OSError: the file cannot be written.
    """
    document = {
        "status": status,
        "machine": dataclasses.asdict(machine),
        "setting": {
            name: getattr(setting, name) for name in ("optimizers", "size", "leaves", "repeats")
        },
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    os.replace(unfinished, path)


def _timed_lines(row: TimedRow) -> Iterator[str]:
    for i, (label, seconds) in enumerate(row.seconds.items()):
        line = f"{row.case if i == 0 else '':{_CASE}}{label:{_CONTENDER}}"
        line += f"{seconds.median * 1e3:11,.3f}  {_quartiles(seconds, 1e3):19}"
        ratio = row.ratios.get(label)
        line += f"{'':28}" if ratio is None else f"{ratio.median:12.2f}  {_quartiles(ratio):14}"
        line += "" if row.floor is None else f"{seconds.median / row.floor:7.2f}"
        yield line.rstrip()


def _quartiles(spread: Spread, unit: float = 1.0) -> str:
    return f"{spread.low * unit:,.2f} - {spread.high * unit:,.2f}"


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", pathlib.Path("/proc/cpuinfo").read_text())
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()
