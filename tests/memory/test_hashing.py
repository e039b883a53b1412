import jax
import jax.numpy as jnp
import numpy as np

from gradtx.memory.hashing import hashed_bits, mixed

M = 2**32


def pcg(x):
    """The paper's listing, in whole numbers of any size."""
    state = (x * 747796405 + 2891336453) % M
    word = (((state >> ((state >> 28) + 4)) ^ state) * 277803737) % M
    return (word >> 22) ^ word


def test_bits_are_the_papers():
    for seed in (0, 1, 2**31 + 5, M - 1):
        expected = [pcg(i ^ pcg(seed)) for i in range(24)]
        assert hashed_bits((2, 3, 4), np.uint32(seed)).ravel().tolist() == expected
    assert hashed_bits((), 5).tolist() == pcg(pcg(5))
    assert hashed_bits((0, 3), 5).shape == (0, 3)


def test_seeds_are_mixed_in_order():
    assert int(mixed(3, 4, 5)) == pcg(pcg(3) ^ 4) ^ 5
    seeds = {int(mixed(*numbers)) for numbers in np.ndindex(4, 4, 4)}
    assert len(seeds) == 64


def test_bits_are_uniform_and_independent_of_neighbours_and_seeds():
    seeds = jnp.arange(64, dtype=jnp.uint32)
    bits = np.asarray(jax.vmap(lambda seed: hashed_bits((64, 64), mixed(1, seed)))(seeds))
    count = bits.size
    counts = np.bincount((bits >> 24).ravel(), minlength=256)
    chi_squared = np.sum((counts - count / 256) ** 2) / (count / 256)
    assert abs(chi_squared - 255) < 5 * np.sqrt(2 * 255)
    unit = bits / M - 0.5
    for axis in range(3):
        one, other = (np.take(unit, range(*r), axis) for r in ((0, 63), (1, 64)))
        correlation = np.mean(one * other) * 12
        assert abs(correlation) < 5 / np.sqrt(one.size)
    for bit in range(32):
        ones = np.mean(bits >> bit & 1)
        assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(count)


def test_bits_do_not_depend_on_the_sharding():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    whole = hashed_bits((16, 3), 9)
    split = jax.jit(lambda: hashed_bits((16, 3), 9), out_shardings=sharding)()
    assert split.sharding == sharding
    np.testing.assert_array_equal(whole, split)
