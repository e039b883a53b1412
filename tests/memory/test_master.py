import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.memory.common import (
    LOW,
    adamw,
    assert_same_bits,
    both_ways,
    run,
    sgd,
    share_of_movement,
)


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_the_copy_is_a_float32_run_and_the_parameters_are_it_rounded(dtype):
    """AdamW in float64, which sees the copy: its decay is of that, and so is the trajectory."""
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.normal(size=300), dtype)
    grads = rng.normal(size=(30, 300)).astype(np.float32).astype(dtype)
    tx = gradtx.master_weights(gradtx.adamw(1e-3, weight_decay=0.1))
    params, state = p, tx.init(p)
    x, m, v = np.asarray(p, np.float64), 0.0, 0.0
    for t, g in enumerate(grads, 1):
        params, state = jax.jit(tx.step)(jnp.asarray(g), state, params)
        g = g.astype(np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        x = x - 1e-3 * (u + 0.1 * x)
        np.testing.assert_allclose(state.master, x, rtol=2e-6, atol=2e-6)
        rounded = np.asarray(state.master).astype(dtype)
        small = np.abs(np.asarray(p, np.float64)) > 0.1
        np.testing.assert_array_equal(np.asarray(params)[small], rounded[small])


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_large_updates_end_within_a_rounding_and_the_next_step_mends_it(dtype):
    rng = np.random.default_rng(1)
    p = jnp.asarray(rng.normal(size=5000), dtype)
    u = jnp.asarray(rng.normal(size=5000) * 3, jnp.float32)
    tx = gradtx.master_weights(gradtx.scale(1.0))
    params, state = tx.step(u, tx.init(p), p)
    beside = np.abs(np.asarray(params, np.float64) - np.asarray(state.master, np.float64))
    eps = float(jnp.finfo(dtype).eps)
    assert np.all(beside <= eps * (np.abs(np.asarray(u)) + np.abs(np.asarray(state.master))))
    params, state = tx.step(jnp.full(5000, -0.0), state, params)
    np.testing.assert_array_equal(np.asarray(params), np.asarray(state.master).astype(dtype))


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_step_and_update_are_the_same_bits(dtype):
    rng = np.random.default_rng(2)
    p = jnp.asarray(rng.normal(size=2000), dtype)
    g = jnp.asarray(rng.normal(size=2000) * 10.0 ** rng.uniform(-5, 1, size=2000), dtype)
    first, *others = both_ways(gradtx.master_weights(gradtx.sgd(0.125)), {"w": p}, {"w": g}, 3)
    for other in others:
        assert_same_bits(first, other)


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_a_thousand_small_steps_add_up(dtype, rate):
    expected = sgd(rate, -1.0)
    tx = gradtx.sgd(rate)
    stuck, _ = run(tx, dtype, -1.0)
    assert share_of_movement(stuck, expected) > 0.02
    for applied in (False, True):
        x, state = run(gradtx.master_weights(tx), dtype, -1.0, applied=applied)
        assert share_of_movement(state.master["w"], expected) < 0.01
        assert np.max(np.abs(x - expected)) <= 0.51 * float(jnp.finfo(dtype).eps) * expected


def test_adamw_and_decay_before_rounding():
    tx = gradtx.master_weights(gradtx.adamw(1e-4, weight_decay=0.5))
    _, state = run(tx, jnp.bfloat16, 0.01)
    assert share_of_movement(state.master["w"], adamw(1e-4, 0.01, 0.5)) < 0.001
    _, state = run(gradtx.master_weights(gradtx.sgd(1e-3, weight_decay=0.1)), jnp.bfloat16, 0.0)
    assert share_of_movement(state.master["w"], sgd(1e-3, 0.0, decay=0.1)) < 0.001


def test_the_inner_transformation_sees_the_copy():
    p = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    seen = []

    def update(updates, state, params=None):
        seen.append(params)
        return updates, state

    tx = gradtx.master_weights(gradtx.GradientTransformation(lambda params: params["w"], update))
    state = tx.init(p)
    assert state.inner_state.dtype == jnp.float32
    state = state._replace(master={"w": jnp.asarray([3.001, 1.0]), "b": None})
    tx.update({"w": p["w"], "b": p["b"]}, state, p)
    assert_same_bits(seen[0], {"w": state.master["w"], "b": p["b"]})


def test_the_copy_wins_over_parameters_changed_from_outside():
    p = jnp.full(4, 1.5, jnp.bfloat16)
    tx = gradtx.master_weights(gradtx.sgd(0.25))
    params, _ = tx.step(jnp.ones(4, jnp.bfloat16), tx.init(p), 1.25 * p)
    assert np.asarray(params, np.float64).tolist() == [1.25] * 4


def test_wide_parameters_have_no_copy():
    state = gradtx.master_weights(gradtx.sgd(0.1)).init({"w": jnp.ones(2), "b": None})
    assert state.master == {"w": None, "b": None}


def test_looks_ahead_from_the_copy():
    tx = gradtx.master_weights(gradtx.nesterov_momentum(0.1, 0.9, lookahead=True))
    p = jnp.ones(2, jnp.bfloat16)
    params, state = tx.step(p, tx.init(p), p)
    point = tx.lookahead_point(state, params)
    assert point.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(point, np.float64), 0.9 - 0.09, rtol=2**-8)
    state = state._replace(master=jnp.full(2, 3.0))
    point = np.asarray(tx.lookahead_point(state, params), np.float64)
    np.testing.assert_allclose(point, 3.0 - 0.09, rtol=2**-8)


def test_validation():
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.master_weights(0.1)
    tx = gradtx.master_weights(gradtx.sgd(0.1))
    p = jnp.ones(2, jnp.bfloat16)
    with pytest.raises(ValueError, match="master_weights needs params"):
        tx.update(p, tx.init(p))
    with pytest.raises(ValueError, match=r"params\['w'\] has dtype bfloat16, but the state has"):
        tx.step({"w": p}, tx.init({"w": jnp.ones(2)}), {"w": p})
