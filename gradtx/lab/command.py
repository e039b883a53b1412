"""`python -m gradtx race`: checks what was asked for, runs it, and reports."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from gradtx.lab import plots, report
from gradtx.lab.lineup import DEFAULT, Entrant, enter, try_out
from gradtx.lab.race import Result, run_entrant
from gradtx.lab.tasks import TASKS, Task
from gradtx.parse import ParseError, nearest, split_calls

INTERRUPTED = 130
"""The exit code of a process that Ctrl-C ended, as shells have it."""


class UsageError(ValueError):
    """What was asked for cannot be done; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for on the command line; `None` means the task's usual.

    Attributes:
      task: a name of `TASKS`.
      optimizers: names and call texts separated by commas.
      steps: at least 1.
      batch_size: from 1 to the number of training examples.
      seed: at least 0.
      out: the folder to write to.
    """

    task: str = "digits"
    optimizers: str = ",".join(DEFAULT)
    steps: int | None = None
    batch_size: int | None = None
    seed: int = 0
    out: pathlib.Path = pathlib.Path("race")


def run(request: Request) -> int:
    """Runs a race and returns the exit code: 0, or `INTERRUPTED` if Ctrl-C ended it early.

    Everything is checked before anything runs. Results are written as soon as an entrant is
    finished, so an interruption loses no more than the one that was running.

    Raises:
      UsageError: what was asked for cannot be done.
    """
    task = _load_task(request.task)
    steps = task.steps if request.steps is None else request.steps
    batch_size = _check_batch_size(request.batch_size, task)
    entrants = _enter_all(request.optimizers, task)
    setting = report.Setting(
        task.name, task.description, steps, batch_size if task.has_data else None, request.seed
    )
    folder = request.out
    with _writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        report.write_results(folder, setting, [], "running")

    console = Console()
    finished: list[Result] = []
    status = "complete"
    try:
        for result in _race(entrants, task, steps, batch_size, request.seed, console):
            finished.append(result)
            with _writing_to(folder):
                report.write_results(folder, setting, finished, "running")
    except KeyboardInterrupt:
        status = "interrupted"
        console.print("Interrupted: writing what is finished.")
    with _writing_to(folder):
        report.write_results(folder, setting, finished, status)
        plots.save(plots.curves_figure(finished, setting.title), folder / report.CURVES)
        plots.save(plots.landscape_figure(), folder / report.LANDSCAPE)
        report.write_page(folder, setting, finished)
    console.print(report.table(setting, finished))
    console.print(Text(f"Open {folder / report.PAGE}"), soft_wrap=True)
    return 0 if status == "complete" else INTERRUPTED


def _load_task(name: str) -> Task:
    if name not in TASKS:
        raise UsageError(f"unknown task {name!r}; {nearest(name, TASKS)}")
    return TASKS[name]()


def _check_batch_size(asked: int | None, task: Task) -> int:
    if asked is None:
        return task.batch_size
    if not task.has_data:
        raise UsageError(f"--batch-size has no meaning for {task.name}, which has no data")
    if asked > task.size:
        raise UsageError(f"--batch-size {asked} is larger than the {task.size} training examples")
    return asked


def _enter_all(text: str, task: Task) -> list[Entrant]:
    params = jax.eval_shape(task.init, jax.random.key(0))
    try:
        entrants = [enter(piece, task.rates) for piece in dict.fromkeys(split_calls(text))]
        for entrant in entrants:
            try_out(entrant, params)
    except ParseError as error:
        raise UsageError(str(error)) from error
    return entrants


def _race(
    entrants: list[Entrant], task: Task, steps: int, batch_size: int, seed: int, console: Console
) -> Iterator[Result]:
    with Progress(
        TextColumn("{task.fields[label]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        bar = progress.add_task("race", total=len(entrants) * steps, label="")
        for entrant in entrants:
            progress.update(bar, label=entrant.label)
            yield run_entrant(
                entrant, task, steps, batch_size, seed,
                on_progress=lambda done: progress.advance(bar, done),
            )  # fmt: skip


@contextlib.contextmanager
def _writing_to(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write to {str(folder)!r}: {error.strerror or error}") from error
