"""Gradient accumulation: one step of a transformation for the mean of several micro-batches.

    m_0 = 0,  m_j = m_{j-1} + (g_j - m_{j-1}) w_j / (w_1 + ... + w_j)

The running mean is exact for equal gradients, needs no division when the window closes, and
does not overflow a narrow accumulator, as a sum does. The accumulator is not cleared when a
window closes, but by the first micro-batch of the next: clearing would take one more pass
over it, and a second buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from gradtx.core.hyper import ScheduleFn, as_float, check_positive, check_steps, value_at
from gradtx.core.leaf import is_optimised, map_leaves, with_others_of, zeros_like
from gradtx.core.numerics import abs_sq, all_finite, safe_increment, zero_count
from gradtx.core.slot import Count, Inner, Opaque, Params, Scalar, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import dtype, integer, static
from gradtx.wrappers.branch import (
    arrays_of,
    checked_flag,
    cond,
    step_if,
    transform_if,
    zeros,
)

POLICIES = ("accept", "skip")


class AccumulateState(NamedTuple):
    """The window so far, how many were closed, and the inner state.

    Attributes:
      mini_step: micro-batches that the open window has taken.
      gradient_step: windows closed, which are the steps of the inner transformation.
      inner_opt_state: state of the inner transformation.
      acc_grads: mean gradient of the open window; until its first micro-batch, of the last
        one. `None` where `k` is 1.
      weight: total weight of the open window.
      skipped: micro-batches left out because they were not finite.
    """

    mini_step: Count
    gradient_step: Count
    inner_opt_state: Inner
    acc_grads: Annotated[Updates, Slot(exact=True)]
    weight: Scalar
    skipped: Count


class MultiStepsState(NamedTuple):
    """State of `MultiSteps`: fields as in `AccumulateState`.

    Attributes:
      skip_state: what `should_skip_update_fn` returned at the last micro-batch.
    """

    mini_step: Count
    gradient_step: Count
    inner_opt_state: Inner
    acc_grads: Annotated[Updates, Slot(exact=True)]
    skip_state: Annotated[Any, Opaque()] = ()


def mean_rule(
    g: jax.Array, acc: jax.Array, *, open_: Any, taken: Any, share: Any
) -> tuple[jax.Array, jax.Array]:
    mean = jnp.where(open_, acc, 0)
    mean = jnp.where(taken, mean + (g - mean) * share, acc)
    return mean, mean


def sum_rule(
    g: jax.Array, acc: jax.Array, *, open_: Any, taken: Any, share: Any
) -> tuple[jax.Array, jax.Array]:
    del share
    total = jnp.where(taken, jnp.where(open_, acc, 0) + g, acc)
    return total, total


class MicroBatch(NamedTuple):
    """What is to be done with a micro-batch.

    Attributes:
      counts: whether it counts towards the window.
      weight: its weight in the mean, `None` for 1; with 0 its gradient is not looked at.
      state: the state with what has been noted about it.
      extra_args: for the inner transformation.
    """

    counts: Any
    weight: Any
    state: Any
    extra_args: dict[str, Any]


class Accumulation(GradientTransformation):
    """What `accumulate` and `MultiSteps` have in common: windows of micro-batches."""

    def _parts(self) -> tuple[GradientTransformation, Any, Callable[..., Any]]:
        """The inner transformation, the length of the window and the rule of the accumulator."""
        raise NotImplementedError  # abstract

    def _judge(
        self, updates: Updates, state: Any, params: Params | None, extra_args: dict[str, Any]
    ) -> MicroBatch:
        raise NotImplementedError  # abstract

    def _total(self, state: Any) -> jax.Array:
        """The weight of the open window; 0 before its first micro-batch."""
        raise NotImplementedError  # abstract

    def _with_total(self, state: Any, total: Any) -> Any:
        raise NotImplementedError  # abstract

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        inner, *_ = self._parts()
        mean, closes, state, extra_args = self._take(updates, state, params, extra_args)
        new, inner_state = transform_if(
            closes, inner, mean, state.inner_opt_state, params, extra_args
        )
        return new, self._closed(closes, state, inner_state)

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        inner, *_ = self._parts()
        updates = self._checked(updates, state, params, extra_args)
        mean, closes, state, extra_args = self._take(updates, state, params, extra_args)
        new, inner_state = step_if(closes, inner, mean, state.inner_opt_state, params, extra_args)
        return new, self._closed(closes, state, inner_state)

    def judge(
        self,
        question: Callable[[Updates], Any],
        updates: Updates,
        state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> Any:
        inner, *_ = self._parts()
        _, closes, *_ = self._take(updates, state, params, extra_args)

        def ran() -> Any:
            # Formed once more, lest the conditional has it stored.
            mean, *_, rest = self._take(updates, state, params, extra_args)
            return inner.judge(question, mean, state.inner_opt_state, params, **rest)

        def left() -> Any:
            return question(with_others_of(updates, zeros(arrays_of(updates))))

        return cond(closes, ran, left)

    def flush(self, state: State, params: Params, **extra_args: Any) -> tuple[Params, State]:
        """Closes a window before it is full: one step with the mean of what it holds.

        For the end of an epoch whose micro-batches do not fill the last window. Changes
        nothing where the window is empty.

        Args:
          state: of this transformation itself, not of one that it is a part of.
          params: the current parameters.
          **extra_args: for the inner transformation.

        Returns:
          The new parameters and the new state, as `step` does.
        """
        if state.acc_grads is None:
            return params, state
        inner, *_ = self._parts()
        closes = self._total(state) > 0
        new, inner_state = step_if(
            closes, inner, state.acc_grads, state.inner_opt_state, params, extra_args
        )
        return new, self._closed(closes, state, inner_state)

    def has_updated(self, state: Any) -> jax.Array:
        """Whether the last micro-batch that counted closed a window; shape (), bool."""
        updated: jax.Array = jnp.logical_and(state.mini_step == 0, state.gradient_step > 0)
        return updated

    def lookahead_point(self, state: State, params: Params) -> Params:
        inner, *_ = self._parts()
        return inner.lookahead_point(state.inner_opt_state, params)

    def _take(
        self, updates: Updates, state: Any, params: Params | None, extra_args: dict[str, Any]
    ) -> tuple[Updates, Any, Any, dict[str, Any]]:
        """The window's mean with this micro-batch, whether that closes it, and the new state."""
        _, k, rule = self._parts()
        counts, weight, state, extra_args = self._judge(updates, state, params, extra_args)
        taken = counts if weight is None else jnp.logical_and(counts, weight > 0)
        if state.acc_grads is None:
            return updates, taken, state, extra_args
        before = self._total(state)
        weight = 1.0 if weight is None else weight
        total = jnp.where(taken, before + weight, before)
        mean, acc_grads = map_leaves(
            rule,
            updates,
            state.acc_grads,
            open_=before > 0,
            taken=taken,
            share=weight / jnp.where(total > 0, total, 1.0),
        )
        mini_step = jnp.where(counts, safe_increment(state.mini_step), state.mini_step)
        length = as_float(value_at(k, state.gradient_step))
        # A window without weight has no mean: it stays open.
        full = jnp.logical_and(as_float(mini_step) >= length, total > 0)
        state = self._with_total(state._replace(mini_step=mini_step, acc_grads=acc_grads), total)
        return mean, full, state, extra_args

    def _closed(self, closes: Any, state: Any, inner_state: State) -> Any:
        step = state.gradient_step
        closed = state._replace(
            mini_step=jnp.where(closes, 0, state.mini_step),
            gradient_step=jnp.where(closes, safe_increment(step), step),
            inner_opt_state=inner_state,
        )
        return self._with_total(closed, jnp.where(closes, 0.0, self._total(state)))


