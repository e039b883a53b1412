"""Random bits by a hash of where they stand: the same on one device and on many.

PCG hash (Jarzynski & Olano, "Hash functions for GPU rendering", JCGT 2020; O'Neill, 2014):

    s <- 747796405 v + 2891336453;  w <- ((s >> ((s >> 28) + 4)) ^ s) 277803737;  w ^ (w >> 22)

all in 32 bits. Elementwise, so that XLA forms the bits where they are used and stores none.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def pcg_hash(v: jax.Array) -> jax.Array:
    """The PCG hash of each entry; uint32 in and out, a permutation of all of them."""
    state = v * jnp.uint32(747796405) + jnp.uint32(2891336453)
    word: jax.Array = ((state >> ((state >> 28) + jnp.uint32(4))) ^ state) * jnp.uint32(277803737)
    return (word >> 22) ^ word


def hashed_bits(
    shape: tuple[int, ...],
    *seeds: jax.Array,
    part: Callable[[jax.Array], jax.Array] = lambda entries: entries,
) -> jax.Array:
    """Random bits that depend on the seeds and on the index of each entry, not on sharding.

    Args:
      shape: of an array.
      *seeds: uint32, shape (); two have as many values as a key of JAX's.
      part: takes the entries that bits are wanted of from an array; by default all.

    Returns:
      uint32 for each of them. Arrays of more than 2^32 entries repeat.
    """
    bits = part(jnp.zeros(shape, jnp.uint32))
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        bits += part(jax.lax.broadcasted_iota(jnp.uint32, shape, axis)) * stride
    for seed in seeds:
        # By an odd factor of its own: otherwise one seed's bits are another's, shifted.
        bits = pcg_hash(bits * (seed | np.uint32(1)) + seed)
    return bits


@functools.partial(jax.jit, static_argnums=(0, 1))
def hashed_normal(shape: tuple[int, ...], dtype: Any, seeds: jax.Array) -> jax.Array:
    """Standard normal numbers sqrt(2) erfinv(u), formed where they are used.

    `jax.random.normal` draws by a loop over whole arrays, which XLA stores.

    Args:
      shape: of the result.
      dtype: float32 or float64; complex for parts of half the variance.
      seeds: uint32, shape (2, 2, 2): of the two parts, of the high and low bits, two each.
    """
    if jnp.issubdtype(dtype, jnp.complexfloating):
        real = np.finfo(dtype).dtype
        parts = (_normal(shape, real, each) * np.sqrt(0.5).astype(real) for each in seeds)
        return jax.lax.complex(*parts)
    return _normal(shape, dtype, seeds[0])


def _normal(shape: tuple[int, ...], dtype: Any, seeds: jax.Array) -> jax.Array:
    bits = hashed_bits(shape, *seeds[0])
    if dtype == jnp.float64:
        low = hashed_bits(shape, *seeds[1]) >> 12
        k, count = bits.astype(dtype) * 2**20 + low.astype(dtype), 2**52
    else:
        k, count = (bits >> 9).astype(dtype), 2**23
    # The middles of `count` equal parts of (-1, 1): neither end, where erfinv is infinite.
    u = (k + 0.5) * (2 / count) - 1
    normal: jax.Array = np.sqrt(2).astype(dtype) * jax.lax.erf_inv(u)
    return normal


def seed_of(name: str, count: jax.Array) -> jax.Array:
    """A seed for what has this name at this step.

    Args:
      name: of what is rounded, such as the path of a parameter.
      count: the number of the step, an integer of shape ().

    Returns:
      uint32, shape ().
    """
    return pcg_hash(pcg_hash(count.astype(jnp.uint32)) + jnp.uint32(zlib.crc32(name.encode())))
