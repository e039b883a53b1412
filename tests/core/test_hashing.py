"""The hash is the published one, and its bits depend on place and seed alone."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from gradtx.core import hashing
from gradtx.core.hashing import hashed_bits, hashed_normal, pcg_hash, seed_of


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
    expected = [[pcg(((3 * i + j) * 7 + 7) % 2**32) for j in range(3)] for i in range(2)]
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


def test_two_seeds_are_hashed_in_turn():
    bits = hashed_bits((3,), jnp.uint32(7), jnp.uint32(8))
    expected = [pcg((pcg(i * 7 + 7) * 9 + 8) % 2**32) for i in range(3)]
    np.testing.assert_array_equal(bits, np.asarray(expected, np.uint32))


SEEDS = jnp.arange(8, dtype=jnp.uint32).reshape(2, 2, 2)


def test_normal_numbers_of_each_dtype():
    bits = np.asarray(hashed_bits((50,), *SEEDS[0, 0]))
    expected = np.sqrt(2) * scipy.special.erfinv(((bits >> 9) + 0.5) / 2**22 - 1)
    single = hashed_normal((50,), jnp.float32, SEEDS)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-6)
    pair = hashed_normal((50,), jnp.complex64, SEEDS)
    other = hashed_normal((50,), jnp.float32, SEEDS[::-1])
    np.testing.assert_allclose(
        pair, (np.asarray(single) + 1j * np.asarray(other)) / np.sqrt(2), rtol=1e-5
    )
    with jax.enable_x64(True):
        double = hashed_normal((50,), jnp.float64, SEEDS)
        assert double.dtype == jnp.float64
        assert hashed_normal((50,), jnp.complex128, SEEDS).dtype == jnp.complex128
    np.testing.assert_allclose(double, expected, rtol=1e-3, atol=1e-6)
    assert np.any(np.asarray(double) != np.asarray(single, float))


def test_normal_numbers_are_finite_at_both_ends(monkeypatch):
    for ends in (0, 2**32 - 1):
        monkeypatch.setattr(hashing, "hashed_bits", lambda shape, *_, b=ends: jnp.uint32(b))
        with jax.enable_x64(True):
            single, double = (
                float(hashed_normal.__wrapped__((), np.dtype(d), SEEDS)) for d in ("f4", "f8")
            )
        assert 5 < abs(single) < 5.5 and 8 < abs(double) < 8.5


def test_no_temporaries():
    def noisy(x, seed):
        return x + hashed_bits(x.shape, seed).astype(jnp.float32)

    compiled = jax.jit(noisy).lower(jnp.zeros((512, 512)), jnp.uint32(1)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4096


def test_bits_of_a_part_are_those_of_the_whole():
    seed = seed_of("a", jnp.int32(3))
    whole = hashed_bits((6, 5), seed)
    np.testing.assert_array_equal(hashed_bits((6, 5), seed, part=lambda x: x[::2]), whole[::2])
