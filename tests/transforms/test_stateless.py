"""Stages that remember nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

UPDATES = {"a": jnp.asarray([1.0, -2.0]), "b": None, "c": 3}


def test_identity():
    tx = gradtx.identity()
    assert tx.init(UPDATES) == gradtx.EmptyState()
    out, state = tx.update(UPDATES, tx.init(UPDATES))
    assert state == gradtx.EmptyState()
    np.testing.assert_array_equal(out["a"], UPDATES["a"])
    assert (out["b"], out["c"]) == (None, 3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_set_to_zero(dtype):
    tx = gradtx.set_to_zero()
    out, state = tx.update(jnp.ones(3, dtype), tx.init(None))
    assert (out.dtype, state) == (dtype, gradtx.EmptyState())
    np.testing.assert_array_equal(out, np.zeros(3))
    nonfinite, _ = tx.update(jnp.asarray([np.nan, np.inf]), gradtx.EmptyState())
    np.testing.assert_array_equal(nonfinite, 0.0)


def test_stateless():
    def toward_zero(updates, params):
        assert jax.tree.leaves(updates)[0].dtype == jnp.float32
        return jax.tree.map(lambda u, p: u - p, updates, params)

    tx = gradtx.stateless(toward_zero)
    u, p = jnp.ones(2, jnp.bfloat16), jnp.full(2, 3.0, jnp.bfloat16)
    out, state = tx.update(u, tx.init(p), p)
    np.testing.assert_array_equal(np.float32(out), -2.0)
    assert (out.dtype, state) == (jnp.bfloat16, gradtx.EmptyState())
    without = gradtx.stateless(lambda u, p: u if p is None else None)
    np.testing.assert_array_equal(without.update(p, without.init(p))[0], p)


def test_stateless_compares_by_function():
    assert gradtx.stateless(max) == gradtx.stateless(max) != gradtx.stateless(min)


def test_stateless_sees_none_for_leaves_that_are_not_optimised():
    def negated(updates, params):
        assert updates["n"] is None and params["n"] is None
        return jax.tree.map(jnp.negative, updates)

    tx = gradtx.stateless(negated)
    tree = {"a": jnp.ones(2), "n": 3}
    out, _ = tx.update(tree, tx.init(tree), tree)
    np.testing.assert_array_equal(out["a"], -1.0)
    assert out["n"] == 3


def test_stateless_with_tree_map():
    def toward_zero(u, p):
        assert u.dtype == p.dtype == jnp.float32
        return u - p

    tx = gradtx.stateless_with_tree_map(toward_zero)
    u = {"a": jnp.ones(2, jnp.bfloat16), "b": None, "c": 3, "d": None}
    p = {"a": jnp.full(2, 3.0, jnp.bfloat16), "b": jnp.ones(2), "c": 5, "d": None}
    out, state = tx.update(u, tx.init(p), p)
    np.testing.assert_array_equal(np.float32(out["a"]), -2.0)
    assert (out["a"].dtype, state) == (jnp.bfloat16, gradtx.EmptyState())
    assert (out["b"], out["c"], out["d"]) == (None, 3, None)
    without = gradtx.stateless_with_tree_map(lambda u, p: -u if p is None else None)
    np.testing.assert_array_equal(np.float32(without.update(u, state)[0]["a"]), -1.0)
    with pytest.raises(ValueError, match=r"updates\['a'\] has shape"):
        tx.update({"a": jnp.ones(3)}, state, {"a": jnp.ones(2)})
