"""Random bits by a hash of where they stand: the same on one device and on many.

PCG hash (Jarzynski & Olano, "Hash functions for GPU rendering", JCGT 2020; O'Neill, 2014):

    s <- 747796405 v + 2891336453;  w <- ((s >> ((s >> 28) + 4)) ^ s) 277803737;  w ^ (w >> 22)

all in 32 bits. Elementwise, so that XLA forms the bits where they are used and stores none.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp


def pcg_hash(v: jax.Array) -> jax.Array:
    """The PCG hash of each entry; uint32 in and out, a permutation of all of them."""
    state = v * jnp.uint32(747796405) + jnp.uint32(2891336453)
    word: jax.Array = ((state >> ((state >> 28) + jnp.uint32(4))) ^ state) * jnp.uint32(277803737)
    return (word >> 22) ^ word


def hashed_bits(
    shape: tuple[int, ...],
    seed: jax.Array,
    part: Callable[[jax.Array], jax.Array] = lambda entries: entries,
) -> jax.Array:
    """Random bits that depend on the seed and on the index of each entry, not on sharding.

    Args:
      shape: of an array.
      seed: uint32, shape ().
      part: takes the entries that bits are wanted of from an array; by default all.

    Returns:
      uint32 for each of them. Arrays of more than 2^32 entries repeat.
    """
    index = part(jnp.zeros(shape, jnp.uint32))
    for axis in range(len(shape)):
        stride = jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        index += part(jax.lax.broadcasted_iota(jnp.uint32, shape, axis)) * stride
    # Hashed before the seed is added: otherwise one seed's bits are another's, shifted.
    return pcg_hash(pcg_hash(index) + seed)


def seed_of(name: str, count: jax.Array) -> jax.Array:
    """A seed for what has this name at this step.

    Args:
      name: of what is rounded, such as the path of a parameter.
      count: the number of the step, an integer of shape ().

    Returns:
      uint32, shape ().
    """
    return pcg_hash(pcg_hash(count.astype(jnp.uint32)) + jnp.uint32(zlib.crc32(name.encode())))
