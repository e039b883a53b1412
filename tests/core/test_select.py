import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
GRADS = {"w": jnp.full((2, 2), 0.5), "b": jnp.full(2, 0.5)}


def matrices(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, matrices], ids=["tree", "function"])
@pytest.mark.parametrize("params", [PARAMS, None], ids=["params", "no params"])
def test_selected_leaves_are_transformed_and_others_pass(mask, params):
    tx = gradtx.masked(gradtx.scale_by_adam(), mask)
    state = tx.init(PARAMS)
    updates, new_state = tx.update(GRADS, state, params)
    alone = gradtx.scale_by_adam()
    expected, _ = alone.update({"w": GRADS["w"]}, alone.init({"w": PARAMS["w"]}))
    chex.assert_trees_all_equal(updates, {"w": expected["w"], "b": GRADS["b"]})
    assert new_state.inner_state.mu["b"] == gradtx.MaskedNode()
    assert jax.tree.structure(new_state) == jax.tree.structure(state)


def test_prefix_masks():
    params = {"layer": PARAMS, "head": jnp.ones(2)}
    tx = gradtx.masked(gradtx.set_to_zero(), {"layer": True, "head": False})
    updates, _ = tx.update(params, tx.init(params))
    assert not jnp.any(updates["layer"]["w"]) and jnp.all(updates["head"] == 1)
    everything = gradtx.masked(gradtx.set_to_zero(), True)
    assert not jnp.any(everything.update(params, everything.init(params))[0]["head"])


def test_a_function_is_given_the_parameters():
    def by_value(params):
        return jax.tree.map(lambda x: bool(x.sum() > 3), params)

    tx = gradtx.masked(gradtx.set_to_zero(), by_value)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    state = tx.init(PARAMS)
    updates, _ = tx.update(jax.tree.map(lambda z: z + 1, zeros), state, PARAMS)
    assert not jnp.any(updates["w"]) and jnp.all(updates["b"] == 1)


def test_extra_args_are_masked_on_demand():
    seen = []

    def update(updates, state, params=None, **extra_args):
        seen.append(extra_args["tags"])
        return updates, state

    probe = gradtx.GradientTransformation(lambda params: (), update)
    mask = {"w": True, "b": False}
    for compatible in (False, True):
        tx = gradtx.masked(probe, mask, mask_compatible_extra_args=compatible)
        tx.update(GRADS, tx.init(PARAMS), PARAMS, tags=PARAMS)
    assert seen[0] is PARAMS
    assert seen[1] == {"w": PARAMS["w"], "b": gradtx.MaskedNode()}


def test_lookahead_point_of_selected_leaves():
    tx = gradtx.masked(gradtx.nesterov_momentum(0.1, 0.9, lookahead=True), {"w": True, "b": False})
    state = tx.init(PARAMS)
    params, state = tx.step(GRADS, state, PARAMS)
    point = tx.lookahead_point(state, params)
    chex.assert_trees_all_close(point["w"], params["w"] - 0.9 * 0.1 * 0.5)
    chex.assert_trees_all_equal(point["b"], params["b"])


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(TypeError, match=r"mask\['w'\] must be a boolean, got 1"):
        gradtx.masked(gradtx.adam(0.1), {"w": 1, "b": False})
    tx = gradtx.masked(gradtx.adam(0.1), lambda params: params)
    with pytest.raises(TypeError, match=r"mask\['b'\] must be a boolean"):
        tx.init(PARAMS)
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.masked(0.1, True)


def test_masks_are_normalised():
    plain = gradtx.masked(gradtx.adam(0.1), {"w": True})
    assert plain == gradtx.masked(gradtx.adam(0.1), {"w": jnp.array(True)})
    assert plain == gradtx.masked(gradtx.adam(0.1), {"w": np.True_})
    with pytest.raises(TypeError, match=r"mask\['w'\] must be a boolean"):
        gradtx.masked(gradtx.adam(0.1), {"w": np.array([True, False])})


def test_a_mask_of_another_structure_is_refused():
    tx = gradtx.masked(gradtx.adam(0.1), {"v": True})
    with pytest.raises(ValueError, match="the mask must have the structure of the parameters"):
        tx.init(PARAMS)


def test_a_partial_is_a_function():
    tx = gradtx.masked(gradtx.set_to_zero(), jax.tree_util.Partial(matrices))
    assert jnp.all(tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["b"] == 0.5)


def test_optax_tree_map_params():
    tx = gradtx.masked(gradtx.adam(0.1), {"w": True, "b": False})
    doubled = optax.tree_map_params(tx, lambda x: 2 * x, tx.init(PARAMS))
    assert jax.tree.structure(doubled) == jax.tree.structure(tx.init(PARAMS))
