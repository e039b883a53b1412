"""Transformations that run at some steps only."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from gradtx.core.hyper import check_steps
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.slot import Count, Inner, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import integer, static
from gradtx.wrappers.branch import checked_flag, step_if, transform_if, unchanged


class ConditionFn(Protocol):
    """A function of the step count, shape (), and of the extra arguments to a truth value."""

    def __call__(self, step: jax.Array, **extra_args: Any) -> Any:
        """Whether to act at this step."""


class ConditionallyTransformState(NamedTuple):
    """The inner state, and the number of steps, also of those without it."""

    inner_state: Inner
    step: Count


class ConditionallyMaskState(NamedTuple):
    """The number of steps, also of those without the inner transformation, and its state."""

    step: Count
    inner_state: Inner


class Conditional(GradientTransformation):
    """What both conditional wrappers have in common; they differ in what else is done."""

    inner: GradientTransformation
    should_transform_fn: ConditionFn = static()
    forward_extra_args: bool = static(default=False)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        if not callable(self.should_transform_fn):
            raise TypeError(
                "should_transform_fn must be a function of the step, "
                f"got {self.should_transform_fn!r}"
            )

    def _runs(self, state: Any, extra_args: dict[str, Any]) -> Any:
        known = extra_args if self.forward_extra_args else {}
        return checked_flag("should_transform_fn", self.should_transform_fn(state.step, **known))

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(state.inner_state, params)


class conditionally_transform(Conditional):
    """Runs the inner transformation at some steps; at others updates pass unchanged.

    Args:
      inner: the transformation to run at some steps. Its state, counts included, stays as it
        is at the others.
      should_transform_fn: from the number of steps so far, an int32 array of shape () that
        counts all of them, to a boolean of shape ().
      forward_extra_args: hands the extra arguments of `update` also to that function.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: in `update`: the function returns anything but one boolean.

    >>> tx = gradtx.conditionally_transform(gradtx.clip(1.0), lambda step: step < 100)
    """

    def init(self, params: Params) -> ConditionallyTransformState:
        return ConditionallyTransformState(self.inner.init(params), zero_count())

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        runs = self._runs(state, extra_args)
        new, inner_state = transform_if(
            runs, self.inner, updates, state.inner_state, params, extra_args, unchanged
        )
        return new, ConditionallyTransformState(inner_state, safe_increment(state.step))

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        updates = self._checked(updates, state, params, extra_args)
        runs = self._runs(state, extra_args)
        new, inner_state = step_if(
            runs, self.inner, updates, state.inner_state, params, extra_args, unchanged
        )
        return new, ConditionallyTransformState(inner_state, safe_increment(state.step))


class conditionally_mask(Conditional):
    """Runs the inner transformation at some steps; at others updates are zero.

    Args:
      inner, should_transform_fn, forward_extra_args: as for `conditionally_transform`.

    Raises:
      TypeError: an argument is not of its type.
      ValueError: in `update`: the function returns anything but one boolean.

    >>> tx = gradtx.conditionally_mask(gradtx.adam(0.1), lambda step: step % 2 == 0)
    """

    def init(self, params: Params) -> ConditionallyMaskState:
        return ConditionallyMaskState(zero_count(), self.inner.init(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        runs = self._runs(state, extra_args)
        new, inner_state = transform_if(
            runs, self.inner, updates, state.inner_state, params, extra_args
        )
        return new, ConditionallyMaskState(safe_increment(state.step), inner_state)

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        updates = self._checked(updates, state, params, extra_args)
        runs = self._runs(state, extra_args)
        new, inner_state = step_if(runs, self.inner, updates, state.inner_state, params, extra_args)
        return new, ConditionallyMaskState(safe_increment(state.step), inner_state)


class ApplyEvery(NamedTuple):
    """The number of updates in the open window, and their sum."""

    count: Count  # type: ignore[assignment]
    grad_acc: Annotated[Updates, Slot()]


def apply_every_rule(
    u: jax.Array, acc: jax.Array, *, open_: jax.Array, closes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Not products with 0 and 1, which keep a NaN for ever.
    acc = jnp.where(open_, acc, 0) + u
    return jnp.where(closes, acc, 0), acc


class apply_every(GradientTransformation):
    """Adds updates up, and lets their sum out every `k` steps; zeros in between.

    Stages before it in a chain run at every step, so a chain with Adam and this is not Adam
    on larger batches: for that use `accumulate`.

    Args:
      k: steps per update that is let out, a whole number >= 1.

    Raises:
      TypeError, ValueError: `k` is not a number, or out of its range.

    >>> tx = gradtx.apply_every(2)
    """

    k: int | jax.Array = integer(default=1)

    def validate(self) -> None:
        check_steps("k", self.k, 1)

    def init(self, params: Params) -> ApplyEvery:
        return ApplyEvery(zero_count(), zeros_like(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        closes = state.count + 1 >= self.k
        updates, grad_acc = map_leaves(
            apply_every_rule, updates, state.grad_acc, open_=state.count > 0, closes=closes
        )
        return updates, ApplyEvery(jnp.where(closes, 0, state.count + 1), grad_acc)
