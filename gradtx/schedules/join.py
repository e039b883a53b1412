"""One schedule after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import Schedule, ScheduleFn, as_float, check_steps
from gradtx.core.value import is_plain_callable, plain_number


class join_schedules(Schedule):
    """Runs schedules one after another; each counts from 0 at its own beginning.

    Args:
      schedules: the schedules, or functions of a step count.
      boundaries: the steps at which the second, third, ... begin: whole numbers >= 0 in
        order, one fewer than there are schedules.

    Raises:
      TypeError: a schedule is not callable.
      ValueError: the boundaries are too many or too few, negative or out of order.

    >>> warmup = gradtx.linear_schedule(0.0, 1.0, 2)
    >>> schedule = gradtx.join_schedules([warmup, gradtx.constant_schedule(1.0)], [2])
    >>> print(schedule(0), schedule(1), schedule(2), schedule(3))
    0.0 0.5 1.0 1.0
    """

    schedules: tuple[ScheduleFn, ...]
    boundaries: tuple[int, ...]

    def __init__(self, schedules: Sequence[ScheduleFn], boundaries: Sequence[int]) -> None:
        object.__setattr__(self, "schedules", tuple(map(_as_value, schedules)))
        whole = tuple(plain_number(boundary, whole=True) for boundary in boundaries)
        object.__setattr__(self, "boundaries", whole)
        self.validate()

    def validate(self) -> None:
        if len(self.boundaries) != len(self.schedules) - 1:
            raise ValueError(
                f"{len(self.schedules)} schedules need {max(len(self.schedules) - 1, 0)} "
                f"boundaries, got {len(self.boundaries)}"
            )
        for i, boundary in enumerate(self.boundaries):
            check_steps(f"boundaries[{i}]", boundary, low=self.boundaries[i - 1] if i else 0)

    def __call__(self, count: ArrayLike) -> jax.Array:
        count = jnp.asarray(count)
        value = as_float(self.schedules[0](count))
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            # Counted from 0 also where another phase is running: its value is not used.
            begun = jnp.maximum(count - boundary, 0)
            value = jnp.where(count < boundary, value, as_float(schedule(begun)))
        return value


class _Function(Schedule):
    """A plain function among the schedules of a join: part of its structure."""

    function: Any

    def __call__(self, count: ArrayLike) -> jax.Array:
        return as_float(self.function(count))


def _as_value(schedule: Any) -> Any:
    if not callable(schedule):
        raise TypeError(f"a schedule must be callable, got {schedule!r}")
    return _Function(schedule) if is_plain_callable(schedule) else schedule
