"""Decay with the inverse square root of the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import Hyper, Schedule, as_count, as_float, check_number, check_steps
from gradtx.core.value import integer
from gradtx.schedules.polynomial import linear_schedule


class inverse_sqrt_schedule(Schedule):
    """A linear warm-up to `peak_value`, then decay with the inverse square root of the step.

        peak_value sqrt(T / (T + k)),  k = count - warmup_steps,  T = timescale

    With T = warmup_steps, the default, this is peak_value sqrt(warmup_steps / count), the
    Transformer's, whose peak is (d_model warmup_steps)^(-1/2). T5's 1 / sqrt(max(count, n)) is
    `inverse_sqrt_schedule(n**-0.5, n**-0.5, n)`.

    Source: Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762, equation 3
    (which counts steps from 1); Raffel et al., "Exploring the limits of transfer learning with
    a unified text-to-text transformer", 2019, arXiv:1910.10683, section 3.1.2.

    Args:
      init_value, peak_value: values at step 0 and at step `warmup_steps`.
      warmup_steps: length of the warm-up in steps, >= 0.
      timescale: T, in steps: after 3 T more the value is halved. >= 1; `None` for
        `warmup_steps`, which must then be >= 1.

    Raises:
      TypeError, ValueError: a value is not a finite number, or a count of steps is too small
        or not whole.

    >>> schedule = gradtx.inverse_sqrt_schedule(0.0, 1.0, warmup_steps=10)
    >>> print(schedule(0), schedule(5), schedule(10), schedule(40), schedule(1000))
    0.0 0.5 1.0 0.5 0.1
    """

    init_value: Hyper
    peak_value: Hyper
    warmup_steps: int = integer()
    timescale: int | None = integer(default=None)

    def validate(self) -> None:
        check_number("init_value", self.init_value)
        check_number("peak_value", self.peak_value)
        check_steps("warmup_steps", self.warmup_steps)
        if self.timescale is not None:
            check_steps("timescale", self.timescale, low=1)
        elif not isinstance(self.warmup_steps, jax.core.Tracer) and self.warmup_steps == 0:
            raise ValueError("timescale must be given where warmup_steps is 0")

    def __call__(self, count: ArrayLike) -> jax.Array:
        count = as_count(count)
        timescale = self.warmup_steps if self.timescale is None else self.timescale
        since = as_float(jnp.maximum(count - self.warmup_steps, 0))
        decayed = self.peak_value / jnp.sqrt(1 + since / as_float(timescale))
        warmup = linear_schedule(self.init_value, self.peak_value, self.warmup_steps)
        return jnp.where(count < self.warmup_steps, warmup(count), decayed)
