"""The race's pictures: loss curves, and paths over the lecture's landscapes."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from gradtx.lab.lineup import LECTURE
from gradtx.lab.problems import LANDSCAPES, Landscape, Path, trace_path
from gradtx.lab.race import Result

_SOLID, _DASHED, _DOTTED, _MIXED = "solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (4, 1, 1, 1))

# Okabe and Ito's palette, which stays apart under the common colour blindnesses; the dashes
# keep curves apart that lie on each other (adam and adamw often do), and in black and white.
_STYLES: dict[str, dict[str, Any]] = {
    "sgd": {"color": "#000000", "linestyle": _SOLID},
    "momentum": {"color": "#D55E00", "linestyle": _DASHED},
    "nesterov": {"color": "#0072B2", "linestyle": _DOTTED},
    "adagrad": {"color": "#009E73", "linestyle": _SOLID},
    "rmsprop": {"color": "#E69F00", "linestyle": _DASHED},
    "adam": {"color": "#CC79A7", "linestyle": _SOLID},
    "adamw": {"color": "#56B4E9", "linestyle": _DOTTED},
}

_DPI = 110
_SMALLEST_LOSS = 1e-12

SITUATIONS: dict[str, tuple[int, dict[str, float]]] = {
    "quadratic": (
        40,
        {"sgd": 0.062, "momentum": 0.02, "nesterov": 0.02,
         "adagrad": 0.3, "rmsprop": 0.3, "adam": 0.3},
    ),
    "local-minimum": (
        60,
        {"sgd": 0.05, "momentum": 0.02, "nesterov": 0.02,
         "adagrad": 0.3, "rmsprop": 0.05, "adam": 0.1},
    ),
    "saddle": (
        80,
        {"sgd": 0.1, "momentum": 0.1, "nesterov": 0.1,
         "adagrad": 0.1, "rmsprop": 0.03, "adam": 0.05},
    ),
}  # fmt: skip
"""The lecture's three situations: steps, and the rate of each optimizer, as the picture has them.

The rates are chosen to show each method's nature, not to win: SGD's is near the largest that is
stable across the valley, which makes it zig-zag; the adaptive methods have one rate in common
there, so that their steps can be compared.
"""

_TITLES = {
    "quadratic": "poor conditioning",
    "local-minimum": "local minimum",
    "saddle": "saddle point",
}
_PLAIN = ("sgd", "momentum", "nesterov")
_ADAPTIVE = ("adagrad", "rmsprop", "adam")


def style(label: str, position: int = 0) -> dict[str, Any]:
    """Colour and dashes of a curve: fixed for the usual optimizers, else by its position."""
    others = list(_STYLES.values())
    return _STYLES.get(label) or {**others[position % len(others)], "linestyle": _MIXED}


def draw_landscape(axes: Axes, landscape: Landscape) -> None:
    """Contour lines, close together near the minima, and stars on the minima."""
    left, right, bottom, top = landscape.window
    x, y = jnp.meshgrid(jnp.linspace(left, right, 161), jnp.linspace(bottom, top, 161))
    points = jnp.stack([x.ravel(), y.ravel()], axis=1)
    values = np.asarray(jax.vmap(landscape.function)(points)).reshape(x.shape)
    levels = np.geomspace(1e-3, 1.0, 16) * values.max()
    axes.contour(x, y, values, levels=levels, colors="0.8", linewidths=0.7, zorder=0)
    for minimum in landscape.minima:
        if left <= minimum[0] <= right and bottom <= minimum[1] <= top:
            axes.plot(*minimum, marker="*", color="0.35", markersize=11, linestyle="none")
    axes.set(xlim=(left, right), ylim=(bottom, top))


def draw_path(axes: Axes, path: Path, label: str, **line: Any) -> None:
    """A path with a dot at every step, so that slow stretches are dense."""
    points = np.asarray(path.points)
    axes.plot(
        points[:, 0], points[:, 1],
        label=_plain(label), marker="o", markersize=2.6, linewidth=1.3,
        **(style(label) | line),
    )  # fmt: skip


def draw_values(axes: Axes, values: Mapping[str, ArrayLike]) -> None:
    """The function's value after each step, one curve for each label."""
    for position, (label, series) in enumerate(values.items()):
        axes.plot(np.asarray(series), label=_plain(label), **style(label, position))
    axes.set(xlabel="step", ylabel="value")


