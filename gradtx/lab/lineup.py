"""Who runs: optimizers by name or by call text, each with a grid of learning rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

import gradtx
from gradtx.parse import ParseError, nearest, parse_transformation

LECTURE: dict[str, gradtx.GradientTransformation] = {
    "sgd": gradtx.sgd(0.01),
    "momentum": gradtx.sgd(0.01, momentum=0.9),
    "nesterov": gradtx.sgd(0.01, momentum=0.9, nesterov=True),
    "adagrad": gradtx.adagrad(0.01, initial_accumulator_value=0.0, eps=1e-7, eps_in_sqrt=False),
    "rmsprop": gradtx.rmsprop(0.01, decay=0.9, eps=1e-7, eps_in_sqrt=False),
    "adam": gradtx.adam(0.01),
}
"""The six optimizers of the lecture, in its own conventions; the race brings the rates."""

DEFAULT = (*LECTURE, "adamw")
"""Who runs where nobody is named."""

FACTORS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""What the step of a call text is multiplied by: its own learning rate is in the middle."""


@dataclasses.dataclass(frozen=True)
class Entrant:
    """An optimizer and the grid that it is tried with.

    Attributes:
      label: how the user named it.
      transformation: the optimizer at its nominal rate.
      grid: what `build` is to be called with.
      is_factor: whether the grid multiplies the updates, and does not set `learning_rate`:
        for a transformation that has no such number.
    """

    label: str
    transformation: gradtx.GradientTransformation
    grid: tuple[float, ...]
    is_factor: bool

    def build(self, rate: Any) -> gradtx.GradientTransformation:
        """The optimizer at one point of the grid; `rate` may be traced.

        >>> enter("momentum", rates=(0.1, 0.2)).build(0.2)
        sgd(learning_rate=0.2, momentum=0.9)
        """
        if self.is_factor:
            return gradtx.chain(self.transformation, gradtx.scale(rate))
        return self.transformation.replace(learning_rate=rate)

    def show(self, rate: float) -> str:
        """A point of the grid, as a reader wants to see it."""
        return f"x {rate:g}" if self.is_factor else f"{rate:g}"


def names() -> list[str]:
    """The names that need no arguments: the lecture's, then every public optimizer.

    >>> names()[:3]
    ['sgd', 'momentum', 'nesterov']
    """
    public = [name for name in gradtx.__all__ if _is_optimizer(getattr(gradtx, name))]
    return list(dict.fromkeys([*LECTURE, *public]))


def enter(text: str, rates: Sequence[float]) -> Entrant:
    """The entrant that `text` stands for: a name of `names()`, or a call text.

    Args:
      text: such as `adam` or `chain(clip(1.0), adam(3e-3))`.
      rates: learning rates for a name. A call text with a constant `learning_rate` is tried at
        `FACTORS` times it; any other has its updates multiplied by `FACTORS`.

    Raises:
      ParseError: `text` is neither.

    >>> enter("adam(1e-2)", rates=()).grid
    (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    """
    if text.isidentifier():
        if text not in names():
            raise ParseError(f"unknown optimizer {text!r}; {nearest(text, names())}")
        tx = LECTURE.get(text) or getattr(gradtx, text)(learning_rate=rates[0])
        return Entrant(text, tx, tuple(rates), is_factor=False)
    tx = parse_transformation(text)
    rate = getattr(tx, "learning_rate", None)
    if isinstance(rate, float):
        grid = tuple(float(f"{rate * factor:.6g}") for factor in FACTORS)
        return Entrant(text, tx, grid, is_factor=False)
    return Entrant(text, tx, FACTORS, is_factor=True)


def try_out(entrant: Entrant, params: Any) -> None:
    """Traces one step, so that what cannot train `params` is refused before anything runs.

    Raises:
      ParseError: the step fails; the message is the first line of why.
    """

    def one_step(params: Any) -> Any:
        tx = entrant.build(entrant.grid[0])
        return tx.step(params, tx.init(params), params)[0]

    try:
        jax.eval_shape(one_step, params)
    except Exception as error:  # whatever a transformation raises, the reader wants one line
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ParseError(f"{entrant.label!r} cannot train this task: {reason}") from error


def _is_optimizer(thing: Any) -> bool:
    """Whether this is a public optimizer: a transformation class whose rate is all it needs."""
    if not (isinstance(thing, type) and issubclass(thing, gradtx.GradientTransformation)):
        return False
    required = [f.name for f in dataclasses.fields(thing) if f.default is dataclasses.MISSING]
    has_rate = any(field.name == "learning_rate" for field in dataclasses.fields(thing))
    stage = thing.__name__.startswith("scale")
    if stage or not has_rate or not set(required) <= {"learning_rate"}:
        return False
    return not thing(learning_rate=0.1).required_extra_args
