"""Momentum as a running sum of updates, and as a running mean."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
from jax.typing import DTypeLike

from gradtx.core.hyper import Hyper, check_fraction, check_number
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, static


class TraceState(NamedTuple):
    """The running sum."""

    trace: Annotated[Updates, Slot()]


def trace_rule(u: jax.Array, v: jax.Array, *, decay: Hyper) -> tuple[jax.Array, jax.Array]:
    v = decay * v + u
    return v, v


def nesterov_trace_rule(u: jax.Array, v: jax.Array, *, decay: Hyper) -> tuple[jax.Array, jax.Array]:
    return nesterov_trace_of_two_rule(u, v, u, decay=decay)


def nesterov_trace_of_two_rule(
    u: jax.Array, v: jax.Array, again: jax.Array, *, decay: Hyper
) -> tuple[jax.Array, jax.Array]:
    v = decay * v + u
    return decay * v + again, v


class trace(GradientTransformation):
    """A running sum of updates: momentum, without the (1 - decay) of `ema`.

        v <- decay v + u;  the update becomes v, or u + decay v with `nesterov`

    Before `scale_by_learning_rate` this is the lecture's first form of momentum
    (v <- rho v + g; x <- x - lr v); after it, the second (v <- rho v - lr g; x <- x + v).

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964;
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in
    deep learning", 2013.

    Args:
      decay: the momentum rho, from 0 to 1. Number or 0-d array.
      nesterov: whether to look ahead by one more application of the momentum.
      accumulator_dtype: dtype of the sum; by default the parameter's, at least float32.

    Raises:
      TypeError, ValueError: `decay` is not a number from 0 to 1; `accumulator_dtype` is not
        a floating dtype.

    >>> tx = gradtx.trace(decay=0.9)
    >>> tx = gradtx.trace(decay=0.9, nesterov=True, accumulator_dtype="bfloat16")
    """

    decay: Hyper
    nesterov: bool = static(default=False)
    accumulator_dtype: DTypeLike | None = dtype(default=None)

    def validate(self) -> None:
        check_number("decay", self.decay, 0.0, 1.0)

    def init(self, params: Params) -> TraceState:
        return TraceState(zeros_like(params, self.accumulator_dtype))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        rule = nesterov_trace_rule if self.nesterov else trace_rule
        updates, v = map_leaves(rule, updates, state.trace, decay=self.decay)
        return updates, TraceState(v)

    @property
    def uses_twice(self) -> bool:  # type: ignore[override]
        return self.nesterov

    def transform_twice(
        self,
        updates: Updates,
        again: Updates,
        state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        updates, v = map_leaves(
            nesterov_trace_of_two_rule, updates, state.trace, reads=(again,), decay=self.decay
        )
        return updates, TraceState(v)


class EmaState(NamedTuple):
    """The running mean and the number of updates in it."""

    count: Count  # type: ignore[assignment]
    ema: Annotated[Updates, Slot()]


def ema_rule(u: jax.Array, m: jax.Array, *, decay: Hyper) -> tuple[jax.Array, jax.Array]:
    m = decay * m + (1 - decay) * u
    return m, m


def debiased_ema_rule(
    u: jax.Array, m: jax.Array, *, t: jax.Array, decay: Hyper
) -> tuple[jax.Array, jax.Array]:
    m = decay * m + (1 - decay) * u
    return m / bias_correction(decay, t), m


class ema(GradientTransformation):
    """An exponential moving average of updates.

        m <- decay m + (1 - decay) u;  the update becomes m / (1 - decay^t), or m undebiased

    Source: the first moment of Kingma, Ba, "Adam: a method for stochastic optimization",
    2014, arXiv:1412.6980, section 3.

    Args:
      decay: rate in [0, 1). Number or 0-d array.
      debias: whether to divide by 1 - decay^t, which makes the mean of a constant exact.
      accumulator_dtype: dtype of the mean; by default the parameter's, at least float32.

    Raises:
      TypeError, ValueError: `decay` is not a number in [0, 1); `accumulator_dtype` is not a
        floating dtype.

    >>> tx = gradtx.ema(decay=0.9)
    >>> tx = gradtx.ema(decay=0.9, debias=False)
    """

    decay: Hyper
    debias: bool = static(default=True)
    accumulator_dtype: DTypeLike | None = dtype(default=None)

    def validate(self) -> None:
        check_fraction("decay", self.decay)

    def init(self, params: Params) -> EmaState:
        return EmaState(zero_count(), zeros_like(params, self.accumulator_dtype))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        t = safe_increment(state.count)
        if self.debias:
            updates, m = map_leaves(debiased_ema_rule, updates, state.ema, t=t, decay=self.decay)
        else:
            updates, m = map_leaves(ema_rule, updates, state.ema, decay=self.decay)
        return updates, EmaState(t, m)
