"""Annealed gradient noise: its variance, and what its values depend on."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import gradtx
from tests.oracles import STEPS, assert_close

PARAMS = {"a": jnp.zeros((50, 40)), "b": {"c": jnp.zeros(3000)}, "n": None, "i": jnp.arange(3)}


def run(tx, params=PARAMS, steps=1):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(params, state)
    return updates


def pcg(v):
    state = (v * 747796405 + 2891336453) % 2**32
    word = ((state >> ((state >> 28) + 4)) ^ state) * 277803737 % 2**32
    return (word >> 22) ^ word


def draws(tree, key):
    """All noise of unit variance for `STEPS` steps, leaf by leaf, from the stated rule."""
    found = {name: [] for name in tree}
    for t in range(1, STEPS + 1):
        step_key = jax.random.fold_in(jax.random.key(key), t)
        seeds = np.asarray(jax.random.bits(step_key, (2, 2, 2), jnp.uint32), np.uint64)[0]
        for name, x in tree.items():
            first, second = pcg((seeds + np.uint64(zlib.crc32(f"[{name!r}]".encode()))) % 2**32)
            index = np.arange(x.size, dtype=np.uint64)
            high, low = (
                pcg((pcg((index * (s | 1) + s) % 2**32) * (r | 1) + r) % 2**32)
                for s, r in (first, second)
            )
            k = high * 2**20 + low // 2**12
            u = (k.astype(float) + 0.5) / 2**51 - 1
            found[name].append(np.sqrt(2) * scipy.special.erfinv(u).reshape(x.shape))
    return {name: np.stack(noise) for name, noise in found.items()}


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_variance(steps):
    """Within five deviations of what the variance of so many draws may be off."""
    out = run(gradtx.add_noise(4.0, 0.5, key=1), steps=steps)
    for x in (out["a"], out["b"]["c"]):
        assert abs(np.var(x) * steps**0.5 / 4.0 - 1) < 5 * (2 / x.size) ** 0.5
        assert abs(np.mean(x)) < 5 * np.std(x) / x.size**0.5


def test_complex_noise_has_half_the_variance_in_each_part():
    out = run(gradtx.add_noise(4.0, 0.5, key=1), jnp.zeros(4000, jnp.complex64))
    assert out.dtype == jnp.complex64
    for part in (out.real, out.imag):
        assert abs(np.var(part) / 2.0 - 1) < 5 * (2 / 4000) ** 0.5


def test_it_is_added():
    tx = gradtx.add_noise(4.0, 0.5, key=1)
    updates = jax.tree.map(lambda p: p + 3, PARAMS)
    out, _ = tx.update(updates, tx.init(PARAMS))
    assert_close(out["a"], run(tx)["a"] + 3.0, 1e-6)
    assert out["n"] is None and out["i"] is updates["i"]
    np.testing.assert_array_equal(run(gradtx.add_noise(0.0, 0.5, key=1))["a"], 0.0)


def test_noise_is_normal():
    """Kolmogorov and Smirnov's distance, whose chance to be so large is 1e-4; both tails."""
    noise = np.asarray(run(gradtx.add_noise(1.0, 0.0, key=3), jnp.zeros((500, 400)))).ravel()
    steps = np.arange(1, noise.size + 1) / noise.size
    distance = np.max(np.abs(steps - scipy.special.ndtr(np.sort(noise))))
    assert distance * noise.size**0.5 < 2.23
    assert 4 < np.max(noise) < 6 and -6 < np.min(noise) < -4
    for shift in (1, 2, 400):
        assert abs(np.mean(noise[shift:] * noise[:-shift])) * noise.size**0.5 < 5


def test_noise_is_formed_where_it_is_used():
    report = gradtx.compile_report(
        gradtx.noisy_sgd(0.1), {"w": jax.ShapeDtypeStruct((512, 512), jnp.float32)}
    )
    assert report.temporary_bytes < 0.05 * 512 * 512


def test_steps_leaves_and_keys_differ():
    tx = gradtx.add_noise(1.0, 0.0, key=1)
    same = {"a": jnp.zeros(20), "b": jnp.zeros(20)}
    one, two = run(tx, same), run(tx, same, steps=2)
    other = run(tx.replace(key=2), same)
    found = [one["a"], one["b"], two["a"], two["b"], other["a"], other["b"]]
    for i, x in enumerate(found):
        assert all(abs(x - y).max() > 0.1 for y in found[:i])


def test_noise_of_a_leaf_does_not_depend_on_the_others():
    tx = gradtx.add_noise(1.0, 0.0, key=1)
    np.testing.assert_array_equal(run(tx)["a"], run(tx, {"A": jnp.ones(2), "a": PARAMS["a"]})["a"])


def test_low_precision_noise_is_drawn_in_float32():
    tx = gradtx.add_noise(1.0, 0.0, key=1)
    half, single = (run(tx, jnp.zeros(50, d)) for d in (jnp.bfloat16, jnp.float32))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, single.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    "key", [5, np.int64(5), jax.random.key(5), jax.random.PRNGKey(5), np.uint32([0, 5])]
)
def test_ways_to_give_a_key(key):
    tx = gradtx.add_noise(1.0, 0.0, key=key)
    assert jnp.issubdtype(tx.init(PARAMS).rng_key.dtype, jax.dtypes.prng_key)
    assert tx.init(PARAMS).rng_key.shape == ()
    np.testing.assert_array_equal(run(tx)["a"], run(gradtx.add_noise(1.0, 0.0, key=5))["a"])
    assert tx == gradtx.add_noise(1.0, 0.0, key=key) and hash(tx) is not None


def test_an_old_key_of_another_generator():
    old, new = (f(5, impl="rbg") for f in (jax.random.PRNGKey, jax.random.key))
    assert old.shape == (4,)
    found, expected = (run(gradtx.add_noise(1.0, 0.0, key=key))["a"] for key in (old, new))
    np.testing.assert_array_equal(found, expected)


def test_the_state_can_be_donated_and_the_key_lives_on():
    tx = gradtx.add_noise(1.0, 0.0, key=jax.random.key(5))
    step = jax.jit(tx.update, donate_argnums=1)
    for _ in range(2):
        state = tx.init(PARAMS["a"])
        for _ in range(2):
            _, state = step(PARAMS["a"], state)


@pytest.mark.parametrize(
    "key",
    [
        *(-1, 0.5, None, True, "0", (0, 1)),
        *(jnp.ones(2), np.uint32([1, 2, 3]), np.zeros(2, np.uint8)),
        *(jax.random.split(jax.random.key(0)), jax.random.split(jax.random.key(0), 3)),
    ],
)
def test_what_is_not_a_key(key):
    for make in (gradtx.add_noise, gradtx.noisy_sgd):
        with pytest.raises(TypeError, match="key must be one random key or a whole number"):
            make(0.1, 0.5, key=key)


def test_vmap_over_keys_is_each_key_alone():
    tx = gradtx.add_noise(1.0, 0.5, key=0)
    keys = jax.random.split(jax.random.key(3), 4)
    zeros = jnp.zeros(5)
    states = jax.vmap(lambda key: tx.init(zeros)._replace(rng_key=key))(keys)
    found, _ = jax.vmap(tx.update, in_axes=(None, 0))(zeros, states)
    assert len(np.unique(found)) == found.size
    for key, noise in zip(keys, found, strict=True):
        np.testing.assert_allclose(noise, run(tx.replace(key=key), zeros), rtol=1e-6)
