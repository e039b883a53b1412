"""Armijo backtracking against a loop in NumPy, against Optax, and in what is awkward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.linesearch.problems import START, bowl, descend, quartic, rosenbrock
from tests.oracles import assert_close


def search(*args, **kwargs):
    stage = gradtx.scale_by_backtracking_linesearch(*args, **kwargs)
    return gradtx.chain(gradtx.sgd(1.0), stage)


def armijo(loss, x, steps, limit, c1=1e-4, down=0.8, up=1.5, most=1.0, atol=0.0, rtol=0.0):
    """Rates, evaluations and points by the textbook loop."""
    fn, gradient = jax.jit(loss), jax.jit(jax.grad(loss))
    rate, rates, counts, xs = 1.0, [], [], []
    for _ in range(steps):
        value, g = float(fn(x)), np.asarray(gradient(x))
        rate, count = min(up * rate, most), 1
        while count <= limit:
            bound = (1 + rtol) * value - c1 * rate * np.sum(g * g) + atol
            if float(fn(x - rate * g)) <= bound:
                break
            rate, count = down * rate, count + 1
        x = x - rate * g
        rates.append(rate)
        counts.append(count)
        xs.append(x)
    return np.stack(xs), rates, counts


OPTIONS = [
    {},
    {"c1": 0.3, "down": 0.5, "up": 2.0, "most": 0.7},
    {"up": 1.0, "atol": 0.1, "rtol": 0.05},
    {"up": np.inf, "down": 0.6},
]
NAMES = {"c1": "slope_rtol", "down": "decrease_factor", "up": "increase_factor"} | {
    "most": "max_learning_rate"
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("loss", [rosenbrock, quartic])
def test_textbook(loss, options, x64):
    xs, rates, counts = armijo(loss, START[loss], 12, 40, **options)
    named = {NAMES.get(k, k): v for k, v in options.items()}
    actual, states = descend(search(40, **named), loss, jnp.asarray(START[loss]), 12)
    assert_close(actual, xs, 1e-10)
    assert_close([s.learning_rate for s in states], rates, 1e-12)
    assert [int(s.info.num_linesearch_steps) for s in states] == counts


@pytest.mark.parametrize("options", [{}, {"store_grad": True, "increase_factor": 3.0}])
@pytest.mark.parametrize("loss", [rosenbrock, bowl])
def test_optax(loss, options):
    x = jnp.asarray(START[loss], jnp.float32)
    stage = optax.scale_by_backtracking_linesearch(40, **options)
    with jax.numpy_dtype_promotion("standard"):
        tx = optax.chain(optax.sgd(1.0), stage)
        expected, theirs = descend(tx, loss, x, 10, optax.apply_updates)
    actual, ours = descend(search(40, **options), loss, x, 10)
    assert_close(actual, expected, 1e-5)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine._fields == its._fields and mine.info._fields == its.info._fields
        for a, e in zip(jax.tree.leaves(mine), jax.tree.leaves(its), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


def test_the_limit_and_an_unsafe_step():
    """As in Optax, the last trial is taken although the loss is higher there."""
    _, (state,) = descend(search(3), bowl, jnp.zeros(6), 1)
    assert state.info.num_linesearch_steps == 4 and state.info.decrease_error > 0
    assert state.learning_rate == pytest.approx(0.8**3)
    assert state.value > bowl(jnp.zeros(6))


@pytest.mark.parametrize("outside", [jnp.nan, jnp.inf, -jnp.inf])
def test_trials_that_are_not_finite_are_too_long(outside):
    def loss(x):
        return jnp.where(jnp.all(x > 0.5), jnp.sum(x**2), outside)

    xs, states = descend(search(30, store_grad=True), loss, jnp.asarray([1.0]), 3)
    assert np.all(xs > 0.5) and states[0].info.num_linesearch_steps > 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states))
    assert states[0].value < 1.0


def test_no_step_where_nothing_is_finite_and_a_shorter_one_next_time():
    def loss(x):
        return jnp.where(x[0] > 0.99, jnp.sum(x**2), jnp.nan)

    xs, states = descend(search(4, store_grad=True), loss, jnp.asarray([1.0]), 15)
    assert xs[0] == 1.0 and states[0].value == 1.0 and states[0].grad == 2.0
    assert states[0].learning_rate == pytest.approx(0.8**4)
    assert 0.99 < xs[-1] < 1.0


def test_value_and_gradient_are_those_at_the_end_of_the_step():
    xs, states = descend(search(20, store_grad=True), rosenbrock, jnp.asarray([-1.2, 1.0]), 5)
    for x, state in zip(xs, states, strict=True):
        np.testing.assert_allclose(state.value, rosenbrock(x), rtol=1e-5)
        np.testing.assert_allclose(state.grad, jax.grad(rosenbrock)(x), rtol=1e-4)
    _, states = descend(search(20), rosenbrock, jnp.asarray([-1.2, 1.0]), 1)
    assert states[0].grad is None


def test_complex_parameters_are_their_real_split(x64):
    def of_parts(x):
        return jnp.sum(jnp.asarray([1.0, 7.0, 2.0, 4.0]) * (x - 1.0) ** 4) + x[0] * x[2]

    def loss(z):
        return of_parts(jnp.concatenate([z.real, z.imag]))

    x = np.asarray([0.3, -0.4, 1.5, 0.2])
    expected, theirs = descend(search(30, slope_rtol=0.5), of_parts, jnp.asarray(x), 8)
    actual, ours = descend(search(30, slope_rtol=0.5), loss, jnp.asarray(x[:2] + 1j * x[2:]), 8)
    assert_close(np.concatenate([actual.real, actual.imag], axis=1), expected)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.learning_rate == pytest.approx(float(its.learning_rate))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_the_loss_sees_the_parameters_own_dtype(dtype):
    seen = []

    def loss(x):
        seen.append(x.dtype)
        return jnp.sum(x**2)

    x = jnp.asarray([1.0, -2.0], dtype)
    xs, (state,) = descend(search(20, store_grad=True), loss, x, 1)
    assert set(seen) == {jnp.dtype(dtype)} and xs.dtype == dtype
    assert state.value.dtype == state.learning_rate.dtype == state.grad.dtype == np.float32
    value = np.asarray(loss(jnp.asarray(xs[-1])), np.float32)
    np.testing.assert_allclose(state.value, value, rtol=float(jnp.finfo(dtype).eps))


def test_arguments_reach_the_loss_that_has_a_parameter_for_them():
    def loss(x, batch):
        return jnp.sum((x - batch) ** 2)

    tx, x = search(20), jnp.zeros(2)
    value, grad = jax.value_and_grad(loss)(x, 3.0)
    extra = {"value": value, "grad": grad, "batch": jnp.float32(3.0), "unrelated": 1.0}
    moved, _ = tx.step(grad, tx.init(x), x, value_fn=loss, **extra)
    assert loss(moved, 3.0) < value
    everything = lambda x, **kwargs: loss(x, kwargs["batch"]) * kwargs["unrelated"]  # noqa: E731
    same, _ = tx.step(grad, tx.init(x), x, value_fn=everything, **extra)
    assert jnp.array_equal(same, moved)


def test_an_eager_loop_compiles_once():
    traced = []

    def loss(x):
        traced.append(x)
        return jnp.sum(x**2)

    tx, x = search(5), jnp.ones(3)
    state = tx.init(x)
    for _ in range(3):
        x, state = tx.step(2 * x, state, x, value=jnp.sum(x**2), grad=2 * x, value_fn=loss)
    once = len(traced)
    tx.step(2 * x, state, x, value=jnp.sum(x**2), grad=2 * x, value_fn=loss)
    assert len(traced) == once <= 2


def test_the_step_size_is_a_constant_to_differentiation():
    tx = search(30)

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
    assert "scale_by_backtracking_linesearch: no step size" in capfd.readouterr().out
    quiet = functools.partial(descend, loss=bowl, x=jnp.zeros(6), steps=1)
    quiet(search(2))
    quiet(search(60, verbose=True))
    jax.effects_barrier()
    assert capfd.readouterr().out == ""
