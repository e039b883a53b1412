import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {
    "body": {"w": jnp.asarray([[1.0, -0.0], [2.0, 3.0]])},
    "head": {"w": jnp.asarray([0.5, -0.0])},
}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)


def bits(x):
    return np.asarray(x).view(np.uint32)


@pytest.mark.parametrize(
    "pattern",
    ["^body", lambda path, leaf: leaf.ndim > 1, {"body": True, "head": False}],
    ids=["regex", "predicate", "mask"],
)
def test_frozen_leaves_keep_every_bit_and_hold_no_state(pattern):
    optimizer = gradtx.chain(gradtx.trace(0.9), gradtx.adamw(0.1, weight_decay=0.5))
    tx = gradtx.freeze(optimizer, pattern)
    params, state = PARAMS, tx.init(PARAMS)
    assert gradtx.freeze(optimizer, pattern) == tx
    size = sum(x.size for x in jax.tree.leaves(state))
    assert size == sum(x.size for x in jax.tree.leaves(optimizer.init(PARAMS["head"])))
    step = jax.jit(tx.step)
    for _ in range(100):
        params, state = step(GRADS, state, params)
    np.testing.assert_array_equal(bits(params["body"]["w"]), bits(PARAMS["body"]["w"]))
    alone, alone_state = PARAMS["head"], optimizer.init(PARAMS["head"])
    step = jax.jit(optimizer.step)
    for _ in range(100):
        alone, alone_state = step(GRADS["head"], alone_state, alone)
    np.testing.assert_allclose(params["head"]["w"], alone["w"], rtol=1e-6)


def test_update_and_optaxs_apply_updates_keep_every_bit():
    tx = gradtx.freeze(gradtx.sgd(0.1), "body")
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    moved = optax.apply_updates(PARAMS, updates)
    np.testing.assert_array_equal(bits(moved["body"]["w"]), bits(PARAMS["body"]["w"]))


def test_frozen_leaves_need_no_gradient():
    tx = gradtx.freeze(gradtx.adamw(0.1), "body")
    params, _ = tx.step({**GRADS, "body": {"w": None}}, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(params["body"]["w"], PARAMS["body"]["w"])


@pytest.mark.parametrize("mask", [{"body": True, "head": False}, True, False, jnp.asarray(True)])
def test_a_mask_alone_is_optaxs(mask):
    ours, theirs = gradtx.freeze(mask), optax.freeze(mask)
    updates, state = ours.update(GRADS, ours.init(PARAMS), PARAMS)
    expected, their_state = theirs.update(GRADS, theirs.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, updates, expected)
    assert str(state) == str(their_state)


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
def test_selective_transform_is_optaxs():
    mask = {"body": True, "head": False}
    results = []
    for library in (gradtx, optax):
        tx = library.selective_transform(library.adam(0.1), freeze_mask=mask)
        updates, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
        results.append((updates, state))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), results[0][0], results[1][0]
    )
    assert len(jax.tree.leaves(results[0][1])) == len(jax.tree.leaves(results[1][1]))
    assert list(results[0][1].inner_states) == ["train", "freeze"]


def test_errors():
    with pytest.raises(TypeError, match="needs a pattern"):
        gradtx.freeze(gradtx.sgd(0.1))
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.freeze({"a": True}, "a")
    with pytest.raises(ValueError, match="'nothing' fits no leaf"):
        gradtx.freeze(gradtx.sgd(0.1), "nothing").init(PARAMS)
    with pytest.raises(ValueError, match="no regular expression"):
        gradtx.freeze(gradtx.sgd(0.1), "(")
    with pytest.raises(TypeError, match="must be a boolean"):
        gradtx.freeze(gradtx.sgd(0.1), {"a": 1.0})
    with pytest.raises(TypeError, match="must be a boolean"):
        gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask={"a": 1})
