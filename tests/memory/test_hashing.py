"""The hash is the published one, and its bits depend on place and seed alone."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.memory.hashing import hashed_bits, pcg_hash, seed_of


def pcg(v):
    """In Python's integers."""
    state = (v * 747796405 + 2891336453) % 2**32
    word = ((state >> ((state >> 28) + 4)) ^ state) * 277803737 % 2**32
    return (word >> 22) ^ word


def test_it_is_the_published_hash():
    values = [0, 1, 2, 12345, 2**31, 2**32 - 1]
    assert list(map(int, pcg_hash(jnp.asarray(values, jnp.uint32)))) == list(map(pcg, values))


def test_bits_by_row_major_index():
    bits = hashed_bits((2, 3), jnp.uint32(7))
    assert bits.dtype == jnp.uint32
    expected = [[pcg((pcg(3 * i + j) + 7) % 2**32) for j in range(3)] for i in range(2)]
    np.testing.assert_array_equal(bits, np.asarray(expected, np.uint32))
    assert int(hashed_bits((), jnp.uint32(7))) == expected[0][0]


def test_seeds_by_name_and_step():
    seed = seed_of("a/w", jnp.int32(3))
    assert int(seed) == pcg((pcg(3) + zlib.crc32(b"a/w")) % 2**32)
    seeds = {int(seed_of(name, jnp.int32(i))) for name in ("a/w", "a/b") for i in range(5)}
    assert len(seeds) == 10


def test_bits_are_fair_and_seeds_unrelated():
    one, two = (np.asarray(hashed_bits((64, 1024), jnp.uint32(s))) for s in (1, 2))
    for x in (one, two, one ^ two, one[:, 1:] ^ one[:, :-1], one[:, 1:] ^ two[:, :-1]):
        ones = [np.mean((x >> bit) & 1) for bit in range(32)]
        # Six standard deviations of a fair coin.
        assert np.max(np.abs(np.asarray(ones) - 0.5)) < 3 / np.sqrt(x.size)


def test_no_temporaries():
    def noisy(x, seed):
        return x + hashed_bits(x.shape, seed).astype(jnp.float32)

    compiled = jax.jit(noisy).lower(jnp.zeros((512, 512)), jnp.uint32(1)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4096


def test_bits_of_a_part_are_those_of_the_whole():
    seed = seed_of("a", jnp.int32(3))
    whole = hashed_bits((6, 5), seed)
    np.testing.assert_array_equal(hashed_bits((6, 5), seed, lambda x: x[::2]), whole[::2])
