"""Multiplying updates by a number: a constant, a schedule, the learning rate."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_number, check_rate, value_at
from gradtx.core.leaf import as_operand, map_leaves
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.slot import Count, Params, State, Updates
from gradtx.core.transformation import EmptyState, GradientTransformation
from gradtx.core.value import static
from gradtx.transforms.stateless import Stateless

ScaleState = EmptyState  # as in Optax


def scale_rule(u: jax.Array, *, step_size: Hyper) -> jax.Array:
    return step_size * u


class scale(Stateless):
    """u <- step_size * u.

    Args:
      step_size: any finite number or 0-d array; negative for descent.

    Raises:
      TypeError, ValueError: `step_size` is not a finite number.

    >>> tx = gradtx.scale(-0.1)
    >>> tx.update(jnp.asarray([1.0]), tx.init(None))[0]
    Array([-0.1], dtype=float32)
    """

    is_cheap: ClassVar[bool] = True

    step_size: Hyper

    def validate(self) -> None:
        check_number("step_size", self.step_size)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(scale_rule, updates, step_size=as_operand(self.step_size))


class ScaleByScheduleState(NamedTuple):
    """How many updates were scaled."""

    count: Count  # type: ignore[assignment]


class scale_by_schedule(GradientTransformation):
    """u <- step_size_fn(count) * u, where count is 0 at the first update.

    Args:
      step_size_fn: a schedule, or any function from a step count (int32, shape ()) to a number.

    Raises:
      TypeError: `step_size_fn` is not callable.

    >>> tx = gradtx.scale_by_schedule(gradtx.linear_schedule(1.0, 0.0, 10))
    >>> tx.update(jnp.asarray([2.0]), tx.init(None))[0]
    Array([2.], dtype=float32)
    """

    is_cheap: ClassVar[bool] = True

    step_size_fn: ScalarOrSchedule

    def validate(self) -> None:
        if not callable(self.step_size_fn):
            raise TypeError(f"step_size_fn must be a schedule, got {self.step_size_fn!r}")

    def init(self, params: Params) -> ScaleByScheduleState:
        return ScaleByScheduleState(zero_count())

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        step_size = value_at(self.step_size_fn, state.count)
        updates = map_leaves(scale_rule, updates, step_size=step_size)
        return updates, ScaleByScheduleState(safe_increment(state.count))


class scale_by_learning_rate(GradientTransformation):
    """u <- -learning_rate * u, the step of descent, with a constant or scheduled rate.

    The state is `EmptyState()` for a constant rate and `ScaleByScheduleState(count)` for a
    schedule, as in Optax. The schedule is called with 0 at the first update.

    Args:
      learning_rate: number >= 0, 0-d array, schedule, or `None` for no scaling at all.
      flip_sign: `False` leaves out the minus sign.

    Raises:
      TypeError, ValueError: `learning_rate` is not a number, or is negative or not finite;
        for ascent use `scale`, or `flip_sign=False`.

    >>> tx = gradtx.scale_by_learning_rate(0.1)
    >>> tx.update(jnp.asarray([1.0]), tx.init(None))[0]
    Array([-0.1], dtype=float32)
    """

    is_cheap: ClassVar[bool] = True

    learning_rate: ScalarOrSchedule | None = None
    flip_sign: bool = static(default=True, kw_only=True)

    def validate(self) -> None:
        if self.learning_rate is not None:
            check_rate("learning_rate", self.learning_rate)

    def init(self, params: Params) -> State:
        if callable(self.learning_rate):
            return ScaleByScheduleState(zero_count())
        return EmptyState()

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        if self.learning_rate is None:
            return updates, state
        rate = self.learning_rate
        if callable(rate):
            rate = rate(state.count)
            state = ScaleByScheduleState(safe_increment(state.count))
        step_size = -rate if self.flip_sign else rate
        return map_leaves(scale_rule, updates, step_size=as_operand(step_size)), state
