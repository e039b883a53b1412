"""Numbers that several algorithms need, exact where the naive formula is not."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.leaf import is_optimised
from gradtx.core.slot import Updates


def abs_sq(x: jax.Array) -> jax.Array:
    """|x|^2, real for complex `x`; same shape.

    >>> float(abs_sq(jnp.asarray(3.0 + 4.0j)))
    25.0
    """
    return (x * x.conj()).real if jnp.iscomplexobj(x) else x * x


def bias_correction(decay: Any, t: jax.Array) -> Any:
    """1 - decay^t for t >= 1, by expm1: exact also where decay^t is within rounding of 1.

    Args:
      decay: number in [0, 1), Python or traced.
      t: float scalar, the number of the step, from 1.
    """
    if isinstance(decay, int | float):
        return -jnp.expm1(t * math.log(decay)) if decay > 0 else jnp.ones_like(t)
    return -jnp.expm1(t * jnp.log(decay))


def safe_increment(count: jax.typing.ArrayLike) -> jax.Array:
    """`count + 1`, staying at the dtype's largest value instead of wrapping round.

    >>> int(safe_increment(jnp.int32(2**31 - 1))) == 2**31 - 1
    True
    """
    count = jnp.asarray(count)
    info = jnp.finfo if jnp.issubdtype(count.dtype, jnp.inexact) else jnp.iinfo
    largest = jnp.asarray(info(count.dtype).max, count.dtype)
    return jnp.where(count < largest, count + jnp.ones((), count.dtype), largest)


def zero_count() -> jax.Array:
    """A fresh step count: shape (), int32."""
    return jnp.zeros((), jnp.int32)


def global_norm(updates: Updates) -> jax.Array:
    """sqrt(sum of |u|^2 over all optimised leaves); shape (), float32 or wider.

    The squares are summed in float32 or wider whatever the leaves' dtypes, so that float16
    leaves do not overflow; in float32 a norm above 1.8e19 is inf. An empty tree has norm 0, and
    integer leaves do not count.

    >>> float(global_norm({"a": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}))
    5.0
    """
    sums = [_sum_abs_sq(leaf) for leaf in jax.tree.leaves(updates) if is_optimised(leaf)]
    wide = any(s.dtype == jnp.float64 for s in sums)
    dtype = jnp.float64 if wide else jnp.float32
    return jnp.sqrt(sum((s.astype(dtype) for s in sums), jnp.zeros((), dtype)))


@jax.jit
def _sum_abs_sq(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    if leaf.dtype.itemsize < 4:
        leaf = leaf.astype(jnp.float32)
    return jnp.sum(abs_sq(leaf))


def all_finite(tree: Updates) -> jax.Array:
    """Whether no optimised leaf holds an inf or a NaN; shape (), bool. True for an empty tree.

    >>> bool(all_finite({"a": jnp.asarray([1.0, jnp.inf]), "step": 3}))
    False
    """
    found = [_is_finite(leaf) for leaf in jax.tree.leaves(tree) if is_optimised(leaf)]
    return functools.reduce(jnp.logical_and, found, jnp.array(True))


@jax.jit
def _is_finite(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    parts = (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
    # A maximum keeps NaN, and is one pass; XLA's CPU backend stores all of isfinite(leaf) first.
    largest = [jnp.max(jnp.abs(part), initial=0) for part in parts]
    return jnp.all(jnp.isfinite(jnp.stack(largest)))
