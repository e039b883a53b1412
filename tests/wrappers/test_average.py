"""Averages of the parameters against weighted sums, and `eval_params` wherever they stand."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, Problem, assert_close, few

NAN = float("nan")


def averages(xs, decay, debias):
    """sum of decay^(t-s) x_s over s = 1..t, over the sum of the weights; or from x_0 on."""
    means = []
    for t in range(1, len(xs)):
        weights = decay ** np.arange(t - 1, -1, -1.0)
        mean = np.tensordot(weights, xs[1 : t + 1], axes=1)
        means.append(
            mean / weights.sum() if debias else (1 - decay) * mean + decay**t * np.asarray(xs[0])
        )
    return means


def run(tx, x0, grads):
    def one(carry, g):
        x, state = tx.step(g, carry[1], carry[0])
        return (x, state), (x, gradtx.eval_params(state, x))

    return jax.lax.scan(one, (x0, tx.init(x0)), grads)[1]


@few
@given(
    decay=st.one_of(st.floats(0.0, 0.9999), st.just(1.0)), debias=st.booleans(),
    traced=st.booleans(), dtype=st.sampled_from([float, complex]),
)  # fmt: skip
def test_average_of_a_trajectory(decay, debias, traced, dtype):
    problem = Problem(dtype=dtype)
    xs = [problem.x0]
    for _ in range(STEPS):
        xs.append(xs[-1] - 0.1 * problem.grad(xs[-1]))
    grads = np.stack(problem.grads)
    debias = debias or decay == 1

    def trajectory(decay):
        tx = gradtx.chain(gradtx.sgd(0.1), gradtx.ema_params(decay, debias=debias))
        return run(tx, problem.x0, grads)

    with jax.enable_x64(True):
        if traced:
            moved, means = jax.jit(trajectory)(decay)
        else:
            moved, means = trajectory(decay)
        assert means.dtype == problem.x0.dtype
    assert_close(moved, xs[1:])
    assert_close(means, averages(xs, decay, debias), 1e-11)


def test_single_precision_with_a_slow_decay():
    """1 - 0.9999^t in float32 would be off by 1e-4 at the first steps."""
    grads = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.ema_params(0.9999))
    moved, means = run(tx, jnp.ones(3), grads)
    xs = np.concatenate([np.ones((1, 3)), np.asarray(moved, float)])
    assert_close(means, averages(xs, 0.9999, True), 1e-6)


def test_updates_pass_and_the_average_of_a_constant_is_exact():
    tx = gradtx.ema_params(0.9)
    params = {"w": jnp.asarray([1.1, -2.3]), "step": 3}
    state = tx.init(params)
    grads = {"w": jnp.asarray([0.7, 0.1]), "step": 3}
    updates, _ = tx.update(grads, state, params)
    np.testing.assert_array_equal(updates["w"], grads["w"])
    for _ in range(5):
        _, state = tx.update({"w": jnp.zeros(2), "step": 3}, state, params)
    np.testing.assert_array_equal(state.ema["w"], params["w"])
    assert int(state.count) == 5


def test_low_precision_parameters_have_a_single_precision_average():
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.ema_params(0.999))
    params = jnp.ones(2, jnp.bfloat16)
    state = tx.init(params)
    assert state[1].ema.dtype == jnp.float32
    for _ in range(2):
        params, state = tx.step(jnp.full(2, -1 / 128, jnp.bfloat16), state, params)
    np.testing.assert_allclose(state[1].ema, 1 + 1.5 / 128, rtol=1e-5)
    assert gradtx.eval_params(state, params).dtype == jnp.bfloat16
    assert gradtx.ema_params(0.9, dtype="bfloat16").init(params).ema.dtype == jnp.bfloat16


PARAMS = {"w": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([3.0]), "step": 3, "none": None}
GRADS = {"w": jnp.asarray([0.5, 0.5]), "b": jnp.asarray([1.0]), "step": 3, "none": None}
INNER = gradtx.chain(gradtx.sgd(0.5), gradtx.ema_params(1.0))
MASK = {"w": True, "b": False, "step": False, "none": False}


@pytest.mark.parametrize(
    "tx, covered",
    [
        (INNER, "wb"),
        (gradtx.named_chain(("first", gradtx.clip(9.0)), ("second", INNER)), "wb"),
        (gradtx.masked(INNER, MASK), "w"),
        (gradtx.chain(gradtx.masked(gradtx.chain(INNER), MASK), gradtx.identity()), "w"),
        (gradtx.lookahead(gradtx.sgd(0.5), 1, 0.5), "wb"),
        (gradtx.chain(gradtx.masked(gradtx.lookahead(INNER, 1, 0.5), MASK)), "w"),
    ],
    ids=["chain", "named", "masked", "deep", "lookahead", "nested"],
)
def test_eval_params_at_any_depth(tx, covered):
    params, state = PARAMS, tx.init(PARAMS)
    moved, state = tx.step(GRADS, state, params)
    later, state = tx.step(GRADS, state, moved)
    evaluated = gradtx.eval_params(state, later)
    assert evaluated["step"] == 3 and evaluated["none"] is None
    lookahead = "lookahead" in repr(tx)
    for key in "wb":
        expected = (moved[key] + later[key]) / 2 if not lookahead else later[key]
        if key not in covered:
            assert evaluated[key] is later[key]
        else:
            np.testing.assert_allclose(evaluated[key], expected, rtol=1e-6)
            assert lookahead or not np.allclose(evaluated[key], later[key])


def test_eval_params_inside_optax_combinators():
    params = {"w": jnp.asarray([1.0]), "b": jnp.asarray([3.0])}
    grads = {"w": jnp.asarray([1.0]), "b": jnp.asarray([1.0])}
    with jax.numpy_dtype_promotion("standard"):
        for tx, steps in (
            (optax.chain(optax.identity(), INNER), 2),
            (optax.MultiSteps(INNER, 2), 4),
            (optax.apply_if_finite(INNER, 3), 2),
            (optax.partition({"x": INNER, "y": INNER}, {"w": "x", "b": "y"}), 2),
        ):
            moved, state = params, tx.init(params)
            for _ in range(steps):
                updates, state = tx.update(grads, state, moved)
                moved = optax.apply_updates(moved, updates)
            for key in params:
                # After steps of 0.5 and 1 in all: the mean is a distance of 0.75 away.
                np.testing.assert_allclose(moved[key], params[key] - 1.0)
                evaluated = gradtx.eval_params(state, moved)
                np.testing.assert_allclose(evaluated[key], params[key] - 0.75)


def test_before_the_first_step_the_parameters_are_those_to_evaluate():
    assert (gradtx.eval_params(INNER.init(PARAMS), PARAMS)["w"] == PARAMS["w"]).all()


def test_eval_params_of_a_pair():
    pair = gradtx.LookaheadParams(fast=jnp.ones(2), slow=jnp.zeros(2))
    state = gradtx.lookahead(gradtx.sgd(0.5), 1, 0.5).init(pair)
    assert gradtx.eval_params(state, pair) is pair.slow


def test_eval_params_of_two_averages():
    tx = gradtx.chain(gradtx.ema_params(0.9), gradtx.ema_params(0.99))
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"both state\[0\] and state\[1\].*params\['b'\]"):
        gradtx.eval_params(state, PARAMS)
    assert gradtx.eval_params(state[1], PARAMS)["b"] == 3.0


def test_eval_params_refuses():
    with pytest.raises(ValueError, match="nothing in this state"):
        gradtx.eval_params(gradtx.adam().init(PARAMS), PARAMS)
    state = INNER.init(PARAMS)
    with pytest.raises(ValueError, match=r"state\[1\] has evaluation parameters\['w'\]"):
        gradtx.eval_params(state, PARAMS | {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"state\[1\] has evaluation parameters\['w'\]"):
        gradtx.eval_params(state, {"b": PARAMS["b"]})
    with pytest.raises(ValueError, match="does not have"):
        gradtx.eval_params(gradtx.flatten(INNER).init(PARAMS), PARAMS)
    assert gradtx.eval_params(INNER.init({}), {}) == {}


@pytest.mark.parametrize(
    "kwargs, error, words",
    [
        ({"decay": -0.1}, ValueError, "decay"),
        ({"decay": 1.1}, ValueError, "decay"),
        ({"decay": NAN}, ValueError, "decay"),
        ({"decay": 1.0, "debias": False}, ValueError, "decay"),
        ({"decay": "0.9"}, TypeError, "decay"),
        ({"decay": None}, TypeError, "decay"),
        ({"decay": 0.9, "debias": 1}, TypeError, "debias"),
        ({"decay": 0.9, "dtype": int}, TypeError, "dtype"),
    ],
)
def test_bad_arguments(kwargs, error, words):
    with pytest.raises(error, match=words):
        gradtx.ema_params(**kwargs)


def test_params_are_needed():
    with pytest.raises(ValueError, match="needs params"):
        INNER.update(GRADS, INNER.init(PARAMS))
