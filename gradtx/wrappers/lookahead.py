"""Lookahead (Zhang et al., 2019, arXiv:1907.08610, Algorithm 1).

theta_t = theta_{t-1} + A(theta_{t-1})                  the fast weights, by any optimizer A
every k steps:
phi     = phi + alpha (theta_t - phi),  theta_t = phi   the slow weights
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp

from gradtx.core.apply import apply_updates
from gradtx.core.hyper import Hyper, check_nonnegative, check_steps
from gradtx.core.leaf import as_operand, copy_of, map_leaves, narrow
from gradtx.core.numerics import zero_count
from gradtx.core.slot import Count, Inner, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import integer, static


class LookaheadParams(NamedTuple):
    """Fast and slow parameters as one tree, as Optax's `lookahead` wants them.

    Take gradients at `fast`, evaluate at `slow`.
    """

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> Self:
        """The pair in which both are `params`."""
        return cls(fast=params, slow=params)


class LookaheadState(NamedTuple):
    """The fast optimizer's state, the steps since the last meeting, and the slow parameters.

    `slow` is `None` where the caller holds them in `LookaheadParams`.
    """

    fast_state: Inner
    steps_since_sync: Count
    slow: Annotated[Updates, Slot(exact=True)] = None

    def eval_params(self, params: Params) -> Params:
        """The slow parameters."""
        del params
        return self.slow


def lookahead_rule(
    u: jax.Array, slow: jax.Array, p: jax.Array, *, sync: jax.Array, slow_step_size: Hyper
) -> tuple[jax.Array, jax.Array]:
    met = slow + slow_step_size * (p + u - slow)
    return jnp.where(sync, met - p, u), jnp.where(sync, met, slow)


class lookahead(GradientTransformation):
    """Lets an optimizer run ahead, and every few steps goes part of the way after it.

        every sync_period steps: slow <- slow + slow_step_size (fast - slow);  fast <- slow

    The parameters that `init`, `update` and the gradients see are the fast ones; the slow
    ones are in the state, and `gradtx.eval_params(state, params)` reads them. As in Optax the
    caller may hold both instead, as `LookaheadParams`: `update` then takes gradients at
    `params.fast` and returns updates for the pair. That form stands outermost: the stages of
    a `chain` see either the pair or the fast parameters, not both.

    The updates must reach the parameters as they are: put nothing that changes them after.

    Source: Zhang, Lucas, Hinton, Ba, "Lookahead optimizer: k steps forward, 1 step back",
    2019, arXiv:1907.08610, Algorithm 1.

    Args:
      fast_optimizer: the optimizer of the fast parameters; any transformation.
      sync_period: steps from one meeting of fast and slow to the next, >= 1; the paper's k.
      slow_step_size: how far the slow parameters go, >= 0; the paper's alpha, 0.5 to 0.8.
      reset_state: whether the fast optimizer begins anew after each meeting, with the state
        that its `init` gives for the parameters there; random numbers begin anew too.

    Raises:
      TypeError, ValueError: `fast_optimizer` is not a transformation; a number is not one, or
        out of its range. In `update`: `params` is missing.

    >>> tx = gradtx.lookahead(gradtx.adam(1e-3), sync_period=2, slow_step_size=0.5)
    >>> tx = gradtx.lookahead(gradtx.sgd(0.1, momentum=0.9), 2, 0.5, reset_state=True)
    >>> state = tx.init(jnp.asarray([1.0]))
    >>> gradtx.eval_params(state, jnp.asarray([1.0]))
    Array([1.], dtype=float32)
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    fast_optimizer: GradientTransformation
    sync_period: Hyper = integer()
    slow_step_size: Hyper
    reset_state: bool = static(default=False)

    def validate(self) -> None:
        object.__setattr__(self, "fast_optimizer", as_transformation(self.fast_optimizer))
        check_steps("sync_period", self.sync_period, 1)
        check_nonnegative("slow_step_size", self.slow_step_size)

    def init(self, params: Params) -> LookaheadState:
        paired = isinstance(params, LookaheadParams)
        fast = params.fast if paired else params
        slow = None if paired else copy_of(params)
        return LookaheadState(self.fast_optimizer.init(fast), zero_count(), slow)

    def inner_params(self, name: str, params: Params) -> Params:
        return params.fast if isinstance(params, LookaheadParams) else params

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        if not (isinstance(params, LookaheadParams) and isinstance(state, LookaheadState)):
            return super().update(updates, state, params, **extra_args)
        held = state._replace(slow=copy_of(params.slow))
        fast, new_state = super().update(updates, held, params.fast, **extra_args)
        slow = narrow(
            map_leaves(_difference_rule, new_state.slow, reads=(params.slow,)), like=params.slow
        )
        if state.slow is None:
            new_state = new_state._replace(slow=None)
        return LookaheadParams(fast, slow), new_state

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        if state.slow is None and jax.tree.leaves(params):
            raise ValueError(
                "lookahead was initialised with LookaheadParams, which hold the slow parameters; "
                "give update the same, and put lookahead outermost"
            )
        updates, fast_state = self.fast_optimizer.transform(
            updates, state.fast_state, params, **extra_args
        )
        steps = state.steps_since_sync + 1
        sync = steps >= self.sync_period
        updates, slow = map_leaves(
            lookahead_rule, updates, state.slow, reads=(params,),
            sync=sync, slow_step_size=as_operand(self.slow_step_size),
        )  # fmt: skip
        if self.reset_state:
            fresh = self.fast_optimizer.init(apply_updates(params, updates))
            fast_state = jax.tree.map(lambda new, old: jnp.where(sync, new, old), fresh, fast_state)
        return updates, LookaheadState(fast_state, jnp.where(sync, 0, steps), slow)

    def lookahead_point(self, state: State, params: Params) -> Params:
        fast = params.fast if isinstance(params, LookaheadParams) else params
        return self.fast_optimizer.lookahead_point(state.fast_state, fast)


def _difference_rule(new: jax.Array, old: jax.Array) -> jax.Array:
    return new - old
