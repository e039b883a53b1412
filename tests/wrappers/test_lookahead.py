"""Lookahead against the paper's nested loops, and against Optax's pair of parameters."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

import gradtx
from gradtx.testing import gradients_like
from tests.oracles import STEPS, assert_close, check_double, check_forms, few, problems, rates

INF, NAN = float("inf"), float("nan")


def nested_loops(problem, rate, rho, k, alpha, reset=False):
    """Algorithm 1 around heavy-ball momentum: the fast parameters after each step."""
    phi, v, xs = problem.x0, 0, []
    while len(xs) < STEPS:
        theta = phi
        if reset:
            v = 0
        for _ in range(k):
            v = rho * v + problem.grad(theta)
            theta = theta - rate * v
            xs.append(theta)
        phi = phi + alpha * (theta - phi)
        xs[-1] = phi  # where the next gradient is taken
    return xs


@few
@given(problem=problems, rate=rates, alpha=st.floats(0.1, 1.0), k=st.sampled_from([1, 2, 5]))
def test_trajectory(problem, rate, alpha, k):
    tx = gradtx.lookahead(gradtx.sgd(rate, 0.5), k, alpha)
    check_double(tx, problem, nested_loops(problem, rate, 0.5, k, alpha))


@few
@given(problem=problems, rate=rates, k=st.sampled_from([2, 4]))
def test_trajectory_with_reset(problem, rate, k):
    tx = gradtx.lookahead(gradtx.sgd(rate, 0.5), k, 0.7, reset_state=True)
    check_double(tx, problem, nested_loops(problem, rate, 0.5, k, 0.7, reset=True))


def test_single_precision_and_complex():
    tx = gradtx.lookahead(gradtx.sgd(0.1, 0.5), 4, 0.5)
    check_forms(gradtx.chain(tx), lambda problem: nested_loops(problem, 0.1, 0.5, 4, 0.5))


def test_slow_parameters_move_at_meetings_alone():
    tx = gradtx.lookahead(gradtx.sgd(0.5), 3, 0.5)
    params = jnp.asarray([8.0])
    state = tx.init(params)
    slow = []
    for _ in range(6):
        params, state = tx.step(params, state, params)
        slow.append(float(gradtx.eval_params(state, params)[0]))
    assert slow == [8.0, 8.0, 4.5, 4.5, 4.5, 4.5 + 0.5 * (4.5 / 8 - 4.5)]
    assert float(params[0]) == slow[-1] and int(state.steps_since_sync) == 0


PARAMS = {"w": np.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": np.full(3, 0.5)}
GRADS = [jax.tree.map(np.asarray, gradients_like(PARAMS, seed)) for seed in range(7)]
INNERS = {
    "adamw": lambda lib: lib.adamw(0.1, weight_decay=0.3),  # reads the parameters: optax#165
    "momentum": lambda lib: lib.sgd(0.1, momentum=0.9),
}


def paired_run(lib, inner, reset, pair, start):
    tx = lib.lookahead(INNERS[inner](lib), sync_period=3, slow_step_size=0.4, reset_state=reset)
    params = lib.LookaheadParams.init_synced(start) if pair else start
    state = tx.init(start if pair == "late" else params)
    rows = []

    @jax.jit
    def step(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return lib.apply_updates(params, updates), state

    for grads in GRADS:
        params, state = step(grads, state, params)
        fast, slow = (params.fast, params.slow) if pair else (params, state.slow)
        rows.append((fast, slow))
    return rows, state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("pair", ["pair", "late", ""])
@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("reset", [False, True])
def test_optax_script(inner, reset, pair):
    start = jax.tree.map(jnp.asarray, PARAMS)
    with jax.numpy_dtype_promotion("standard"):
        expected, their_state = paired_run(optax, inner, reset, "pair", start)
    actual, state = paired_run(gradtx, inner, reset, pair, start)
    for ours, theirs in zip(
        jax.tree.leaves((actual, state[:2])), jax.tree.leaves((expected, their_state)), strict=True
    ):
        # Optax's Adam corrects its bias in float32 also under x64.
        assert_close(ours, theirs, 1e-7 if inner == "adamw" else 1e-12)
    assert state._fields[:2] == their_state._fields
    assert (state.slow is None) == (pair == "pair")


def test_pair_keeps_its_types():
    tx = gradtx.lookahead(gradtx.adam(0.1), 2, 0.5)
    params = gradtx.LookaheadParams.init_synced(
        {"w": jnp.ones((2, 2), jnp.bfloat16), "step": 3, "none": None}
    )
    grads = {"w": jnp.ones((2, 2), jnp.bfloat16), "step": 3, "none": None}
    state = tx.init(params)
    updates, new_state = tx.update(grads, state, params)
    assert updates.fast["w"].dtype == updates.slow["w"].dtype == jnp.bfloat16
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    params, _ = tx.step(grads, new_state, gradtx.apply_updates(params, updates))
    assert params.fast["step"] == params.slow["step"] == 3
    assert (params.fast["w"] == params.slow["w"]).all() and params.slow["w"].dtype == jnp.bfloat16
    assert gradtx.eval_params(state, params) is params.slow


def test_slow_parameters_of_low_precision_are_single():
    state = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5).init(jnp.ones(2, jnp.bfloat16))
    assert state.slow.dtype == jnp.float32
    assert gradtx.eval_params(state, jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_step_that_is_not_finite_leaves_the_slow_parameters():
    tx = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5)
    params = jnp.asarray([1.0])
    _, state = tx.step(jnp.asarray([NAN]), tx.init(params), params)
    np.testing.assert_array_equal(state.slow, [1.0])


def test_reset_begins_at_the_meeting():
    tx = gradtx.lookahead(gradtx.ema_params(0.5), 1, 0.5, reset_state=True)
    params, state = tx.step(jnp.asarray([2.0]), tx.init(jnp.zeros(1)), jnp.zeros(1))
    np.testing.assert_array_equal(params, [1.0])
    np.testing.assert_array_equal(state.fast_state.ema, [1.0])


def test_a_shorter_period_takes_effect_at_once():
    params = jnp.asarray([1.0])
    state = (
        gradtx.lookahead(gradtx.sgd(0.1), 9, 0.5)
        .init(params)
        ._replace(steps_since_sync=jnp.asarray(7, jnp.int32))
    )
    _, state = gradtx.lookahead(gradtx.sgd(0.1), 3, 0.5).update(params, state, params)
    assert int(state.steps_since_sync) == 0


def test_composition():
    inner = gradtx.lookahead(optax.sgd(0.1), 2, 0.5)
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.masked(inner, {"w": True, "b": False}))
    params = {"w": jnp.asarray([1.0]), "b": jnp.asarray([1.0])}
    state = tx.init(params)
    for _ in range(2):
        params, state = tx.step({"w": jnp.asarray([5.0]), "b": jnp.zeros(1)}, state, params)
    np.testing.assert_allclose(params["w"], [0.9], rtol=1e-6)
    np.testing.assert_allclose(gradtx.eval_params(state, params)["w"], [0.9], rtol=1e-6)


def test_extra_arguments_and_the_lookahead_point_reach_the_inner():
    tx = gradtx.lookahead(gradtx.polyak_sgd(), 2, 0.5)
    assert dict(tx.required_extra_args) == {"value": "scale_by_polyak"}
    params = jnp.asarray([1.0])
    tx.update(params, tx.init(params), params, value=1.0)
    inner = gradtx.nesterov_momentum(0.1, 0.9, lookahead=True)
    tx = gradtx.lookahead(inner, 5, 0.5)
    params, state = tx.step(params, tx.init(params), params)
    expected = inner.lookahead_point(state.fast_state, params)
    assert expected != params
    assert tx.lookahead_point(state, params) == expected
    assert tx.lookahead_point(state, gradtx.LookaheadParams(params, None)) == expected


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"sync_period": 0}, ValueError, "sync_period"),
        ({"sync_period": 1.5}, ValueError, "sync_period"),
        ({"sync_period": "2"}, TypeError, "sync_period"),
        ({"slow_step_size": -0.1}, ValueError, "slow_step_size"),
        ({"slow_step_size": NAN}, ValueError, "slow_step_size"),
        ({"slow_step_size": None}, TypeError, "slow_step_size"),
        ({"reset_state": 1}, TypeError, "reset_state"),
        ({"fast_optimizer": 0.1}, TypeError, "transformation"),
    ],
)
def test_bad_arguments(changes, error, words):
    good = {"fast_optimizer": gradtx.sgd(0.1), "sync_period": 2, "slow_step_size": 0.5}
    with pytest.raises(error, match=words):
        gradtx.lookahead(**good | changes)


def test_misuse():
    tx, params = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5), jnp.ones(2)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(params, tx.init(params))
    pair = gradtx.LookaheadParams.init_synced(params)
    with pytest.raises(ValueError, match="initialised with LookaheadParams"):
        tx.update(params, tx.init(pair), params)
    with pytest.raises(TypeError, match="swapped"):
        tx.update(tx.init(pair), params, pair)
    with pytest.raises(ValueError, match="shape"):
        tx.update(jnp.ones(3), tx.init(pair), pair)
