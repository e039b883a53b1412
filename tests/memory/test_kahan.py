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


def whole(x, state):
    """What parameter and compensation are together."""
    return x + np.asarray(state.compensation["w"], np.float64)


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
@pytest.mark.parametrize("kept", [None, jnp.float32])
def test_trajectory_is_the_equations(dtype, kept):
    """In float64, the roundings made by NumPy; updates from below the spacing to ten times x."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=500).astype(dtype)
    grads = rng.normal(size=(20, 500)) * 10.0 ** rng.uniform(-4, 1, size=500)
    grads = (grads * x.astype(np.float64)).astype(dtype)
    tx = gradtx.kahan(gradtx.scale(-0.25), dtype=kept)
    params, state = jnp.asarray(x), tx.init(jnp.asarray(x))
    c = np.zeros(500)
    for g in grads:
        params, state = jax.jit(tx.step)(jnp.asarray(g), state, params)
        # Sums of two float32 numbers of a few bits: what float32 rounds off is far below.
        y = np.float64(-0.25) * g.astype(np.float64) + c
        update = y.astype(np.float32).astype(dtype).astype(np.float64)
        old = x.astype(np.float64)
        x = (old + update).astype(np.float32).astype(dtype)
        c = y - (x.astype(np.float64) - old)
        c = c.astype(np.float32).astype(kept or dtype).astype(np.float64)
        np.testing.assert_array_equal(np.asarray(params), x)
        # XLA's CPU backend has no numbers below 2^-126, and float32 rounds once.
        np.testing.assert_allclose(
            np.asarray(state.compensation, np.float64), c, rtol=0, atol=2e-7 * np.max(np.abs(old))
        )


def test_nothing_is_lost():
    """Parameter and compensation in float32 move as the sum of the updates, large ones too."""
    rng = np.random.default_rng(1)
    params = jnp.asarray(rng.normal(size=1000), jnp.bfloat16)
    tx = gradtx.kahan(gradtx.scale(1.0), dtype=jnp.float32)
    start, total, state = np.asarray(params, np.float64), 0.0, tx.init(params)
    for _ in range(50):
        u = rng.normal(size=1000) * 10.0 ** rng.uniform(-6, 0.5, size=1000)
        u = u.astype(np.float32)
        total = total + u.astype(np.float64)
        updates, state = tx.update(jnp.asarray(u), state, params)
        params = gradtx.apply_updates(params, updates)
    moved = np.asarray(params, np.float64) + np.asarray(state.compensation, np.float64) - start
    np.testing.assert_allclose(moved, total, atol=2e-5)


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_step_and_update_are_the_same_bits(dtype):
    rng = np.random.default_rng(2)
    p = jnp.asarray(rng.normal(size=2000), dtype)
    g = jnp.asarray(rng.normal(size=2000) * 10.0 ** rng.uniform(-5, 1, size=2000), dtype)
    first, *others = both_ways(gradtx.kahan(gradtx.sgd(0.125)), {"w": p}, {"w": g}, 3)
    for other in others:
        assert_same_bits(first, other)


@pytest.mark.parametrize(
    "dtype, kept, rate",
    [
        (jnp.bfloat16, None, 1e-3),
        (jnp.float16, None, 1e-3),
        (jnp.float16, None, 1e-4),
        (jnp.float16, None, 1e-5),
        (jnp.bfloat16, jnp.float32, 1e-4),
        (jnp.bfloat16, jnp.float32, 1e-5),
    ],
)
def test_a_thousand_small_steps_add_up(dtype, kept, rate):
    expected = sgd(rate, -1.0)
    tx = gradtx.sgd(rate)
    stuck, _ = run(tx, dtype, -1.0)
    assert share_of_movement(stuck, expected) > 0.02
    for applied in (False, True):
        x, state = run(gradtx.kahan(tx, dtype=kept), dtype, -1.0, applied=applied)
        assert share_of_movement(whole(x, state), expected) < 0.01
        assert np.max(np.abs(x - expected)) <= 0.51 * float(jnp.finfo(dtype).eps) * expected + (
            0.01 * abs(expected - 1)
        )


def test_what_two_bfloat16_numbers_cannot_hold():
    """As documented: updates of 2^-16 of the parameter are lost, those of 2^-15 are not."""
    x, _ = run(gradtx.kahan(gradtx.sgd(2.0**-16)), jnp.bfloat16, -1.0, steps=3000)
    assert np.all(x == 1.0)
    x, state = run(gradtx.kahan(gradtx.sgd(2.0**-15)), jnp.bfloat16, -1.0, steps=3000)
    assert np.all(whole(x, state) == 1 + 3000 * 2.0**-15)


def test_adamw_and_decay_before_rounding():
    tx = gradtx.kahan(gradtx.adamw(1e-3, weight_decay=0.5))
    x, state = run(tx, jnp.bfloat16, 0.01)
    assert share_of_movement(whole(x, state), adamw(1e-3, 0.01, 0.5)) < 0.01
    tx = gradtx.kahan(gradtx.sgd(1e-3, weight_decay=0.1), dtype=jnp.float32)
    x, state = run(tx, jnp.bfloat16, 0.0)
    assert share_of_movement(whole(x, state), sgd(1e-3, 0.0, decay=0.1)) < 0.01
    stuck, _ = run(gradtx.sgd(1e-3, weight_decay=0.1), jnp.bfloat16, 0.0)
    assert np.all(stuck == 1.0)


def test_the_compensation_is_a_slot_of_narrow_parameters():
    params = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    assert gradtx.kahan(gradtx.sgd(0.1)).init(params).compensation["w"].dtype == jnp.bfloat16
    state = gradtx.kahan(gradtx.sgd(0.1), dtype=jnp.float32).init(params)
    assert state.compensation["w"].dtype == jnp.float32 and state.compensation["b"] is None


def test_validation():
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.kahan(0.1)
    with pytest.raises(TypeError, match="dtype must be a floating dtype, got int32"):
        gradtx.kahan(gradtx.sgd(0.1), dtype=jnp.int32)
    tx = gradtx.kahan(gradtx.sgd(0.1))
    p = jnp.ones(2, jnp.bfloat16)
    with pytest.raises(ValueError, match="kahan needs params"):
        tx.update(p, tx.init(p))
    with pytest.raises(ValueError, match=r"params\['w'\] has dtype bfloat16, but the state has"):
        tx.step({"w": p}, tx.init({"w": jnp.ones(2)}), {"w": p})
