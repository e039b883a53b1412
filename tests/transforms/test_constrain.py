"""Nonnegative parameters, and NaNs made zero."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import few

values = st.lists(st.floats(-4, 4, width=16), min_size=6, max_size=6)


@few
@given(p=values, u=values)
def test_parameters_stay_nonnegative(p, u):
    tx = gradtx.keep_params_nonnegative()
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        params, updates = jnp.abs(jnp.asarray(p, dtype)), jnp.asarray(u, dtype)
        moved, _ = tx.step(updates, tx.init(params), params)
        assert moved.dtype == dtype and bool(jnp.all(moved >= 0))
        expected = jnp.maximum(gradtx.apply_updates(params, updates), 0)
        np.testing.assert_array_equal(np.float32(moved), np.float32(expected))


def test_a_negative_parameter_comes_back_to_zero():
    tx, params = gradtx.keep_params_nonnegative(), jnp.asarray([-1.0, -1.0, 0.0])
    updates = jnp.asarray([0.5, 3.0, 0.0])
    moved, _ = tx.step(updates, tx.init(params), params)
    np.testing.assert_array_equal(moved, [0.0, 2.0, 0.0])


def test_training_under_the_constraint():
    """Nonnegative least squares of a target with negative entries ends at its positive part."""
    target = jnp.asarray([1.0, -2.0, 3.0, -0.5])
    tx = gradtx.chain(gradtx.sgd(0.3), gradtx.keep_params_nonnegative())
    x = jnp.ones(4)
    state = tx.init(x)
    for _ in range(60):
        x, state = tx.step(x - target, state, x)
        assert bool(jnp.all(x >= 0))
    np.testing.assert_allclose(x, jnp.maximum(target, 0), atol=1e-5)


def test_nan_and_complex_pass():
    tx = gradtx.keep_params_nonnegative()
    params = {"r": jnp.asarray([1.0]), "c": jnp.asarray([-1.0 + 1.0j]), "n": None}
    updates = {"r": jnp.asarray([jnp.nan]), "c": jnp.asarray([-3.0 - 5.0j]), "n": None}
    out, _ = tx.update(updates, tx.init(params), params)
    assert np.isnan(out["r"]).all() and out["n"] is None
    np.testing.assert_array_equal(out["c"], updates["c"])
    with pytest.raises(ValueError, match="keep_params_nonnegative needs params"):
        tx.update(updates, tx.init(params))


def test_zero_nans():
    tx = gradtx.zero_nans()
    bad = {
        "a": jnp.asarray([[jnp.nan, 1.0], [jnp.inf, -2.0]]),
        "b": jnp.asarray(3.0),
        "c": jnp.asarray([complex(1.0, np.nan), 2.0j]),
        "h": jnp.asarray([jnp.nan, 1.0], jnp.bfloat16),
        "n": None,
        "i": jnp.arange(2),
    }
    state = tx.init(bad)
    none = {"a": False, "b": False, "c": False, "h": False, "n": None, "i": None}
    assert jax.tree.map(bool, state.found_nan) == none
    out, state = tx.update(bad, state)
    np.testing.assert_array_equal(out["a"], [[0.0, 1.0], [np.inf, -2.0]])
    np.testing.assert_array_equal(out["b"], 3.0)
    np.testing.assert_array_equal(out["c"], [0.0, 2.0j])
    np.testing.assert_array_equal(np.float32(out["h"]), [0.0, 1.0])
    assert out["i"] is bad["i"] and out["h"].dtype == jnp.bfloat16
    assert jax.tree.map(bool, state.found_nan) == none | {"a": True, "c": True, "h": True}
    good = jax.tree.map(jnp.ones_like, bad)
    _, state = tx.update(good, state)
    assert jax.tree.map(bool, state.found_nan) == none
    assert {x.dtype for x in jax.tree.leaves(state)} == {np.dtype(bool)}


def test_a_leaf_without_a_gradient_keeps_its_flag():
    tx = gradtx.zero_nans()
    _, state = tx.update({"a": jnp.asarray(jnp.nan)}, tx.init({"a": jnp.asarray(0.0)}))
    _, state = tx.update({"a": None}, state)
    assert bool(state.found_nan["a"])
