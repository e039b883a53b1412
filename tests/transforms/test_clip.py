"""Clipping by value and by global norm."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, Problem, assert_close, check_double, few


def run(tx, updates):
    return tx.update(updates, tx.init(None))[0]


def clipped(problem, clip):
    x, xs = problem.x0, []
    for _ in range(STEPS):
        x = x - 0.1 * clip(problem.grad(x))
        xs.append(x)
    return xs


@few
@given(seed=st.integers(0, 10**6), bound=st.floats(0.01, 2.0))
def test_trajectories(seed, bound):
    problem = Problem(seed, batch=1)
    tx = gradtx.chain(gradtx.clip(bound), gradtx.sgd(0.1))
    check_double(tx, problem, clipped(problem, lambda g: np.clip(g, -bound, bound)))
    problem = Problem(seed, batch=1)
    tx = gradtx.chain(gradtx.clip_by_global_norm(bound), gradtx.sgd(0.1))
    check_double(tx, problem, clipped(problem, lambda g: g * min(1.0, bound / np.linalg.norm(g))))


def test_clip():
    u = {"a": jnp.asarray([-3.0, -0.5, 0.0]), "b": jnp.asarray(7.0)}
    out = run(gradtx.clip(1.0), u)
    np.testing.assert_array_equal(out["a"], [-1.0, -0.5, 0.0])
    np.testing.assert_array_equal(out["b"], 1.0)
    np.testing.assert_array_equal(run(gradtx.clip(0.0), u)["a"], 0.0)


def test_clip_complex_clips_parts():
    out = run(gradtx.clip(1.0), jnp.asarray([3.0 - 0.5j, -0.25 - 4.0j]))
    np.testing.assert_array_equal(out, np.complex64([1.0 - 0.5j, -0.25 - 1.0j]))


@few
@given(seed=st.integers(0, 10**6), bound=st.floats(0.1, 50.0))
def test_global_norm_over_leaves(seed, bound):
    rng = np.random.default_rng(seed)
    tree = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5) + 1j * rng.normal(size=5)}
    flat = np.concatenate([np.ravel(tree["a"]), tree["b"]])
    norm = np.sqrt(np.sum(np.abs(flat) ** 2))
    with jax.enable_x64(True):
        out = run(gradtx.clip_by_global_norm(bound), jax.tree.map(jnp.asarray, tree))
        for key in tree:
            assert_close(out[key], tree[key] * min(1.0, bound / norm))


def test_global_norm_below_the_bound_changes_nothing():
    u = jnp.asarray([0.3, 0.4], jnp.float32)
    np.testing.assert_array_equal(run(gradtx.clip_by_global_norm(0.6), u), u)


def test_zero_stays_zero():
    np.testing.assert_array_equal(run(gradtx.clip_by_global_norm(1.0), jnp.zeros(3)), 0.0)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_norm_that_is_not_finite_makes_every_update_nan(bad):
    u = {"a": jnp.asarray([1.0, bad]), "b": jnp.asarray([1.0])}
    out = run(gradtx.clip_by_global_norm(1.0), u)
    assert np.isnan(out["a"]).all() and np.isnan(out["b"]).all()


def test_low_precision_norm_does_not_overflow():
    out = run(gradtx.clip_by_global_norm(1.0), jnp.full(100, 1000.0, jnp.float16))
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(np.float32(out), 0.1, rtol=1e-3)


def rms(x):
    return np.sqrt(np.mean(np.abs(x) ** 2))


@few
@given(seed=st.integers(0, 10**6), bound=st.floats(0.1, 3.0))
def test_block_rms(seed, bound):
    rng = np.random.default_rng(seed)
    tree = {
        "a": rng.normal(size=(3, 4)),
        "b": 0.1 * rng.normal(size=5),
        "c": rng.normal(size=(2, 1, 3)) + 1j * rng.normal(size=(2, 1, 3)),
        "d": rng.normal(),
    }
    with jax.enable_x64(True):
        out = run(gradtx.clip_by_block_rms(bound), jax.tree.map(jnp.asarray, tree))
        for key, u in tree.items():
            assert_close(out[key], u / max(1.0, rms(u) / bound))


def test_block_rms_trajectory():
    problem = Problem(batch=1)
    tx = gradtx.chain(gradtx.clip_by_block_rms(0.2), gradtx.sgd(0.1))
    check_double(tx, problem, clipped(problem, lambda g: g / max(1.0, rms(g) / 0.2)))


def test_block_rms_of_zero_none_and_very_small():
    tx = gradtx.clip_by_block_rms(1.0)
    u = {"z": jnp.zeros(3), "e": jnp.zeros((0, 2)), "s": jnp.full(3, 1e-25), "one": jnp.ones(2)}
    out = run(tx, u)
    for key in u:
        np.testing.assert_array_equal(out[key], u[key])


def test_block_rms_of_an_empty_leaf_and_of_zeros_makes_no_nan_on_the_way():
    with jax.debug_nans(True):
        run(gradtx.clip_by_block_rms(1.0), jnp.zeros((0, 2)))
        slope = jax.grad(lambda u: run(gradtx.clip_by_block_rms(1.0), u)[0])(jnp.zeros(3))
    np.testing.assert_array_equal(slope, [1.0, 0.0, 0.0])


def test_block_rms_in_low_precision_does_not_overflow():
    out = run(gradtx.clip_by_block_rms(0.5), jnp.full(100, 1000.0, jnp.float16))
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(np.float32(out), 0.5, rtol=1e-3)


def test_block_rms_that_is_not_finite_is_seen():
    for bad in (np.inf, np.nan):
        out = run(gradtx.clip_by_block_rms(1.0), {"a": jnp.asarray([1.0, bad]), "b": jnp.ones(1)})
        assert np.isnan(out["a"][1]) and not np.isnan(out["b"]).any()
    assert np.isnan(out["a"]).all()
