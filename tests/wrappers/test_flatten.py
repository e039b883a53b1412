"""One vector instead of many leaves: the same numbers, in the leaves' own types."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.testing import gradients_like
from tests.oracles import assert_close

PARAMS = {
    "w": np.linspace(-1.0, 1.0, 12).reshape(4, 3),
    "b": np.full(3, 0.5),
    "s": np.asarray(2.0),
    "e": np.zeros((0, 2)),
}
GRADS = [jax.tree.map(np.asarray, gradients_like(PARAMS, seed)) for seed in range(4)]


def run(lib, tx, params=PARAMS):
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for grads in GRADS:
        updates, state = tx.update({k: grads[k] for k in params}, state, params)
        params = lib.apply_updates(params, updates)
    return params, state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["momentum", "norm"])
def test_optax_script(name):
    def make(lib):
        inner = {
            "momentum": lib.sgd(0.1, momentum=0.9),
            "norm": lib.chain(lib.clip_by_global_norm(0.5), lib.add_decayed_weights(0.3)),
        }
        return lib.flatten(inner[name])

    actual, state = run(gradtx, make(gradtx))
    with jax.numpy_dtype_promotion("standard"):
        expected, their_state = run(optax, make(optax))
    for key in PARAMS:
        assert_close(actual[key], expected[key]) if PARAMS[key].size else None
    for ours, theirs in zip(*map(jax.tree.leaves, (state.inner_state, their_state)), strict=True):
        assert_close(ours, theirs)


def test_elementwise_inner_gives_what_it_gives_leaf_by_leaf():
    params, _ = run(gradtx, gradtx.flatten(gradtx.adamw(0.1, weight_decay=0.1)))
    expected, _ = run(gradtx, gradtx.adamw(0.1, weight_decay=0.1))
    for key in PARAMS:
        np.testing.assert_allclose(params[key], expected[key], rtol=1e-6)
        assert params[key].shape == PARAMS[key].shape


def test_mixed_leaves():
    params = {
        "half": jnp.ones(2, jnp.float16),
        "complex": jnp.ones(2, jnp.complex64),
        "single": jnp.ones((1, 2)),
        "python": 1.0,
        "step": 3,
        "none": None,
        "f": jnp.sin,
    }
    grads = params | {"complex": jnp.asarray([1.0j, 2.0 - 1.0j]), "python": 0.5}
    tx = gradtx.flatten(gradtx.sgd(0.5, momentum=0.9))
    state = tx.init(params)
    trace = state.inner_state[0].trace
    assert [(x.shape, x.dtype) for x in trace] == [((5,), jnp.float32), ((2,), jnp.complex64)]
    moved, state = tx.step(grads, state, params)
    np.testing.assert_array_equal(moved["complex"], [1 - 0.5j, 0.5j])
    np.testing.assert_array_equal(moved["half"], 0.5)
    np.testing.assert_array_equal(moved["single"], [[0.5, 0.5]])
    assert moved["half"].dtype == jnp.float16 and float(moved["python"]) == 0.75
    assert moved["step"] == 3 and moved["none"] is None and moved["f"] is jnp.sin


def test_a_missing_gradient_counts_as_zero():
    tx = gradtx.flatten(gradtx.trace(0.5))
    params = {"a": jnp.ones(2), "b": jnp.ones(1)}
    _, state = tx.update({"a": jnp.ones(2), "b": jnp.ones(1)}, tx.init(params), params)
    updates, state = tx.update({"a": None, "b": jnp.ones(1)}, state, params)
    assert updates["a"] is None and updates["b"] == 1.5
    np.testing.assert_array_equal(state.inner_state.trace, [0.5, 0.5, 1.5])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_step_is_an_update_applied(dtype):
    tx = gradtx.flatten(gradtx.adamw(0.1, weight_decay=0.1))
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3).astype(dtype), "b": jnp.ones(3)}
    params |= {"still": jnp.ones(2), "none": None, "step": 3}
    grads = jax.tree.map(lambda x: x, params) | {"still": None}
    state = tx.init(params)
    for _ in range(3):
        updates, expected_state = tx.update(grads, state, params)
        expected = gradtx.apply_updates(params, updates)
        params, state = tx.step(grads, state, params)
        chex.assert_trees_all_equal((params, state), (expected, expected_state))
    np.testing.assert_array_equal(params["still"], 1.0)


def test_a_step_adds_to_the_vector():
    params = [jnp.ones(n) for n in range(1, 41)]
    tx = gradtx.flatten(gradtx.sgd(0.1))
    text = jax.jit(tx.step).lower(params, tx.init(params), params).as_text()
    assert text.count("stablehlo.add") == 1


def test_gradients_of_another_dtype():
    tx = gradtx.flatten(gradtx.adam(0.1))
    params = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}
    grads = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    for given in (params, None):
        updates, state = tx.update(grads, tx.init(params), given)
        assert all(updates[key].dtype == (given or grads)[key].dtype for key in params)
        assert state.inner_state[0].mu.dtype == jnp.float32


def test_fewer_operations():
    params = [jnp.ones(n) for n in range(1, 41)]

    def count(tx):
        text = jax.jit(tx.update).lower(params, tx.init(params), params).as_text()
        return text.count("stablehlo.sqrt")

    assert count(gradtx.flatten(gradtx.adam(0.1))) == 1


def test_the_lookahead_point_is_unflattened():
    inner = gradtx.nesterov_momentum(0.1, 0.9, lookahead=True)
    tx = gradtx.flatten(inner)
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones((1, 2)), "n": 3}
    grads = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones((1, 2)), "n": 3}
    moved, state = tx.step(grads, tx.init(params), params)
    expected = inner.lookahead_point(inner.step(grads, inner.init(params), params)[1], moved)
    point = tx.lookahead_point(state, moved)
    assert point["n"] == 3 and point["a"].dtype == jnp.bfloat16
    np.testing.assert_allclose(point["b"], expected["b"], rtol=1e-6)
    assert point["b"].shape == (1, 2) and (point["b"] != moved["b"]).all()


def test_extra_arguments_and_foreign_inners():
    tx = gradtx.flatten(optax.polyak_sgd())
    params = {"a": jnp.asarray([2.0])}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(params, tx.init(params), params, value=1.0)
    np.testing.assert_allclose(updates["a"], [-0.5])


def test_bad_arguments():
    with pytest.raises(TypeError, match="transformation"):
        gradtx.flatten(0.1)


def test_what_is_inside_is_described():
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(3)}
    labelled = gradtx.groups(
        [(lambda path, leaf: leaf.shape == (7,), gradtx.adam(0.1))], default=gradtx.sgd(0.1)
    )
    description = gradtx.describe(gradtx.flatten(labelled), params)
    assert "adam(learning_rate=0.1" in str(description)
    assert {label for *_, label in description.leaves} == {""}  # the labels are the vector's
