"""Clipping by value and by global norm."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def unit_axes(shape):
    """NFNets: vectors whole; matrices and heads over the inputs; kernels but for the outputs."""
    if np.squeeze(np.zeros(shape)).ndim <= 1:
        return tuple(range(len(shape)))
    return (0,) if len(shape) <= 3 else tuple(range(len(shape) - 1))


SHAPES = [(), (5,), (1, 4), (3, 4), (2, 3, 4), (2, 2, 3, 4), (2, 1, 2, 3, 2), (2, 1, 2, 1, 2, 3)]


@few
@given(seed=st.integers(0, 10**6), clipping=st.floats(0.01, 2.0), eps=st.sampled_from([1e-3, 2.0]))
def test_adaptive(seed, clipping, eps):
    rng = np.random.default_rng(seed)
    params = [rng.normal(size=shape) for shape in SHAPES]
    params.append(rng.normal(size=(3, 2)) + 1j * rng.normal(size=(3, 2)))
    grads = [rng.normal(size=p.shape) * (1 + (1j if np.iscomplexobj(p) else 0)) for p in params]
    tx = gradtx.adaptive_grad_clip(clipping, eps)
    with jax.enable_x64(True):
        out, _ = tx.update(grads, tx.init(params), params)
        for u, g, p in zip(out, grads, params, strict=True):
            axes = unit_axes(g.shape)
            bound = clipping * np.maximum(np.sqrt(np.sum(np.abs(p) ** 2, axes, keepdims=True)), eps)
            g_norm = np.sqrt(np.sum(np.abs(g) ** 2, axes, keepdims=True))
            assert_close(u, np.where(g_norm > bound, bound * g / g_norm, g))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
def test_adaptive_is_optax_s(axis):
    shapes = [s for s in SHAPES if len(s) < 6 and (axis is None or len(s) >= 2)]
    rng = np.random.default_rng(1)
    params, grads = ([jnp.asarray(rng.normal(size=s)) for s in shapes] for _ in range(2))
    actual, _ = gradtx.adaptive_grad_clip(0.5, axis=axis).update(grads, (), params)
    with jax.numpy_rank_promotion("allow"):
        expected, _ = optax.adaptive_grad_clip(0.5, axis=axis).update(
            grads, optax.EmptyState(), params
        )
        for u, v, p in zip(actual, expected, params, strict=True):
            assert_close(u, v)
            norms = optax.transforms.unitwise_norm(p, axis)
            assert_close(gradtx.unitwise_norm(p, axis), norms)
            arguments = (jnp.abs(p), norms / 2, p, 0.3)
            assert_close(
                gradtx.unitwise_clip(*arguments), optax.transforms.unitwise_clip(*arguments)
            )


def test_adaptive_at_zero_and_very_small():
    tx = gradtx.adaptive_grad_clip(0.01, eps=0.0)
    params = {"zero": jnp.zeros(2), "small": jnp.full(2, 1e-12), "empty": jnp.zeros((0, 2))}
    grads = {"zero": jnp.ones(2), "small": jnp.full(2, 1e-9), "empty": jnp.zeros((0, 2))}
    with jax.debug_nans(True):
        out, _ = tx.update(grads, tx.init(params), params)
        zeros = jax.tree.map(jnp.zeros_like, grads)
        still, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_array_equal(out["zero"], 0.0)
    np.testing.assert_allclose(out["small"], 1e-14, rtol=1e-5)  # Optax divides by at least 1e-6
    assert not any(x.any() for x in jax.tree.leaves(still))

    def first(g):
        return gradtx.adaptive_grad_clip(0.1).update(g, tx.init(g), jnp.ones(3))[0][0]

    np.testing.assert_array_equal(jax.grad(first)(jnp.zeros(3)), [1.0, 0.0, 0.0])


def test_adaptive_that_is_not_finite_is_seen():
    tx = gradtx.adaptive_grad_clip(0.1)
    out, _ = tx.update(jnp.asarray([1.0, np.nan]), tx.init(None), jnp.ones(2))
    assert np.isnan(out).all()


def test_unitwise_norm_of_low_precision():
    norm = gradtx.unitwise_norm(jnp.full(100, 1000.0, jnp.float16))
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, 1e4, rtol=1e-3)
    with pytest.raises(ValueError, match="one shape"):
        gradtx.unitwise_clip(jnp.ones(1), jnp.ones(2), jnp.ones(2))


@pytest.mark.parametrize("axis", ["0", 1.0, (0, "1"), [0]])
def test_adaptive_refuses_axes(axis):
    with pytest.raises(TypeError, match="axis"):
        gradtx.adaptive_grad_clip(0.1, axis=axis)


def test_adaptive_needs_params():
    with pytest.raises(ValueError, match="needs params"):
        gradtx.adaptive_grad_clip(0.1).update(jnp.ones(2), ())


def per_example(seed, batch=5):
    rng = np.random.default_rng(seed)
    tree = {"a": rng.normal(size=(batch, 3, 2)), "b": rng.normal(size=batch)}
    tree["a"][0], tree["b"][0] = 0.0, 0.0
    return tree


def clipped_sum(rows, bound):
    """Scales each example's list of arrays, in a loop."""
    total, count = [0.0 for _ in rows[0]], 0
    for row in rows:
        norm = np.sqrt(sum(np.sum(np.abs(x) ** 2) for x in row))
        factor = min(1.0, bound / norm) if norm else 1.0
        count += factor < 1
        total = [t + factor * x for t, x in zip(total, row, strict=True)]
    return total, count


