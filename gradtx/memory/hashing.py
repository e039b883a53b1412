"""Random bits by hashing where they stand: the PCG hash of Jarzynski and Olano.

    s = 747796405 i + 2891336453
    w = 277803737 (s xor (s >> ((s >> 28) + 4)))
    bits = w xor (w >> 22),  all modulo 2^32

Source: Jarzynski, Olano, "Hash functions for GPU rendering", Journal of Computer Graphics
Techniques 9(3), 2020.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def hashed_bits(shape: tuple[int, ...], seed: jax.typing.ArrayLike) -> jax.Array:
    """32 random bits for each entry: a function of the seed and of where the entry stands.

    So they do not depend on how the array is sharded; being elementwise they are computed
    where they are used, without memory of their own.

    Args:
      shape: of the result, uint32.
      seed: uint32 scalar. Seeds that differ in any bit give unrelated bits.

    >>> print(hashed_bits((2, 2), 7).shape)
    (2, 2)
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        place = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index + place * np.uint32(stride)
    return _pcg(index ^ _pcg(jnp.asarray(seed, jnp.uint32)))


def mixed(seed: jax.typing.ArrayLike, *numbers: jax.typing.ArrayLike) -> jax.Array:
    """One seed, uint32 of shape (), out of a seed and whole numbers such as a step."""
    seed = jnp.asarray(seed, jnp.uint32)
    for number in numbers:
        seed = _pcg(seed) ^ jnp.asarray(number, jnp.uint32)
    return seed


def _pcg(x: jax.Array) -> jax.Array:
    state = x * np.uint32(747796405) + np.uint32(2891336453)
    word = ((state >> ((state >> np.uint32(28)) + np.uint32(4))) ^ state) * np.uint32(277803737)
    return (word >> np.uint32(22)) ^ word