def _is_one(k: Any) -> bool:
    return isinstance(k, int) and k == 1


class accumulate(Accumulation):
    """One step of the inner transformation for the mean gradient of every `k` micro-batches.

        m <- m + (g - m) w / (sum of the window's w, this one's included)

    Between steps updates are zero and nothing but the mean and the counts is touched: one
    buffer of the parameters' size, in float32 or wider. Under `jit` with parameters and
    state donated, `step` needs no further memory of that size (`update`, which returns a
    tree of updates, does). With `k` the number 1, not traced, it is the inner transformation,
    without a buffer.

    `update` and `step` take the extra argument `weight`, such as the number of tokens of the
    micro-batch whose mean gradient this is: k weighted micro-batches then give what one large
    batch gives. The gradient of a micro-batch of weight 0 is not looked at, and a window
    without any weight stays open. Other extra arguments go to the inner transformation, which
    sees those of the micro-batch that closes the window. `flush` closes a window early.

    Args:
      inner: the transformation to run once per window.
      k: micro-batches per step, a whole number >= 1; or a function from the number of steps
        made so far to it.
      accumulator_dtype: dtype of the mean; by default the parameter's, float32 if narrower.
      on_nonfinite: `'accept'` takes every gradient into the mean; `'skip'` leaves out a
        micro-batch that holds an inf or a NaN, and waits for another in its place.

    Raises:
      TypeError, ValueError: an argument is not of its type, or out of its range.

    >>> tx = gradtx.accumulate(gradtx.adamw(1e-3), 2)
    >>> tx = gradtx.accumulate(gradtx.sgd(0.1), gradtx.linear_schedule(1, 3, 2))
    >>> tx = gradtx.accumulate(gradtx.sgd(0.1), 3, on_nonfinite="skip")
    >>> tx = gradtx.accumulate(gradtx.adam(0.1), 1)
    >>> mean = gradtx.accumulate(gradtx.sgd(1.0), 2)
    >>> params, state = jnp.zeros(1), mean.init(jnp.zeros(1))
    >>> params, state = mean.step(jnp.asarray([6.0]), state, params, weight=1)
    >>> params, state = mean.step(jnp.asarray([2.0]), state, params, weight=3)
    >>> print(params)
    [-3.]
    """

    inner: GradientTransformation
    k: int | jax.Array | ScheduleFn = integer()
    accumulator_dtype: DTypeLike | None = dtype(default=None, kw_only=True)
    on_nonfinite: str = static(default="accept", kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        if not callable(self.k):
            check_steps("k", self.k, 1)
        if self.on_nonfinite not in POLICIES:
            raise ValueError(f"on_nonfinite must be one of {POLICIES}, got {self.on_nonfinite!r}")

    def init(self, params: Params) -> AccumulateState:
        held = None if _is_one(self.k) else zeros_like(params, self.accumulator_dtype)
        return AccumulateState(
            mini_step=zero_count(),
            gradient_step=zero_count(),
            inner_opt_state=self.inner.init(params),
            acc_grads=held,
            weight=as_float(0),
            skipped=zero_count(),
        )

    def _parts(self) -> tuple[GradientTransformation, Any, Callable[..., Any]]:
        return self.inner, self.k, mean_rule

    def _judge(
        self, updates: Updates, state: Any, params: Params | None, extra_args: dict[str, Any]
    ) -> MicroBatch:
        weight = extra_args.get("weight")
        rest = {name: arg for name, arg in extra_args.items() if name != "weight"}
        if weight is not None:
            weight = jnp.asarray(weight)
            if weight.shape != ():
                raise ValueError(f"weight must be a single number, got shape {weight.shape}")
            weight = as_float(weight)
        if self.on_nonfinite == "accept":
            return MicroBatch(True, weight, state, rest)
        counts = all_finite(updates)
        if weight is not None:  # what has no weight is not looked at
            counts = jnp.logical_or(counts, weight == 0)
        skipped = jnp.where(counts, state.skipped, safe_increment(state.skipped))
        return MicroBatch(counts, weight, state._replace(skipped=skipped), rest)

    def _total(self, state: Any) -> jax.Array:
        total: jax.Array = state.weight
        return total

    def _with_total(self, state: Any, total: Any) -> Any:
        return state._replace(weight=total)


class ShouldSkipUpdateFunction(Protocol):
    """Decides whether `MultiSteps` is to pass over a micro-batch.

    Called with the gradients (in float32 or wider; `None` for leaves that are not optimised),
    the number of steps made so far and the parameters, or `None`. Returns a boolean of shape
    (), and a tree of arrays to be kept in `MultiStepsState.skip_state`.
    """

    def __call__(
        self, updates: Updates, gradient_step: ArrayLike, params: Params | None
    ) -> tuple[Any, Any]: ...


def skip_not_finite(
    updates: Updates, gradient_step: ArrayLike, params: Params | None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """For `MultiSteps`: skips gradients that hold an inf or a NaN.

    Returns:
      Whether to skip, and a dict of that (`should_skip`) and of the number of such values
      (`num_not_finite`).

    >>> bool(gradtx.skip_not_finite(jnp.asarray([1.0, jnp.nan]), 0, None)[0])
    True
    """
    del gradient_step, params
    leaves = [u for u in jax.tree.leaves(updates) if is_optimised(u)]
    counts = [jnp.sum(~jnp.isfinite(u), dtype=jnp.int32) for u in leaves]
    num_not_finite = sum(counts, zero_count())
    should_skip = num_not_finite > 0
    return should_skip, {"should_skip": should_skip, "num_not_finite": num_not_finite}


def skip_large_updates(
    updates: Updates,
    gradient_step: ArrayLike,
    params: Params | None,
    max_squared_norm: ArrayLike,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """For `MultiSteps`: skips gradients of a squared norm not below a bound, NaN included.

    Args:
      updates: gradients, in float32 or wider.
      gradient_step: not used.
      params: not used.
      max_squared_norm: the bound, > 0; set it by `functools.partial`.

    Returns:
      Whether to skip, and a dict of that (`should_skip`) and of the squared norm
      (`norm_squared`).

    Raises:
      TypeError, ValueError: `max_squared_norm` is not a number, or not positive.

    >>> bool(gradtx.skip_large_updates(jnp.asarray([3.0, 4.0]), 0, None, 25.0)[0])
    True
    """
    del gradient_step, params
    check_positive("max_squared_norm", max_squared_norm)
    sums = [jnp.sum(abs_sq(jnp.asarray(u))) for u in jax.tree.leaves(updates) if is_optimised(u)]
    norm_squared = sum((as_float(s) for s in sums), as_float(0))
    should_skip = ~(norm_squared < as_float(max_squared_norm))
    return should_skip, {"should_skip": should_skip, "norm_squared": norm_squared}


class MultiSteps(Accumulation):
    """`accumulate` under Optax's name, with Optax's arguments and state.

    It is a transformation like any other; `gradient_transformation()` returns it itself.

    Args:
      opt: the transformation to run once per window.
      every_k_schedule: as `k` of `accumulate`.
      use_grad_mean: hands on the mean of the gradients of a window, and otherwise their sum.
      should_skip_update_fn: a `ShouldSkipUpdateFunction`, such as `skip_not_finite` or
        `functools.partial(skip_large_updates, max_squared_norm=42.0)`. A micro-batch that it
        skips counts as if it had not come.
      accumulator_dtype: as for `accumulate`.

    Raises:
      TypeError, ValueError: an argument is not of its type, or out of its range.

    >>> tx = gradtx.MultiSteps(gradtx.adam(1e-3), every_k_schedule=2)
    >>> tx = gradtx.MultiSteps(gradtx.sgd(0.1), 2, use_grad_mean=False)
    >>> tx = gradtx.MultiSteps(
    ...     gradtx.sgd(0.1), 4, should_skip_update_fn=gradtx.skip_not_finite
    ... )
    """

    opt: GradientTransformation
    every_k_schedule: int | jax.Array | ScheduleFn = integer()
    use_grad_mean: bool = static(default=True)
    should_skip_update_fn: ShouldSkipUpdateFunction | None = static(default=None)
    accumulator_dtype: DTypeLike | None = dtype(default=None)

    def validate(self) -> None:
        object.__setattr__(self, "opt", as_transformation(self.opt))
        if not callable(self.every_k_schedule):
            check_steps("every_k_schedule", self.every_k_schedule, 1)
        skip = self.should_skip_update_fn
        if skip is not None and not callable(skip):
            raise TypeError(f"should_skip_update_fn must be a function, got {skip!r}")

    @property
    def inner_opt(self) -> GradientTransformation:
        """The transformation that is run once per window."""
        return self.opt

    def gradient_transformation(self) -> GradientTransformation:
        """Itself: in Optax `MultiSteps` is not a transformation."""
        return self

    def init(self, params: Params) -> MultiStepsState:
        one = _is_one(self.every_k_schedule)
        step = zero_count()
        _, skip_state = self._should_skip(zeros_like(params), step, params)
        return MultiStepsState(
            mini_step=zero_count(),
            gradient_step=step,
            inner_opt_state=self.opt.init(params),
            acc_grads=None if one else zeros_like(params, self.accumulator_dtype),
            # A copy: the function may return what it was given.
            skip_state=jax.tree.map(jnp.array, skip_state),
        )

    def _parts(self) -> tuple[GradientTransformation, Any, Callable[..., Any]]:
        rule = mean_rule if self.use_grad_mean else sum_rule
        return self.opt, self.every_k_schedule, rule

    def _should_skip(
        self, updates: Updates, step: jax.Array, params: Params | None
    ) -> tuple[Any, Any]:
        if self.should_skip_update_fn is None:
            return False, ()
        skip, skip_state = self.should_skip_update_fn(arrays_of(updates), step, params)
        return checked_flag("should_skip_update_fn", skip), skip_state

    def _judge(
        self, updates: Updates, state: Any, params: Params | None, extra_args: dict[str, Any]
    ) -> MicroBatch:
        skip, note = self._should_skip(updates, state.gradient_step, params)
        counts = True if skip is False else jnp.logical_not(skip)
        note = jax.tree.map(
            lambda old, new: jnp.asarray(new).astype(old.dtype), state.skip_state, note
        )
        return MicroBatch(counts, None, state._replace(skip_state=note), extra_args)

    def _total(self, state: Any) -> jax.Array:
        return as_float(state.mini_step)

    def _with_total(self, state: Any, total: Any) -> Any:
        del total  # it is the number of micro-batches
        return state
