"""What a race leaves behind: a table, `results.json`, and `index.html`."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import jax
import rich.box
from rich.table import Table
from rich.text import Text

import gradtx
from gradtx.lab.race import TARGET_ACCURACY, Result

RESULTS, CURVES, LANDSCAPE, PAGE = "results.json", "curves.png", "landscape.png", "index.html"

_NOTHING = "-"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What was raced, and how.

    Attributes:
      task: name of the task.
      description: one sentence on it.
      steps: steps for every entrant.
      batch_size: examples in a batch; `None` where the task has no data.
      seed: of the parameters and the batches.
    """

    task: str
    description: str
    steps: int
    batch_size: int | None
    seed: int

    @property
    def title(self) -> str:
        """One line for the head of a picture."""
        batches = "" if self.batch_size is None else f"batches of {self.batch_size}, "
        return f"{self.task}: {self.steps} steps, {batches}seed {self.seed}"


def columns(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """The table that the terminal and the page both show: headings, and a row per result."""
    headings = [
        "optimizer", "learning rate", "validation loss", "test accuracy",
        f"steps to {TARGET_ACCURACY:.0%}", "bytes / param", "ms / step",
    ]  # fmt: skip
    return headings, [_row(result) for result in results]


def table(setting: Setting, results: Sequence[Result]) -> Table:
    """The table for the terminal."""
    headings, rows = columns(results)
    shown = Table(
        title=Text(setting.title), caption=Text(caption(results)), box=rich.box.SIMPLE_HEAD
    )
    shown.add_column(headings[0], min_width=len(headings[0]), overflow="fold")
    for heading in headings[1:]:
        shown.add_column(textwrap.fill(heading, 10), justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def caption(results: Sequence[Result]) -> str:
    """What the last column counts."""
    points = sorted({len(result.grid) for result in results})
    return f"ms / step: the whole grid at once ({', '.join(map(str, points))} learning rates)"


def write_results(
    folder: pathlib.Path, setting: Setting, results: Sequence[Result], status: str
) -> None:
    """Writes `results.json`; a reader never sees half a file.

    Args:
      folder: where to.
      setting: what was raced.
      results: of the entrants that are finished.
      status: "running", "interrupted" or "complete".

    Raises:
      OSError: the folder cannot be written to.
    """
    document = {
        "status": status,
        "setting": dataclasses.asdict(setting),
        "versions": {"gradtx": gradtx.__version__, "jax": jax.__version__},
        "results": [dataclasses.asdict(result) for result in results],
    }
    unfinished = folder / f".{RESULTS}.part"
    unfinished.write_text(json.dumps(_finite(document), indent=1, allow_nan=False) + "\n")
    os.replace(unfinished, folder / RESULTS)


def write_page(folder: pathlib.Path, setting: Setting, results: Sequence[Result]) -> None:
    """Writes `index.html`: the table and the pictures that lie beside it.

    Raises:
      OSError: the folder cannot be written to.
    """
    headings, rows = columns(results)
    page = _PAGE.format(
        title=html.escape(setting.title),
        description=html.escape(setting.description),
        headings="".join(f"<th>{html.escape(heading)}</th>" for heading in headings),
        rows="\n".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        ),
        caption=html.escape(caption(results)),
        curves=CURVES,
        landscape=LANDSCAPE,
        results=RESULTS,
    )
    (folder / PAGE).write_text(page, encoding="utf-8")


def _row(result: Result) -> list[str]:
    best = result.best
    cost = [f"{result.state_bytes_per_parameter:.2f}", f"{result.seconds_per_step * 1e3:.2g}"]
    if best is None:
        return [result.label, "diverged", _NOTHING, _NOTHING, _NOTHING, *cost]
    return [
        result.label,
        best.shown_rate,
        f"{best.validation_loss:.3g}",
        _NOTHING if best.test_accuracy is None else f"{best.test_accuracy:.1%}",
        _NOTHING if best.steps_to_target is None else str(best.steps_to_target),
        *cost,
    ]


def _finite(x: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(x, dict):
        return {key: _finite(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>gradtx race: {title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
</style>
<h1>{title}</h1>
<p>Trained on {description}. Every optimizer was trained with each learning rate of its grid; the
row shows the one with the lowest validation loss.</p>
<table>
<thead><tr>{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p>{caption}. All numbers, and the other learning rates: <a href="{results}">{results}</a>.</p>
<h2>Loss</h2>
<p>The loss on the batches that were trained on, and on the validation examples, against steps:
the best learning rate of each optimizer.</p>
<img src="{curves}" alt="Loss curves of all optimizers">
<h2>Paths</h2>
<p>The six optimizers of the lecture, a dot per step, from the square towards a star. Under poor
conditioning SGD zig-zags across the valley, and AdaGrad slows down before it arrives. Momentum
rolls through the local minimum in which SGD stays. At the saddle point SGD is slow, and momentum
soon passes.</p>
<img src="{landscape}" alt="Paths of six optimizers over three landscapes">
</html>
"""
