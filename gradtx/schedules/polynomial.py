"""Schedules that follow a power of the steps that remain: constant, linear, polynomial."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import Hyper, Schedule, as_count, as_float, check_number, check_steps
from gradtx.core.value import integer


class constant_schedule(Schedule):
    """The same value at every step.

    Args:
      value: any finite number or 0-d array.

    Raises:
      TypeError, ValueError: `value` is not a finite number.

    >>> schedule = gradtx.constant_schedule(0.1)
    >>> print(schedule(1000))
    0.1
    """

    value: Hyper

    def validate(self) -> None:
        check_number("value", self.value)

    def __call__(self, count: ArrayLike) -> jax.Array:
        del count
        return as_float(self.value)


class polynomial_schedule(Schedule):
    """From one value to another along a power of the fraction of steps that remain.

        (init - end) (1 - k / transition_steps)^power + end,
        k = count - transition_begin, clipped to [0, transition_steps]

    The steps that remain are counted in integers, so both ends are exact. With
    `transition_steps=0` the value jumps from `init_value` to `end_value` at
    `transition_begin` (Optax stays at `init_value` for ever).

    Args:
      init_value, end_value: values before and after. Numbers or 0-d arrays.
      power: > 0 in use; 1 is linear.
      transition_steps: length of the transition in steps, >= 0.
      transition_begin: step at which it begins, >= 0.

    Raises:
      TypeError, ValueError: a value is not a finite number, or a count of steps is negative
        or not whole.

    >>> schedule = gradtx.polynomial_schedule(1.0, 0.0, power=2, transition_steps=10)
    >>> print(schedule(0), schedule(5), schedule(10), schedule(11))
    1.0 0.25 0.0 0.0
    """

    init_value: Hyper
    end_value: Hyper
    power: Hyper
    transition_steps: int = integer()
    transition_begin: int = integer(default=0)

    def validate(self) -> None:
        check_number("init_value", self.init_value)
        check_number("end_value", self.end_value)
        check_number("power", self.power, 0.0)
        check_steps("transition_steps", self.transition_steps)
        check_steps("transition_begin", self.transition_begin)

    def __call__(self, count: ArrayLike) -> jax.Array:
        left = remaining(count, self.transition_steps, self.transition_begin)
        return between(self.init_value, self.end_value, left**self.power)


class linear_schedule(Schedule):
    """From one value to another in equal steps.

        init + (end - init) k / transition_steps,
        k = count - transition_begin, clipped to [0, transition_steps]

    Args:
      init_value, end_value, transition_steps, transition_begin: as for `polynomial_schedule`.

    Raises:
      TypeError, ValueError: as for `polynomial_schedule`.

    >>> schedule = gradtx.linear_schedule(0.0, 1.0, transition_steps=4)
    >>> print(schedule(0), schedule(1), schedule(4), schedule(5))
    0.0 0.25 1.0 1.0
    """

    init_value: Hyper
    end_value: Hyper
    transition_steps: int = integer()
    transition_begin: int = integer(default=0)

    def validate(self) -> None:
        self._polynomial()

    def _polynomial(self) -> polynomial_schedule:
        return polynomial_schedule(
            self.init_value, self.end_value, 1.0, self.transition_steps, self.transition_begin
        )

    def __call__(self, count: ArrayLike) -> jax.Array:
        return self._polynomial()(count)


def between(start: Hyper, end: Hyper, weight: jax.Array) -> jax.Array:
    """`weight` parts of `start` to `1 - weight` of `end`, from 0 to 1; exact at both ends."""
    # The difference of ends far apart is rounded, so their sum would miss the start.
    return as_float(jnp.where(weight < 1, (start - end) * weight + end, start))


def remaining(count: ArrayLike, steps: ArrayLike, begin: ArrayLike = 0) -> jax.Array:
    """The fraction of a phase's steps that remain: 1 up to its beginning, 0 from its end."""
    count = as_count(count)
    left = steps - jnp.clip(count - begin, 0, steps)
    ended = as_float(count < begin)
    fraction = as_float(left) / as_float(jnp.maximum(steps, 1))
    return jnp.where(jnp.asarray(steps) > 0, fraction, ended)