@few
@given(seed=st.integers(0, 10**6), bound=st.sampled_from([0.0, 0.5, 1.5, 3.0, np.inf]))
def test_per_example(seed, bound):
    tree = per_example(seed)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        sums, count = gradtx.per_example_global_norm_clip(tree, bound)
        theirs = optax.per_example_global_norm_clip(tree, bound)
        total, number = clipped_sum(list(zip(tree["a"], tree["b"], strict=True)), bound)
        for key, expected in zip("ab", total, strict=True):
            np.testing.assert_allclose(sums[key], expected, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(sums[key], theirs[0][key], rtol=1e-12, atol=1e-14)
        assert count == number == theirs[1]
        for uniform in (True, False):
            sums, counts = gradtx.per_example_layer_norm_clip(tree, bound, uniform)
            theirs = optax.per_example_layer_norm_clip(tree, bound, uniform)
            for key, share in (("a", 6 / 7), ("b", 1 / 7)):
                own = bound * (0.5 if uniform else share) ** 0.5
                total, number = clipped_sum([[x] for x in tree[key]], own)
                np.testing.assert_allclose(sums[key], total[0], rtol=1e-12, atol=1e-14)
                np.testing.assert_allclose(sums[key], theirs[0][key], rtol=1e-12, atol=1e-14)
                assert counts[key] == number == theirs[1][key]


def test_per_example_types():
    grads = {"half": jnp.full((4, 100), 1000.0, jnp.float16), "whole": jnp.ones((4, 2), jnp.int32)}
    sums, count = gradtx.per_example_global_norm_clip(grads, 1.0)
    assert count == 4 and sums["half"].dtype == jnp.float16 and sums["whole"].dtype == jnp.float32
    np.testing.assert_allclose(np.float32(sums["half"]), 0.4, rtol=1e-3)
    np.testing.assert_allclose(sums["whole"], 4e-4, rtol=1e-3)
    complex_, _ = gradtx.per_example_global_norm_clip(jnp.asarray([[3.0 + 4.0j], [0.0j]]), 1.0)
    np.testing.assert_allclose(complex_, [0.6 + 0.8j], rtol=1e-6)


@pytest.mark.parametrize("name", ["per_example_global_norm_clip", "per_example_layer_norm_clip"])
@pytest.mark.parametrize(
    "grads", [{}, [np.ones((2, 3)), np.ones((3, 3))], [np.ones(())], [np.ones((2, 3)), np.ones(())]]
)
def test_per_example_refuses(name, grads):
    with pytest.raises(ValueError, match=name):
        getattr(gradtx, name)(grads, 1.0)
