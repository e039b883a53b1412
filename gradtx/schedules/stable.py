"""Warm-up, stable phase, decay (WSD)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import Hyper, Schedule, as_count, as_float, check_number, check_steps
from gradtx.core.value import integer, static
from gradtx.schedules.cosine import falling_cosine
from gradtx.schedules.polynomial import between, linear_schedule, remaining


class warmup_stable_decay_schedule(Schedule):
    """A linear warm-up to `peak_value`, which stays, then a decay to `end_value` (WSD).

    With x from 0 to 1 over the decay, the part of the peak that is left is

        'linear'  1 - x        'cosine'  (1 + cos(pi x)) / 2        '1-sqrt'  1 - sqrt(x)

    The decay can be started from any checkpoint of the stable phase, so the length of a run
    need not be known when it begins.

    Source: Hu et al., "MiniCPM: unveiling the potential of small language models with scalable
    training strategies", 2024, arXiv:2404.06395; Hägele et al., "Scaling laws and
    compute-optimal training beyond fixed training durations", 2024, arXiv:2405.18392 (1-sqrt).

    Args:
      init_value, peak_value, end_value: values at step 0, in the stable phase, and after the
        decay.
      warmup_steps, stable_steps, decay_steps: length of each phase in steps, >= 0. (In
        `warmup_cosine_decay_schedule`, `decay_steps` is the length of the whole.)
      decay_type: `'linear'`, `'cosine'` or `'1-sqrt'`.

    Raises:
      TypeError, ValueError: a value is not a finite number, a count of steps is negative or
        not whole, or `decay_type` is none of the three.

    >>> schedule = gradtx.warmup_stable_decay_schedule(0.0, 1.0, 2, 5, 4)
    >>> print(*(schedule(t) for t in (0, 1, 2, 7, 9, 11)))
    0.0 0.5 1.0 1.0 0.5 0.0
    """

    init_value: Hyper
    peak_value: Hyper
    warmup_steps: int = integer()
    stable_steps: int = integer()
    decay_steps: int = integer()
    end_value: Hyper = 0.0
    decay_type: str = static(default="linear")

    def validate(self) -> None:
        for name in ("init_value", "peak_value", "end_value"):
            check_number(name, getattr(self, name))
        for name in ("warmup_steps", "stable_steps", "decay_steps"):
            check_steps(name, getattr(self, name))
        if self.decay_type not in ("linear", "cosine", "1-sqrt"):
            raise ValueError(
                f"decay_type must be 'linear', 'cosine' or '1-sqrt', got {self.decay_type!r}"
            )

    def __call__(self, count: ArrayLike) -> jax.Array:
        begin = self.warmup_steps + self.stable_steps
        left = remaining(count, self.decay_steps, begin)
        if self.decay_type == "linear":
            weight = left
        elif self.decay_type == "cosine":
            weight = falling_cosine(left)
        else:
            weight = falling_sqrt(left, count, self.decay_steps, begin)
        decayed = between(self.peak_value, self.end_value, weight)
        warmup = linear_schedule(self.init_value, self.peak_value, self.warmup_steps)
        return jnp.where(as_count(count) < begin, warmup(count), decayed)


def falling_sqrt(
    left: jax.Array, count: ArrayLike, steps: ArrayLike, begin: ArrayLike
) -> jax.Array:
    """1 - sqrt(x), x the fraction of the phase's steps that are done; precise at both ends."""
    done = as_float(jnp.clip(as_count(count) - begin, 0, steps)) / as_float(jnp.maximum(steps, 1))
    # The plain difference would be rounded near the end, and 1 - left near the beginning.
    return left / (1 + jnp.sqrt(done))
