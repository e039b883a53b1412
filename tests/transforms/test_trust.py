"""Scaling by the norms of leaves, of parameters and of the whole update."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from gradtx.transforms.trust import leaf_norm, leaf_rms
from tests.oracles import assert_close, few

seeds = st.integers(0, 10**6)


def draw(seed):
    """Two trees of leaves of several shapes, one of them complex."""
    rng = np.random.default_rng(seed)

    def tree():
        z = rng.normal(size=(2, 1, 3)) + 1j * rng.normal(size=(2, 1, 3))
        return {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5), "c": z, "d": rng.normal()}

    return tree(), jax.tree.map(lambda x: 3.0 * x, tree())


def run(tx, updates, params=None):
    with jax.enable_x64(True):
        updates, params = jax.tree.map(jnp.asarray, (updates, params))
        return tx.update(updates, tx.init(params), params)[0]


def check(tx, rule, seed):
    updates, params = draw(seed)
    out = run(tx, updates, params)
    for key, u in updates.items():
        assert out[key].dtype == np.asarray(u).dtype
        assert_close(out[key], rule(u, params[key]))


def size(x):
    return np.sqrt(np.sum(abs(x) ** 2))


@few
@given(
    seed=seeds,
    least=st.sampled_from([0.0, 1.0, 100.0]),
    coefficient=st.floats(0.0, 2.0),
    eps=st.sampled_from([0.0, 1e-3, 1.0]),
)
def test_trust_ratio(seed, least, coefficient, eps):
    tx = gradtx.scale_by_trust_ratio(least, coefficient, eps)
    check(
        tx, lambda u, p: u * coefficient * max(size(p), least) / (max(size(u), least) + eps), seed
    )


def test_trust_ratio_is_one_where_a_norm_is_zero():
    zero, one = np.zeros(2), np.asarray([3.0, 4.0])
    for eps in (0.0, 0.25):
        tx = gradtx.scale_by_trust_ratio(trust_coefficient=0.5, eps=eps)
        np.testing.assert_array_equal(run(tx, one, zero), one)
        np.testing.assert_array_equal(run(tx, zero, one), zero)
        np.testing.assert_array_equal(run(tx, zero, zero), zero)
    tx = gradtx.scale_by_trust_ratio(min_norm=0.5)
    assert_close(run(tx, one, zero), 0.1 * one)


def test_trust_ratio_defaults():
    check(gradtx.scale_by_trust_ratio(), lambda u, p: u * size(p) / size(u), 0)


@few
@given(seed=seeds, least=st.sampled_from([0.0, 1.0, 100.0]))
def test_param_block(seed, least):
    tx = gradtx.scale_by_param_block_norm(least)
    check(tx, lambda u, p: u * max(size(p), least), seed)
    tx = gradtx.scale_by_param_block_rms(least)
    check(tx, lambda u, p: u * max(size(p) / np.sqrt(np.size(p)), least), seed)


def test_param_block_of_zeros():
    for make in (gradtx.scale_by_param_block_norm, gradtx.scale_by_param_block_rms):
        assert_close(run(make(), np.ones(4), np.zeros(4)), np.full(4, 1e-3))


@pytest.mark.parametrize("norm, count", [(leaf_norm, 1), (leaf_rms, 4)])
def test_norms_have_a_derivative_at_zero(norm, count):
    assert not np.any(jax.grad(norm)(jnp.zeros(4), 0.0))
    assert_close(jax.grad(norm)(jnp.asarray([0.0, 3.0, 0.0, 4.0]), 0.0)[1], 0.6 / count**0.5, 1e-6)
    assert norm(jnp.zeros((0, 3)), 0.5) == 0.5


@few
@given(seed=seeds, factor=st.sampled_from([-2.0, 0.5, 1.0]), eps=st.sampled_from([1e-6, 1.0]))
def test_normalize_by_update_norm(seed, factor, eps):
    updates, _ = draw(seed)
    norm = np.sqrt(sum(size(u) ** 2 for u in updates.values()))
    out = run(gradtx.normalize_by_update_norm(factor, eps), updates)
    for key, u in updates.items():
        assert_close(out[key], factor * u / (norm + eps))


def test_normalize_defaults_and_zero():
    out = run(gradtx.normalize_by_update_norm(), np.asarray([3.0, 4.0]))
    assert_close(out, np.asarray([3.0, 4.0]) / (5 + 1e-6))
    np.testing.assert_array_equal(run(gradtx.normalize_by_update_norm(), np.zeros(3)), 0.0)


@few
@given(seed=seeds)
def test_centralize(seed):
    def rule(u, p):
        if np.ndim(u) < 2:
            return u
        rows = np.asarray(u).reshape(len(u), -1)
        return (rows - rows.mean(1)[:, None]).reshape(u.shape)

    check(gradtx.centralize(), rule, seed)


@pytest.mark.parametrize(
    "name",
    ["scale_by_trust_ratio", "scale_by_param_block_norm", "scale_by_param_block_rms"],
)
def test_params_are_needed(name):
    tx = getattr(gradtx, name)()
    with pytest.raises(ValueError, match=f"{name} needs params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_float16_norms_do_not_overflow():
    u, p = jnp.full(100, 1000.0, jnp.float16), jnp.full(100, 500.0, jnp.float16)
    tx = gradtx.scale_by_trust_ratio()
    np.testing.assert_array_equal(tx.update(u, tx.init(p), p)[0], p)
