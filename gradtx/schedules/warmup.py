"""Schedules that begin with a linear warm-up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import (
    Hyper,
    Schedule,
    check_nonnegative,
    check_number,
    check_steps,
)
from gradtx.core.value import integer, static
from gradtx.schedules.cosine import falling_cosine
from gradtx.schedules.exponential import exponential_decay
from gradtx.schedules.join import join_schedules
from gradtx.schedules.polynomial import between, linear_schedule, remaining


class warmup_constant_schedule(Schedule):
    """A linear warm-up from `init_value` to `peak_value`, which then stays.

    Args:
      init_value, peak_value: values at step 0 and from step `warmup_steps` on.
      warmup_steps: length of the warm-up in steps, >= 0.

    Raises:
      TypeError, ValueError: a value is not a finite number, or `warmup_steps` is negative.

    >>> schedule = gradtx.warmup_constant_schedule(0.0, 1.0, warmup_steps=4)
    >>> print(schedule(0), schedule(2), schedule(4), schedule(100))
    0.0 0.5 1.0 1.0
    """

    init_value: Hyper
    peak_value: Hyper
    warmup_steps: int = integer()

    def validate(self) -> None:
        check_number("peak_value", self.peak_value)
        check_steps("warmup_steps", self.warmup_steps)
        self._phase()

    def _phase(self) -> Schedule:
        return linear_schedule(self.init_value, self.peak_value, self.warmup_steps)

    def __call__(self, count: ArrayLike) -> jax.Array:
        return self._phase()(count)


class warmup_cosine_decay_schedule(Schedule):
    """A linear warm-up to `peak_value`, then a cosine down to `end_value`.

    Source: Loshchilov, Hutter, 2016, arXiv:1608.03983 (the cosine); Goyal et al., "Accurate,
    large minibatch SGD", 2017, arXiv:1706.02677 (the warm-up).

    Args:
      init_value, peak_value, end_value: values at step 0, at step `warmup_steps`, and from
        step `decay_steps` on.
      warmup_steps: length of the warm-up in steps, >= 0.
      decay_steps: length of the whole schedule, warm-up included; more than `warmup_steps`.
      exponent: power of the cosine.

    Raises:
      TypeError, ValueError: a value is not a finite number, or `decay_steps` is not greater
        than `warmup_steps`.

    >>> schedule = gradtx.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=10)
    >>> print(schedule(0), schedule(1), schedule(2), schedule(10))
    0.0 0.5 1.0 0.0
    """

    init_value: Hyper
    peak_value: Hyper
    warmup_steps: int = integer()
    decay_steps: int = integer()
    end_value: Hyper = 0.0
    exponent: Hyper = 1.0

    def validate(self) -> None:
        check_number("peak_value", self.peak_value)
        check_number("end_value", self.end_value)
        check_steps("warmup_steps", self.warmup_steps)
        if not isinstance(self.warmup_steps, jax.core.Tracer):
            check_steps("decay_steps", self.decay_steps, low=self.warmup_steps + 1)
        check_nonnegative("exponent", self.exponent)
        self._warmup()

    def _warmup(self) -> Schedule:
        return linear_schedule(self.init_value, self.peak_value, self.warmup_steps)

    def __call__(self, count: ArrayLike) -> jax.Array:
        left = remaining(count, self.decay_steps - self.warmup_steps, self.warmup_steps)
        cosine = falling_cosine(left) ** self.exponent
        decayed = between(self.peak_value, self.end_value, cosine)
        warming = jnp.asarray(count) < self.warmup_steps
        return jnp.where(warming, self._warmup()(count), decayed)


class warmup_linear_decay_schedule(Schedule):
    """A linear warm-up to `peak_value`, then a line down to `end_value`, which is 0 for D2Z.

    Source: Bergsma et al., "Straight to zero: why linearly decaying the learning rate to zero
    works best for LLMs", 2025, arXiv:2502.15838.

    Args:
      init_value, peak_value, end_value: values at step 0, at step `warmup_steps`, and from
        step `decay_steps` on.
      warmup_steps: length of the warm-up in steps, >= 0.
      decay_steps: length of the whole schedule, warm-up included; at least `warmup_steps`.

    Raises:
      TypeError, ValueError: a value is not a finite number, or `decay_steps` is less than
        `warmup_steps`.

    >>> schedule = gradtx.warmup_linear_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=10)
    >>> print(schedule(0), schedule(1), schedule(2), schedule(6), schedule(10))
    0.0 0.5 1.0 0.5 0.0
    """

    init_value: Hyper
    peak_value: Hyper
    warmup_steps: int = integer()
    decay_steps: int = integer()
    end_value: Hyper = 0.0

    def validate(self) -> None:
        check_number("init_value", self.init_value)
        check_number("peak_value", self.peak_value)
        check_number("end_value", self.end_value)
        check_steps("warmup_steps", self.warmup_steps)
        if not isinstance(self.warmup_steps, jax.core.Tracer):
            check_steps("decay_steps", self.decay_steps, low=self.warmup_steps)

    def _phases(self) -> Schedule:
        steps = self.decay_steps - self.warmup_steps
        warmup = linear_schedule(self.init_value, self.peak_value, self.warmup_steps)
        decay = linear_schedule(self.peak_value, self.end_value, steps)
        return join_schedules([warmup, decay], [self.warmup_steps])

    def __call__(self, count: ArrayLike) -> jax.Array:
        return self._phases()(count)


class warmup_exponential_decay_schedule(Schedule):
    """A linear warm-up to `peak_value`, then exponential decay.

    Args:
      init_value, peak_value: values at step 0 and at step `warmup_steps`.
      warmup_steps: length of the warm-up in steps, >= 0.
      transition_steps, decay_rate, transition_begin, staircase, end_value: as for
        `exponential_decay`, counted from the end of the warm-up.

    Raises:
      TypeError, ValueError: as for `linear_schedule` and `exponential_decay`.

    >>> schedule = gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 2, 10, decay_rate=0.5)
    >>> print(schedule(0), schedule(1), schedule(2), schedule(12))
    0.0 0.5 1.0 0.5
    """

    init_value: Hyper
    peak_value: Hyper
    warmup_steps: int = integer()
    transition_steps: int = integer()
    decay_rate: Hyper
    transition_begin: int = integer(default=0)
    staircase: bool = static(default=False)
    end_value: Hyper | None = None

    def validate(self) -> None:
        check_number("peak_value", self.peak_value)
        check_steps("warmup_steps", self.warmup_steps)
        self._phases()

    def _phases(self) -> Schedule:
        decay = exponential_decay(
            self.peak_value,
            self.transition_steps,
            self.decay_rate,
            self.transition_begin,
            self.staircase,
            self.end_value,
        )
        warmup = linear_schedule(self.init_value, self.peak_value, self.warmup_steps)
        return join_schedules([warmup, decay], [self.warmup_steps])

    def __call__(self, count: ArrayLike) -> jax.Array:
        return self._phases()(count)
