"""Numbers that several algorithms need, exact where the naive formula is not."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Compensated
from gradtx.core.join import joined
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
    if isinstance(decay, int | float) and decay == 0:
        return jnp.ones_like(t)
    return -jnp.expm1(t * log_decay(decay))


def log_decay(decay: Any) -> Any:
    """log(decay), in Python for a Python number; -inf for a traced 0."""
    if isinstance(decay, int | float):
        return math.log(decay)
    if isinstance(decay, Compensated):
        return jnp.log1p(-(1 - decay))
    return jnp.log(decay)


def safe_increment(count: jax.typing.ArrayLike) -> jax.Array:
    """`count + 1`, staying at the dtype's largest value instead of wrapping round.

    >>> int(safe_increment(jnp.int32(2**31 - 1))) == 2**31 - 1
    True
    """
    count = jnp.asarray(count)
    info = jnp.finfo if jnp.issubdtype(count.dtype, jnp.inexact) else jnp.iinfo
    largest = jnp.asarray(info(count.dtype).max, count.dtype)
    return jnp.where(count < largest, count + jnp.ones((), count.dtype), largest)


safe_int32_increment = safe_increment  # Optax's older name


def safe_norm(
    x: jax.typing.ArrayLike,
    min_norm: Any,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """max(norm of x, min_norm), with the gradient 0 where the norm is not above `min_norm`.

    Args:
      x: an array; float16 and bfloat16 are computed in float32.
      min_norm: the least value to return, number or 0-d array.
      ord: order of the norm, as for `jnp.linalg.norm`.
      axis: the axes that it is taken over, as there.
      keepdims: whether these axes are kept with length 1.

    >>> jax.grad(lambda x: gradtx.safe_norm(x, 1e-6))(jnp.zeros(2))
    Array([0., 0.], dtype=float32)
    """
    x = as_wide_float(x)
    norm = jnp.linalg.norm(jax.lax.stop_gradient(x), ord, axis, keepdims=True)
    least = jnp.asarray(min_norm, norm.dtype)
    small = norm <= least
    # A norm of ones has a gradient; that of what is replaced would be NaN, also unselected.
    norm = jnp.linalg.norm(jnp.where(small, 1, x), ord, axis, keepdims)
    small = small if keepdims else jnp.squeeze(small, axis)
    return jnp.where(small, least, norm)


def safe_root_mean_squares(x: jax.typing.ArrayLike, min_rms: Any) -> jax.Array:
    """max(sqrt(mean of |x|^2), min_rms), with the gradient 0 where it is not above `min_rms`.

    Args:
      x: an array; float16 and bfloat16 are computed in float32.
      min_rms: the least value to return, number or 0-d array.

    >>> print(gradtx.safe_root_mean_squares(jnp.asarray([3.0, -3.0]), 1e-6))
    3.0
    """
    x = as_wide_float(x)
    square = jnp.sum(abs_sq(x)) / max(x.size, 1)
    least = jnp.asarray(min_rms, square.dtype)
    small = jnp.sqrt(jax.lax.stop_gradient(square)) <= least
    return jnp.where(small, least, jnp.sqrt(jnp.where(small, 1, square)))


def as_wide_float(x: jax.typing.ArrayLike) -> jax.Array:
    """`x` as an array of floats (or complex numbers) in float32 or wider."""
    array = jnp.asarray(x)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array.astype(jnp.result_type(float))
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else array


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
    return jnp.sqrt(sum_reals(map(_sum_abs_sq, _small_ones_joined(updates))))


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


def all_finite(tree: Updates) -> jax.Array:
    """Whether no optimised leaf holds an inf or a NaN; shape (), bool. True for an empty tree.

    >>> bool(all_finite({"a": jnp.asarray([1.0, jnp.inf]), "step": 3}))
    False
    """
    found = map(_is_finite, _small_ones_joined(tree))
    return functools.reduce(jnp.logical_and, found, jnp.array(True))


_SMALL = 4096  # entries


def _small_ones_joined(tree: Updates) -> list[jax.Array]:
    """The optimised leaves, the small ones of a dtype joined to one vector.

    A reduction of each leaf is a kernel of each, and compiling a thousand of them takes longer
    than all the rest of a step. Leaves that are known to be sharded stay by themselves.
    """
    arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree) if is_optimised(leaf)]
    alone, alike = [], collections.defaultdict(list)
    for array in arrays:
        if array.size > _SMALL or any(jax.typeof(array).sharding.spec):
            alone.append(array)
        else:
            alike[array.dtype].append(array)
    return alone + [joined(arrays) for arrays in alike.values()]


@jax.jit
def _is_finite(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    parts = (leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,)
    # A maximum keeps NaN, and is one pass; XLA's CPU backend stores all of isfinite(leaf) first.
    largest = [jnp.max(jnp.abs(part), initial=0) for part in parts]
    return jnp.all(jnp.isfinite(jnp.stack(largest)))
