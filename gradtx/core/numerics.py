"""Numbers that several algorithms need, exact where the naive formula is not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.leaf import common_precision, is_optimised, match
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
    leaves = jax.tree.leaves(updates)
    return jnp.sqrt(sum_reals(_sum_abs_sq(leaf) for leaf in leaves if is_optimised(leaf)))


def real_vdot(a: Updates, b: Updates) -> jax.Array:
    """Re sum conj(a) b over the leaves optimised in both; shape (), float32 or wider.

    The inner product of complex trees as vectors of real and imaginary parts. The slope of a
    real function of complex parameters along `b` is that of its gradient with `b` where the
    gradient points uphill, which is the conjugate of what `jax.grad` returns.

    Raises:
      ValueError: structures or shapes differ; the message names the leaf's path.

    >>> float(real_vdot({"a": jnp.asarray([1.0 + 2.0j])}, {"a": jnp.asarray([3.0 - 1.0j])}))
    1.0
    """
    leaves = jax.tree.leaves(a, is_leaf=lambda x: x is None)
    pairs = zip(leaves, match(a, b, "one tree", "the other"), strict=True)
    return sum_reals(_real_vdot(x, y) for x, y in pairs if is_optimised(x) and is_optimised(y))


@jax.jit
def _real_vdot(x: jax.Array, y: jax.Array) -> jax.Array:
    cast = common_precision((x, y))
    x, y = cast(x), cast(y)
    if jnp.iscomplexobj(x) and jnp.iscomplexobj(y):
        return jnp.sum(x.real * y.real + x.imag * y.imag)
    return jnp.sum(x.real * y.real)


def sum_reals(numbers: Iterable[jax.Array]) -> jax.Array:
    """The sum of real scalars in the widest of their dtypes; 0.0 for none."""
    terms = list(numbers)
    dtype = jnp.float64 if any(t.dtype == jnp.float64 for t in terms) else jnp.float32
    return sum((t.astype(dtype) for t in terms), jnp.zeros((), dtype))


@jax.jit
def _sum_abs_sq(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    if leaf.dtype.itemsize < 4:
        leaf = leaf.astype(jnp.float32)
    return jnp.sum(abs_sq(leaf))
