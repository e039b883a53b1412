"""Updates that keep parameters or updates within bounds: no negative weights, no NaN."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.leaf import is_optimised, map_leaves
from gradtx.core.slot import Params, Reduced, State, Updates
from gradtx.core.transformation import EmptyState, GradientTransformation
from gradtx.transforms.stateless import Stateless

NonNegativeParamsState = EmptyState  # as in Optax


class ZeroNansState(NamedTuple):
    """For each leaf whether its last update held a NaN: shape (), bool."""

    found_nan: Annotated[Updates, Reduced()]


def keep_nonnegative_rule(u: jax.Array, p: jax.Array) -> jax.Array:
    return u if jnp.iscomplexobj(p) else jnp.where(p + u < 0, -p, u)


class keep_params_nonnegative(Stateless):
    """u <- -p where p + u would be negative, so that the parameter becomes zero. To be last.

    Complex leaves, which have no sign, pass unchanged.

    Raises:
      ValueError: in `update`: `params` is missing.

    >>> tx = gradtx.keep_params_nonnegative()
    >>> params = jnp.asarray([1.0, 1.0])
    >>> tx.update(jnp.asarray([-3.0, 0.5]), tx.init(params), params)[0]
    Array([-1. ,  0.5], dtype=float32)
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(keep_nonnegative_rule, updates, reads=(params,))


def zero_nans_rule(u: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(u), 0, u)


class zero_nans(GradientTransformation):
    """Replaces NaNs by zero, and remembers which leaves had any at the last update.

    >>> tx = gradtx.zero_nans()
    >>> updates, state = tx.update(jnp.asarray([jnp.nan, 1.0]), tx.init(jnp.zeros(2)))
    >>> print(updates, state.found_nan)
    [0. 1.] True
    """

    def init(self, params: Params) -> ZeroNansState:
        found = jax.tree.map(lambda p: jnp.array(False) if is_optimised(p) else None, params)
        return ZeroNansState(found)

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        found = jax.tree.map(
            lambda u, old: jnp.any(jnp.isnan(u)) if is_optimised(u) else old,
            updates,
            state.found_nan,
            is_leaf=lambda x: x is None,
        )
        return map_leaves(zero_nans_rule, updates), ZeroNansState(found)
