"""The zoom search meets the conditions it promises, by their definitions, and is Optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.linesearch.zoom import Point, cubic_minimum, interpolate, quadratic_minimum
from tests.linesearch.problems import START, bowl, descend, quartic, rosenbrock
from tests.oracles import assert_close


def search(*args, **kwargs):
    stage = gradtx.scale_by_zoom_linesearch(*args, **kwargs)
    return gradtx.chain(gradtx.sgd(1.0), stage)


@pytest.mark.parametrize("c1, c2", [(1e-4, 0.9), (0.2, 0.3), (1e-3, 0.01)])
@pytest.mark.parametrize("loss", [rosenbrock, bowl, quartic])
def test_the_strong_wolfe_conditions_hold(loss, c1, c2, x64):
    x = START[loss]
    tx = search(60, slope_rtol=c1, curv_rtol=c2, approx_dec_rtol=None, stepsize_precision=0.0)
    xs, states = descend(tx, loss, jnp.asarray(x), 8)
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    for after, state in zip(xs, states, strict=True):
        before, g = value_and_grad(x)
        value, grad = value_and_grad(after)
        rate, slope = state.learning_rate, -float(g @ g)
        assert_close(after, x - rate * g)
        assert value <= before + c1 * rate * slope + 1e-12 * abs(before)
        assert abs(float(grad @ -g)) <= c2 * abs(slope) * (1 + 1e-9)
        assert state.info.decrease_error == state.info.curvature_error == 0
        assert_close(state.value, value), assert_close(state.grad, grad)
        x = after


def test_interpolation():
    """Exact for a cubic and for a parabola, whose minima are known."""

    def point(rate, f):
        rate = jnp.asarray(rate)
        return Point(rate, f(rate), jax.grad(f)(rate))

    with jax.enable_x64(True):
        cubic = lambda t: (t - 1.0) ** 2 * (t + 2.0)  # noqa: E731  least at 1
        ends = [point(t, cubic) for t in (0.2, 1.8, 2.5)]
        assert cubic_minimum(*ends) == pytest.approx(1.0)
        assert cubic_minimum(ends[1], ends[0], ends[2]) == pytest.approx(1.0)
        parabola = lambda t: 3.0 * (t - 0.7) ** 2  # noqa: E731
        ends = [point(t, parabola) for t in (0.1, 1.0, 2.0)]
        assert cubic_minimum(*ends) == pytest.approx(0.7)
        assert quadratic_minimum(*ends[:2]) == pytest.approx(0.7)
        assert interpolate(*ends) == pytest.approx(0.7)
        low, high, _ = ends
        assert interpolate(low, high, low) == pytest.approx(0.7), "no third point: the parabola"
        infinite = high._replace(value=jnp.asarray(jnp.inf))
        for bad in (infinite, high._replace(value=jnp.asarray(jnp.nan))):
            assert interpolate(low, bad, low) == pytest.approx(0.55), "the middle"
        near = low._replace(slope=jnp.asarray(-1e-3), value=high.value)
        assert interpolate(near, high, near) == pytest.approx(0.55), "too near to an end"


OPTIONS = [
    {},
    {"curv_rtol": 0.1, "slope_rtol": 0.3, "initial_guess_strategy": "one"},
    {"max_learning_rate": 0.003, "increase_factor": 3.0},
    {"approx_dec_rtol": None, "tol": 0.1, "initial_guess_strategy": "one"},
    {"curv_rtol": 0.01, "stepsize_precision": 0.05},
    {"curv_rtol": np.inf},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("loss", [rosenbrock, quartic])
def test_optax(loss, options, x64):
    steps, x = 12, jnp.asarray(START[loss])
    with jax.numpy_dtype_promotion("standard"):
        tx = optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(20, **options))
        expected, theirs = descend(tx, loss, x, steps, optax.apply_updates)
    actual, ours = descend(search(20, **options), loss, x, steps)
    assert_close(actual, expected, 1e-8)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine._fields == its._fields and mine.info._fields == its.info._fields
        assert mine.info.num_linesearch_steps == its.info.num_linesearch_steps
        for a, e in zip(jax.tree.leaves(mine), jax.tree.leaves(its), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-6)


def test_few_evaluations_end_in_the_best_safe_step_or_the_last(x64):
    with jax.numpy_dtype_promotion("standard"):
        for limit, curv_rtol in ((1, 0.9), (2, 0.9), (4, 1e-3), (6, 1e-5)):
            options = {"curv_rtol": curv_rtol, "initial_guess_strategy": "one"}
            stage = optax.scale_by_zoom_linesearch(limit, **options)
            tx = optax.chain(optax.sgd(1.0), stage)
            x = jnp.asarray(START[rosenbrock])
            expected, (theirs,) = descend(tx, rosenbrock, x, 1, optax.apply_updates)
            actual, (ours,) = descend(search(limit, **options), rosenbrock, x, 1)
            assert_close(actual, expected, 1e-8)
            assert ours.info.num_linesearch_steps == theirs.info.num_linesearch_steps
            np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-5)


@pytest.mark.parametrize("outside", [jnp.nan, jnp.inf, -jnp.inf])
def test_trials_that_are_not_finite_are_too_long(outside):
    def loss(x):
        return jnp.where(jnp.all(x > 0.5), jnp.sum(x**2), outside)

    xs, states = descend(search(30), loss, jnp.asarray([1.0]), 3)
    assert np.all(xs > 0.5) and states[0].value < 1.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))


def test_no_step_where_nothing_is_finite():
    def loss(x):
        return jnp.where(x[0] > 0.9999999, jnp.sum(x**2), jnp.nan)

    xs, states = descend(search(4), loss, jnp.asarray([1.0]), 2)
    for x, state in zip(xs, states, strict=True):
        assert x == 1.0 and state.value == 1.0 and state.grad == 2.0
        assert state.learning_rate == 0.0 and state.info.num_linesearch_steps == 4


def test_a_gradient_that_is_not_finite_is_refused_too():
    def loss(x):  # finite for every x, of slope NaN below 0
        return jnp.sum(jnp.sqrt(jnp.maximum(x, 0.0)) + x**2)

    xs, (state,) = descend(search(20, approx_dec_rtol=None), loss, jnp.asarray([1.0]), 1)
    assert np.isfinite(state.grad).all() and np.all(xs > 0)


def test_complex_parameters_are_their_real_split(x64):
    def of_parts(x):
        return jnp.sum(jnp.asarray([1.0, 7.0, 2.0, 4.0]) * (x - 1.0) ** 4) + x[0] * x[2]

    def loss(z):
        return of_parts(jnp.concatenate([z.real, z.imag]))

    x = np.asarray([0.3, -0.4, 1.5, 0.2])
    tx = search(20, curv_rtol=0.3)
    expected, theirs = descend(tx, of_parts, jnp.asarray(x), 8)
    actual, ours = descend(tx, loss, jnp.asarray(x[:2] + 1j * x[2:]), 8)
    assert_close(np.concatenate([actual.real, actual.imag], axis=1), expected, 1e-9)
    counts = [[int(s.info.num_linesearch_steps) for s in states] for states in (ours, theirs)]
    assert counts[0] == counts[1]


def test_the_step_size_is_a_constant_to_differentiation():
    tx = search(15)

    def moved(x):
        value, grad = jax.value_and_grad(rosenbrock)(x)
        return tx.step(grad, tx.init(x), x, value=value, grad=grad, value_fn=rosenbrock)

    x = jnp.asarray([-0.5, 0.4])
    rate = moved(x)[1][-1].learning_rate
    expected = jnp.eye(2) - rate * jax.hessian(rosenbrock)(x)
    for jacobian in (jax.jacrev, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(jacobian(lambda x: moved(x)[0]))(x), expected, rtol=1e-4)


def test_verbose(capfd):
    descend(search(2, verbose=True), bowl, jnp.zeros(6), 1)
    jax.effects_barrier()
    assert "scale_by_zoom_linesearch: no step size" in capfd.readouterr().out
    descend(search(2), bowl, jnp.zeros(6), 1)
    descend(search(60, verbose=True), bowl, jnp.zeros(6), 1)
    jax.effects_barrier()
    assert capfd.readouterr().out == ""
