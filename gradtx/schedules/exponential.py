"""Exponential decay."""

from __future__ import annotations

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
from gradtx.core.value import integer, static


class exponential_decay(Schedule):
    """Multiplies by `decay_rate` every `transition_steps` steps, smoothly or in stairs.

        init_value decay_rate^(k / transition_steps),  k = max(count - transition_begin, 0)

    Args:
      init_value: value before the decay begins.
      transition_steps: steps in which the value is multiplied once, >= 1.
      decay_rate: the factor, > 0.
      transition_begin: step at which the decay begins, >= 0.
      staircase: whether the exponent is rounded down to whole numbers.
      end_value: bound that the value does not pass: a lower bound for `decay_rate < 1`, an
        upper bound otherwise; `None` for none.

    Raises:
      TypeError, ValueError: a value is not a finite number, `decay_rate` is not positive, or
        a count of steps is too small or not whole.

    >>> schedule = gradtx.exponential_decay(1.0, transition_steps=10, decay_rate=0.5)
    >>> print(schedule(0), schedule(10), schedule(20))
    1.0 0.5 0.25
    """

    init_value: Hyper
    transition_steps: int = integer()
    decay_rate: Hyper
    transition_begin: int = integer(default=0)
    staircase: bool = static(default=False)
    end_value: Hyper | None = None

    def validate(self) -> None:
        check_number("init_value", self.init_value)
        check_steps("transition_steps", self.transition_steps, low=1)
        check_positive("decay_rate", self.decay_rate)
        check_steps("transition_begin", self.transition_begin)
        if self.end_value is not None:
            check_number("end_value", self.end_value)

    def __call__(self, count: ArrayLike) -> jax.Array:
        steps = jnp.maximum(as_count(count) - self.transition_begin, 0)
        power = as_float(steps) / as_float(self.transition_steps)
        if self.staircase:
            power = jnp.floor(power)
        value: jax.Array = self.init_value * as_float(self.decay_rate) ** power
        if self.end_value is not None:
            falling = jnp.asarray(self.decay_rate) < 1
            value = jnp.where(
                falling, jnp.maximum(value, self.end_value), jnp.minimum(value, self.end_value)
            )
        return value