def draw_distances(axes: Axes, paths: Mapping[str, Path], landscape: Landscape) -> None:
    """The distance to the landscape's first minimum after each step, one curve for each label."""
    for position, (label, path) in enumerate(paths.items()):
        gaps = np.asarray(path.points) - np.asarray(landscape.minima[0])
        distances = np.linalg.norm(gaps, axis=1)
        axes.plot(distances, label=_plain(label), **style(label, position))
    axes.set(xlabel="step", ylabel="distance to the minimum")


def landscape_figure() -> Figure:
    """The six optimizers of the lecture in its three situations.

    The first two rows are paths; the third shows over time what matters in each situation.
    """
    figure = Figure(figsize=(11.5, 10.0), layout="constrained")
    grid = figure.subplots(3, 3)
    for column, (name, (steps, rates)) in enumerate(SITUATIONS.items()):
        landscape = LANDSCAPES[name]
        paths = {
            label: trace_path(tx.replace(learning_rate=rates[label]), landscape, steps)
            for label, tx in LECTURE.items()
        }
        for row, labels in enumerate((_PLAIN, _ADAPTIVE)):
            axes = grid[row, column]
            draw_landscape(axes, landscape)
            axes.plot(*landscape.start, marker="s", color="0.35", markersize=6)
            for label in labels:
                draw_path(axes, paths[label], label)
            axes.legend(loc="lower right", fontsize=9)
        grid[0, column].set_title(_TITLES[name], fontsize=13)
        if name == "quadratic":
            adaptive = {label: paths[label] for label in _ADAPTIVE}
            draw_distances(grid[2, column], adaptive, landscape)
            grid[2, column].set_title("AdaGrad slows down before it arrives", fontsize=10)
        else:
            draw_values(grid[2, column], {label: path.values for label, path in paths.items()})
            grid[2, column].set_title("value along the path", fontsize=10)
        grid[2, column].legend(loc="best", fontsize=9)
    return figure


def curves_figure(results: Sequence[Result], title: str) -> Figure:
    """Training and validation loss against steps, the best learning rate of each entrant."""
    figure = Figure(figsize=(11.5, 5.0), layout="constrained")
    train, validation = figure.subplots(1, 2, sharey=True)
    for position, result in enumerate(results):
        if result.best is None:
            continue
        curve = result.best.curve
        label = _plain(f"{_shorten(result.label)}  ({result.best.shown_rate})")
        for axes, losses in ((train, curve.train_loss), (validation, curve.validation_loss)):
            axes.plot(
                curve.steps, np.maximum(losses, _SMALLEST_LOSS),
                label=label, linewidth=1.6, **style(result.label, position),
            )  # fmt: skip
    for axes, name in ((train, "training batches"), (validation, "validation")):
        axes.set(title=f"loss on {name}", xlabel="step", yscale="log")
        axes.grid(True, which="both", color="0.92", linewidth=0.6)
    train.set_ylabel("loss")
    if validation.lines:
        handles, labels = validation.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", title="optimizer (learning rate)")
    figure.suptitle(_plain(title))
    return figure


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure as PNG, in 256 colours: a third of the size, and no visible difference."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    image = Image.open(drawn).convert("RGB")
    # Coverage, because a median cut drops the colour of a curve that hardly shows.
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    image.quantize(256, method, dither=dither).save(path, optimize=True)


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def _shorten(label: str, width: int = 34) -> str:
    return label if len(label) <= width else label[: width - 1] + "…"
