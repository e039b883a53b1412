"""One-cycle schedules: up to a peak, and down below the start (Smith & Topin, 2017)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import (
    Hyper,
    Schedule,
    as_count,
    as_float,
    check_number,
    check_positive,
    check_steps,
)
from gradtx.core.value import plain_number, static
from gradtx.schedules.cosine import falling_cosine
from gradtx.schedules.polynomial import between, remaining


class linear_onecycle_schedule(Schedule):
    """Lines from peak / div_factor to the peak, back again, and on down to the last value.

    The first value is `peak_value / div_factor`; the peak is at step
    `int(pct_start * transition_steps)`; the first value comes back at step
    `int(pct_final * transition_steps)`; the last one, `peak_value / (div_factor *
    final_div_factor)`, stands from step `transition_steps` on.

    Source: Smith, Topin, "Super-convergence: very fast training of neural networks using large
    learning rates", 2017, arXiv:1708.07120.

    Args:
      transition_steps: length of the cycle in steps, >= 1.
      peak_value: the largest value.
      pct_start, pct_final: where the peak and the end of the descent lie, as fractions of the
        cycle: 0 <= pct_start <= pct_final <= 1. (These and `transition_steps` say where the
        phases lie, so they are part of the schedule's structure and cannot be traced.)
      div_factor: the peak over the first value, > 0.
      final_div_factor: the first value over the last, > 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> schedule = gradtx.linear_onecycle_schedule(100, 1.0, div_factor=4.0, final_div_factor=2.0)
    >>> print(*(schedule(t) for t in (0, 15, 30, 85, 100, 101)))
    0.25 0.625 1.0 0.25 0.125 0.125
    """

    transition_steps: int = static()
    peak_value: Hyper
    pct_start: float = static(default=0.3)
    pct_final: float = static(default=0.85)
    div_factor: Hyper = 25.0
    final_div_factor: Hyper = 1e4

    def validate(self) -> None:
        _check_cycle(self, "pct_start", "pct_final")

    def __call__(self, count: ArrayLike) -> jax.Array:
        first = self.peak_value / self.div_factor
        knots = [
            (0, first),
            (int(self.pct_start * self.transition_steps), self.peak_value),
            (int(self.pct_final * self.transition_steps), first),
            (self.transition_steps, first / self.final_div_factor),
        ]
        return _through(count, knots, lambda left: left)


class cosine_onecycle_schedule(Schedule):
    """Half a cosine from peak / div_factor to the peak, and half a cosine to the last value.

    The first value is `peak_value / div_factor`; the peak is at step
    `int(pct_start * transition_steps)`; the last one, `peak_value / (div_factor *
    final_div_factor)`, stands from step `transition_steps` on.

    Source: as for `linear_onecycle_schedule`; the cosine is fast.ai's.

    Args:
      transition_steps, peak_value, pct_start, div_factor, final_div_factor: as for
        `linear_onecycle_schedule`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> schedule = gradtx.cosine_onecycle_schedule(100, 1.0, div_factor=4.0, final_div_factor=2.0)
    >>> print(*(schedule(t) for t in (0, 15, 30, 100, 101)))
    0.25 0.625 1.0 0.125 0.125
    """

    transition_steps: int = static()
    peak_value: Hyper
    pct_start: float = static(default=0.3)
    div_factor: Hyper = 25.0
    final_div_factor: Hyper = 1e4

    def validate(self) -> None:
        _check_cycle(self, "pct_start")

    def __call__(self, count: ArrayLike) -> jax.Array:
        first = self.peak_value / self.div_factor
        knots = [
            (0, first),
            (int(self.pct_start * self.transition_steps), self.peak_value),
            (self.transition_steps, first / self.final_div_factor),
        ]
        return _through(count, knots, falling_cosine)


def _through(
    count: ArrayLike,
    knots: list[tuple[int, Hyper]],
    weight: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """The value at `count` on the way from knot to knot, each a step and the value there."""
    count = as_count(count)
    value = as_float(knots[0][1])
    for (begin, start), (end, stop) in itertools.pairwise(knots):
        left = remaining(count, end - begin, begin)
        value = jnp.where(count < begin, value, between(start, stop, weight(left)))
    return value


def _check_cycle(
    schedule: linear_onecycle_schedule | cosine_onecycle_schedule, *fractions: str
) -> None:
    for name in ("transition_steps", *fractions):
        number = plain_number(getattr(schedule, name), whole=name == "transition_steps")
        if isinstance(number, jax.core.Tracer):
            raise TypeError(f"{name} must be a concrete number, got {number}")
        object.__setattr__(schedule, name, number)
    check_steps("transition_steps", schedule.transition_steps, low=1)
    low = 0.0
    for name in fractions:
        check_number(name, getattr(schedule, name), low, 1.0)
        low = getattr(schedule, name)
    check_number("peak_value", schedule.peak_value)
    check_positive("div_factor", schedule.div_factor)
    check_positive("final_div_factor", schedule.final_div_factor)
