"""Cosine decay (Loshchilov & Hutter, 2016, arXiv:1608.03983)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import Hyper, Schedule, check_nonnegative, check_number, check_steps
from gradtx.core.value import hyper, integer
from gradtx.schedules.polynomial import remaining


class cosine_decay_schedule(Schedule):
    """Half a period of a cosine, from `init_value` down to `alpha * init_value`.

        init_value ((1 - alpha) ((1 + cos(pi k / decay_steps)) / 2)^exponent + alpha),
        k = min(count, decay_steps)

    Source: Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2016,
    arXiv:1608.03983, equation 5, without restarts.

    Args:
      init_value: value at the beginning.
      decay_steps: length of the decay in steps, >= 1.
      alpha: the last value as a fraction of `init_value`.
      exponent: power of the cosine.

    Raises:
      TypeError, ValueError: a value is not a finite number, `exponent` is negative, or
        `decay_steps` is below 1.

    >>> schedule = gradtx.cosine_decay_schedule(1.0, decay_steps=10)
    >>> print(schedule(0), schedule(10), schedule(11))
    1.0 0.0 0.0
    """

    init_value: Hyper
    decay_steps: int = integer()
    alpha: Hyper = hyper(default=0.0)
    exponent: Hyper = hyper(default=1.0)

    def validate(self) -> None:
        check_number("init_value", self.init_value)
        check_steps("decay_steps", self.decay_steps, low=1)
        check_number("alpha", self.alpha)
        check_nonnegative("exponent", self.exponent)

    def __call__(self, count: ArrayLike) -> jax.Array:
        done = 1 - remaining(count, self.decay_steps)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * done))
        return self.init_value * ((1 - self.alpha) * cosine**self.exponent + self.alpha)
