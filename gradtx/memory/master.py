"""Master weights in float32 behind narrow parameters (Micikevicius et al., 2017).

m <- m + u
x <- round(m)
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.leaf import match, narrow, widen
from gradtx.core.slot import Inner, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.memory.rounding import is_low, map_low, rounded, update_to


class MasterWeightsState(NamedTuple):
    """The float32 copy of each narrow parameter, and the inner transformation's state.

    `master` is `None` for parameters in float32 or wider.
    """

    master: Annotated[Updates, Slot(exact=True)]
    inner_state: Inner


class master_weights(GradientTransformation):
    """Optimises a float32 copy of bfloat16 and float16 parameters, which are that copy rounded.

        m <- m + u;  x <- round(m)

    The inner transformation sees the copy in the place of the parameters: decay, norms and trust
    ratios are those of float32 training. Parameters in float32 or wider have no copy.

    The copy is the truth: parameters that are changed from outside (loaded, averaged, clipped)
    are brought back to it by the next step. Call `init` again after such a change.

    Put it outermost: nothing may change the updates after. Updates are in the parameter's
    dtype: one that is larger than half the parameter can leave it a rounding away from the
    copy, until the next step.

    Source: Micikevicius et al., "Mixed precision training", 2017, arXiv:1710.03740.

    Args:
      inner: the transformation to run in float32.

    Raises:
      TypeError: `inner` is not a transformation.
      ValueError: in `update`: `params` is missing.

    >>> tx = gradtx.master_weights(gradtx.adamw(1e-3))
    >>> tx = gradtx.master_weights(gradtx.sgd(1e-3))
    >>> params, grads = jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.bfloat16)
    >>> params, state = tx.step(grads, tx.init(params), params)
    >>> print(params, state.master)
    [1] [0.999]
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    inner: GradientTransformation

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))

    def init(self, params: Params) -> MasterWeightsState:
        def copy(leaf: Any) -> Any:
            return jnp.astype(leaf, jnp.float32) if is_low(leaf) else None

        return MasterWeightsState(jax.tree.map(copy, params), self.inner.init(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, inner_state = self.inner.transform(
            updates, state.inner_state, _seen(state.master, params), **extra_args
        )
        updates, master = map_low(_round_master, None, updates, params, state.master)
        return updates, MasterWeightsState(master, inner_state)

    def inner_params(self, name: str, params: Params) -> Params:
        return widen(params)

    def lookahead_point(self, state: State, params: Params) -> Params:
        seen = _seen(state.master, params)
        return narrow(self.inner.lookahead_point(state.inner_state, seen), like=params)


def _seen(master: Updates, params: Params) -> Params:
    """The parameters, with their copies in the place of those that have one."""
    leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
    copies = match(params, master, "params", "the state")
    seen = [p if m is None else m for m, p in zip(copies, leaves, strict=True)]
    return jax.tree.unflatten(treedef, seen)


@jax.jit
def _round_master(_: None, u: jax.Array, p: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
    moved = m + u.astype(jnp.float32)
    return update_to(rounded(moved, p.dtype), p), moved
