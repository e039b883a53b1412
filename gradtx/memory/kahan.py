"""Compensated addition of updates to narrow parameters (Kahan, 1965).

y = u + c                 the update, and what earlier ones are owed
x_new = round(x + y)
c = y - (x_new - x)       what this rounding lost
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.slot import Inner, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import dtype
from gradtx.memory.rounding import is_low, kept_still, map_low, rounded


class KahanState(NamedTuple):
    """What rounding has lost of each narrow parameter, and the inner transformation's state.

    `compensation` is `None` for parameters in float32 or wider.
    """

    compensation: Annotated[Updates, Slot(read_late=True)]
    inner_state: Inner


class kahan(GradientTransformation):
    """Adds to the next update what rounding a bfloat16 or float16 parameter lost of this one.

        y = u + c;  x_new = round(x + y);  c <- y - (x_new - x)

    Parameter and compensation are together one number of twice the precision: 16 bits for
    bfloat16, 22 for float16. Updates are added in that precision: those below 2^-15 of a bfloat16
    parameter can be lost (2^-21 for float16), and 1,000 equal ones of 2^-10 of it end within 1 %
    of float32. With `dtype=jnp.float32` it is as exact as `master_weights`, for the same bytes.
    Parameters in float32 or wider are left to the inner transformation alone.

    The compensation is of what `apply_updates` makes of the update that is returned, so that
    large updates are exact too. Put it outermost: nothing may change the updates after.

    Source: Kahan, "Further remarks on reducing truncation errors", 1965, Communications of the
    ACM 8(1); for bfloat16 weights Zamirai et al., "Revisiting BFloat16 training", 2020,
    arXiv:2010.06192, Algorithm 3.

    Args:
      inner: the transformation whose updates are added.
      dtype: of the compensation; by default the parameter's.

    Raises:
      TypeError: `inner` is not a transformation, or `dtype` not a floating dtype.
      ValueError: in `update`: `params` is missing.

    >>> tx = gradtx.kahan(gradtx.adamw(1e-3))
    >>> tx = gradtx.kahan(gradtx.sgd(1e-3))
    >>> params, grads = jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.bfloat16)
    >>> state = tx.init(params)
    >>> for _ in range(100):
    ...     params, state = tx.step(grads, state, params)
    >>> print(params, state.compensation)
    [0.898438] [0.00161743]
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    inner: GradientTransformation
    dtype: DTypeLike | None = dtype(default=None, kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))

    def init(self, params: Params) -> KahanState:
        def zeros(leaf: Any) -> Any:
            return jnp.zeros_like(leaf, dtype=self.dtype) if is_low(leaf) else None

        return KahanState(jax.tree.map(zeros, params), self.inner.init(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, inner_state = self.inner.transform(
            updates, state.inner_state, params, **extra_args
        )
        updates, compensation = map_low(_compensate, None, updates, params, state.compensation)
        return updates, KahanState(compensation, inner_state)

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(state.inner_state, params)


@jax.jit
def _compensate(_: None, u: jax.Array, p: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, owed = p.astype(jnp.float32), u.astype(jnp.float32) + c.astype(jnp.float32)
    update = kept_still(rounded(owed, p.dtype))
    moved = rounded(x + update, p.dtype)
    return update, (owed - (moved - x)).astype(c.dtype)
