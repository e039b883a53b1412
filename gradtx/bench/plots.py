"""The benchmark's bar charts, one for each suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradtx.bench.suites import MemoryRow, Row, TimedRow

# Okabe and Ito's palette, which stays apart under the common colour blindnesses.
_BARS = {"gradtx": "#0072B2", "optax": "#E69F00"}
_MARKS = {
    "inner step": ("X", "#000000"),
    "torch fused": ("o", "#D55E00"),
    "torch foreach": ("s", "#CC79A7"),
    "torch default": ("D", "#009E73"),
}
_HEIGHT = 0.38


def figure(title: str, rows: Sequence[Row]) -> Figure:
    """Bars for gradtx and Optax, marks for all else, and the floor; one suite."""
    timed = [row for row in rows if isinstance(row, TimedRow)]
    compiled = [row for row in rows if isinstance(row, MemoryRow)]
    panels: dict[str, list[tuple[Mapping[str, float], float | None]]] = {}
    if timed:
        panels["milliseconds"] = [
            (
                {label: spread.median * 1e3 for label, spread in row.seconds.items()},
                None if row.floor is None else row.floor * 1e3,
            )
            for row in timed
        ]
    if compiled:
        panels["bytes accessed per parameter"] = [
            ({label: x.accessed for label, x in row.footprints.items()}, row.floor)
            for row in compiled
        ]
        panels["bytes of temporaries per parameter"] = [
            ({label: x.temporaries for label, x in row.footprints.items()}, None)
            for row in compiled
        ]
    drawn = Figure(figsize=(10, 1.6 + 0.3 * len(rows)), layout="constrained")
    grid = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, values) in zip(grid, panels.items(), strict=True):
        _draw(axes, values)
        axes.set_xlabel(heading)
    grid[0].set_yticks(range(len(rows)), [row.case for row in rows])
    grid[0].set_ylim(len(rows) - 0.4, -0.6)
    found = dict(zip(*reversed(grid[0].get_legend_handles_labels()), strict=True))
    labels = [label for label in (*_BARS, *_MARKS, "floor") if label in found]
    handles = [found[label] for label in labels]
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    drawn.suptitle(title)
    return drawn


def _draw(axes: Axes, values: Sequence[tuple[Mapping[str, float], float | None]]) -> None:
    for i, (label, colour) in enumerate(_BARS.items()):
        found = {y: row[label] for y, (row, _) in enumerate(values) if label in row}
        if found:
            places = np.array(list(found)) + (i - 0.5) * _HEIGHT
            axes.barh(places, list(found.values()), _HEIGHT, color=colour, label=label)
    for label, (marker, colour) in _MARKS.items():
        found = {y: row[label] for y, (row, _) in enumerate(values) if label in row}
        if found:
            axes.scatter(
                list(found.values()), list(found), marker=marker, s=26, color=colour,
                edgecolors="white", linewidths=0.5, label=label, zorder=3,
            )  # fmt: skip
    floors = {y: floor for y, (_, floor) in enumerate(values) if floor is not None}
    if floors:
        places = np.array(list(floors))
        axes.vlines(
            list(floors.values()), places - _HEIGHT, places + _HEIGHT,
            color="0.2", linewidth=1.5, label="floor", zorder=2,
        )  # fmt: skip
    axes.set_xlim(left=0)
    axes.grid(True, axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
