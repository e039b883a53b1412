"""L-BFGS against the inverse Hessian as a dense matrix, built as BFGS's formula says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.linesearch.problems import START, bowl, descend, quartic, rosenbrock
from tests.oracles import assert_close


def dense_directions(xs, gs, memory, scaled):
    """H g at each step, H from the last `memory` pairs; pairs without curvature are left out."""
    pairs, directions, size = [], [], xs.shape[1]
    for k, g in enumerate(gs):
        cautious = min(1.0, 1.0 / np.linalg.norm(g))
        gamma = cautious
        if k:
            s, y = xs[k] - xs[k - 1], gs[k] - gs[k - 1]
            pairs.append((s, y))
            gamma = s @ y / (y @ y) if s @ y > 0 else cautious
        h = np.eye(size) * (gamma if scaled else 1.0)
        for s, y in pairs[-memory:]:
            if s @ y > 0:
                v = np.eye(size) - np.outer(y, s) / (s @ y)
                h = v.T @ h @ v + np.outer(s, s) / (s @ y)
        directions.append(h @ g)
    return np.stack(directions)


def walk(seed, steps=9, size=5):
    """Points, and gradients of a convex function there, but for one step without curvature."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(size, size))
    xs = rng.normal(size=(steps, size))
    gs = xs @ (a @ a.T + 0.1 * np.eye(size))
    gs[4] = gs[3] - 0.3 * (gs[4] - gs[3])
    return xs, gs


def run(tx, xs, gs, **extra):
    state, out, step = tx.init(xs[0]), [], jax.jit(tx.update)
    for x, g in zip(xs, gs, strict=True):
        u, state = step(g, state, x, **extra)
        out.append(u)
    return np.stack(out), state


@pytest.mark.parametrize("memory, scaled", [(1, True), (3, True), (3, False), (20, True)])
def test_dense(memory, scaled, x64):
    for seed in range(2):
        xs, gs = walk(seed)
        tx = gradtx.scale_by_lbfgs(memory, scaled)
        actual, state = run(tx, xs, gs)
        assert_close(actual, dense_directions(xs, gs, memory, scaled), 1e-10)
        latest = 7 % memory
        assert_close(state.diff_params_memory[latest], xs[8] - xs[7])
        assert_close(state.diff_updates_memory[latest], gs[8] - gs[7])
        weight = (xs[8] - xs[7]) @ (gs[8] - gs[7])
        np.testing.assert_allclose(state.weights_memory[latest], 1 / weight if weight > 0 else 0)
        assert_close(state.params, xs[8]), assert_close(state.updates, gs[8])
        assert state.count == 9


def test_defaults():
    assert gradtx.scale_by_lbfgs() == gradtx.scale_by_lbfgs(10, True)
    stage = gradtx.scale_by_zoom_linesearch(20, initial_guess_strategy="one")
    assert gradtx.lbfgs() == gradtx.lbfgs(None, 10, True, stage)


def test_several_leaves_complex_or_not_are_one_vector(x64):
    xs, gs = walk(3, size=6)
    split = lambda v: {"c": v[:, :2] + 1j * v[:, 2:4], "r": v[:, 4:]}  # noqa: E731
    tx, (tx_x, tx_g) = gradtx.scale_by_lbfgs(3), (split(xs), split(gs))
    state, step = tx.init({k: v[0] for k, v in tx_x.items()}), jax.jit(tx.update)
    expected = dense_directions(xs, gs, 3, True)
    for k in range(len(xs)):
        u, state = step(
            {n: v[k] for n, v in tx_g.items()}, state, {n: v[k] for n, v in tx_x.items()}
        )
        assert_close(np.concatenate([u["c"].real, u["c"].imag, u["r"]]), expected[k], 1e-10)
    assert state.weights_memory.dtype == np.float64


def test_entries_that_are_not_free_get_the_scaled_gradient(x64):
    """The direction is that of the free entries alone, as if the others did not exist."""
    xs, gs = walk(5)
    free = np.asarray([True, False, True, True, False])
    actual, _ = run(gradtx.scale_by_lbfgs(3), xs, gs, free=jnp.asarray(free))
    expected = dense_directions(xs[:, free], gs[:, free], 3, True)
    # gamma of the first step is of the whole gradient; later it is of the free entries.
    assert_close(actual[1:4, free], expected[1:4], 1e-10)
    s, y = np.diff(xs[:, free], axis=0)[0], np.diff(gs[:, free], axis=0)[0]
    assert_close(actual[1, ~free], (s @ y) / (y @ y) * gs[1, ~free], 1e-10)


@pytest.mark.parametrize("loss", [rosenbrock, bowl, quartic])
def test_optax(loss, x64):
    x = jnp.asarray(START[loss])
    with jax.numpy_dtype_promotion("standard"):
        expected, _ = descend(optax.lbfgs(memory_size=4), loss, x, 12, optax.apply_updates)
    actual, _ = descend(gradtx.lbfgs(memory_size=4), loss, x, 12)
    assert_close(actual, expected, 1e-8)


def test_optax_in_single_precision_with_the_same_state():
    x = jnp.asarray(START[rosenbrock], jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.lbfgs(memory_size=4).init(x)
        expected, _ = descend(optax.lbfgs(), rosenbrock, x, 8, optax.apply_updates)
    actual, _ = descend(gradtx.lbfgs(), rosenbrock, x, 8)
    assert_close(actual, expected, 1e-4)
    ours = gradtx.lbfgs(memory_size=4).init(x)
    for mine, its in zip(ours, theirs, strict=True):
        assert type(mine).__name__ == type(its).__name__ and mine._fields == its._fields
        for a, e in zip(jax.tree.leaves(mine), jax.tree.leaves(its), strict=True):
            assert a.shape == e.shape and a.dtype == e.dtype


def test_learning_rates_and_no_search():
    x, g = jnp.asarray([3.0, 4.0]), jnp.asarray([3.0, 4.0])
    for tx, factor in (
        (gradtx.lbfgs(linesearch=None), -1.0),
        (gradtx.lbfgs(0.5, linesearch=None), -0.5),
        (gradtx.lbfgs(gradtx.linear_schedule(0.25, 0.0, 9), linesearch=None), -0.25),
    ):
        assert not tx.required_extra_args
        u, _ = tx.update(g, tx.init(x), x)
        np.testing.assert_allclose(u, factor * g / 5, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_types_are_a_fixed_point_of_a_while_loop(dtype):
    tx, x = gradtx.lbfgs(memory_size=3), jnp.asarray([1.0, -2.0], dtype)
    loss = lambda x: jnp.sum((x - 0.5) ** 2)  # noqa: E731

    def body(carry):
        x, state, k = carry
        value, grad = gradtx.value_and_grad_from_state(loss)(x, state=state)
        x, state = tx.step(grad, state, x, value=value, grad=grad, value_fn=loss)
        return x, state, k + 1

    step = jax.jit(lambda x, s: jax.lax.while_loop(lambda c: c[2] < 3, body, (x, s, 0))[:2])
    state = tx.init(x)
    for _ in range(3):
        x, state = step(x, state)
    assert step._cache_size() == 1 and x.dtype == dtype
    np.testing.assert_allclose(np.asarray(x, float), 0.5, rtol=1e-3)


def test_one_entry_of_the_history_is_written():
    """Donated, the histories are updated in place: the program holds no second copy of them."""
    tx, x = gradtx.scale_by_lbfgs(8), jnp.ones(100_000)
    step = jax.jit(lambda s, g, x: tx.update(g, s, x)[::-1], donate_argnums=0)
    memory = step.lower(tx.init(x), x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 6 * x.nbytes
