"""gradtx inside Optax, and Optax inside gradtx, with the same numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.testing import check_transformation, gradients_like
from tests.examples import EXAMPLES
from tests.properties.test_laws import EXTRA

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": jnp.ones(3)}
GRADS = gradients_like(PARAMS)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax relies on implicit promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(tx, steps=4, params=PARAMS, update=None, **extra_args):
    state, update = tx.init(params), update or tx.update
    for _ in range(steps):
        updates, state = update(GRADS, state, params, **extra_args)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("name", EXAMPLES)
def test_gradtx_inside_optax(name):
    tx = EXAMPLES[name]
    if tx.required_extra_args:
        extra = {name: {**EXTRA, "grad": GRADS}[name] for name in tx.required_extra_args}
        # Optax's combinators pass extra arguments on to instances of this class alone.
        tx = optax.GradientTransformationExtraArgs(tx.init, tx.update)
        plain = run(tx, **extra)
        chex.assert_trees_all_close(run(optax.chain(tx), **extra), plain)
        masked = optax.masked(tx, {"w": True, "b": True})
        chex.assert_trees_all_close(run(masked, **extra), plain)
        return
    plain = run(tx)
    chex.assert_trees_all_close(run(optax.chain(tx)), plain)
    chex.assert_trees_all_close(run(optax.chain(tx, optax.identity())), plain)
    chex.assert_trees_all_close(run(optax.named_chain(("tx", tx))), plain)
    chex.assert_trees_all_close(run(optax.masked(tx, {"w": True, "b": True})), plain)
    steps = optax.MultiSteps(tx, 2)
    # Compiled: its `cond` would be compiled anew at every eager step.
    accumulated = run(steps, steps=8, update=jax.jit(steps.update))
    chex.assert_trees_all_close(accumulated, plain, rtol=1e-5, atol=1e-6)
    partition = optax.partition({"all": tx}, {"w": "all", "b": "all"})
    chex.assert_trees_all_close(run(partition), plain)


@pytest.mark.parametrize(
    "theirs, ours",
    [
        (optax.adam(1e-2), gradtx.adam(1e-2)),
        (optax.sgd(1e-2, momentum=0.9), gradtx.sgd(1e-2, momentum=0.9)),
        (optax.adamw(1e-2), gradtx.adamw(1e-2)),
    ],
    ids=["adam", "sgd", "adamw"],
)
def test_optax_inside_gradtx(theirs, ours):
    expected = run(ours)
    for tx in (
        gradtx.chain(theirs),
        gradtx.chain(gradtx.identity(), theirs),
        gradtx.named_chain(("theirs", theirs)),
        gradtx.masked(theirs, {"w": True, "b": True}),
        gradtx.with_extra_args_support(theirs),
        gradtx.GradientTransformation(*theirs),
        gradtx.chain(optax.chain(gradtx.chain(theirs))),
    ):
        chex.assert_trees_all_close(run(tx), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("theirs", [optax.adam(1e-2), optax.lion(1e-2)], ids=["adam", "lion"])
def test_optax_gains_the_laws(theirs):
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), theirs)
    params = {"w": jnp.ones((8, 2)), "half": jnp.ones(4, jnp.bfloat16)}
    laws = ["has_a_type_fixed_point", "is_the_same_under_jit", "scans", "never_aliases", "shards"]
    check_transformation(tx, params, laws=laws)


def test_optax_state_in_bfloat16_is_float32_inside_gradtx():
    tx = gradtx.chain(optax.adam(1e-3))
    params = jnp.ones(3, jnp.bfloat16)
    state = tx.init(params)
    assert {x.dtype for x in jax.tree.leaves(state)} == {np.dtype("int32"), np.dtype("float32")}
    updates, _ = tx.update(jnp.ones(3, jnp.bfloat16), state, params)
    assert updates.dtype == jnp.bfloat16


def test_inject_hyperparams():
    tx = optax.inject_hyperparams(gradtx.adam)(learning_rate=1e-2)
    chex.assert_trees_all_close(run(tx), run(gradtx.adam(1e-2)), rtol=1e-5)


def test_tree_get():
    tx = gradtx.adam(optax.constant_schedule(1e-2))
    state = tx.init(PARAMS)
    assert optax.tree.get(gradtx.adam(1e-2).init(PARAMS), "count") == 0
    chex.assert_trees_all_equal(optax.tree.get(state, "mu"), jax.tree.map(jnp.zeros_like, PARAMS))


def test_extra_args_reach_the_stages_that_take_them():
    seen = {}

    def update(updates, state, params=None, *, value):
        seen["value"] = value
        return updates, state

    probe = gradtx.GradientTransformation(lambda params: (), update)
    tx = gradtx.chain(gradtx.adam(1e-2), gradtx.masked(probe, True), optax.sgd(1.0))
    tx.update(GRADS, tx.init(PARAMS), PARAMS, value=3.0, other=4.0)
    assert seen == {"value": 3.0}
    polyak = gradtx.chain(gradtx.scale(1.0), optax.polyak_sgd())
    updates, _ = polyak.update(GRADS, polyak.init(PARAMS), PARAMS, value=1.0)
    theirs, _ = optax.polyak_sgd().update(GRADS, optax.polyak_sgd().init(PARAMS), PARAMS, value=1.0)
    chex.assert_trees_all_close(updates, theirs)


def test_extra_args_inside_an_optax_combinator_need_optax_s_own_type():
    """Optax drops extra args for what is not an instance of its class; see docs/differences.md."""
    plateau = gradtx.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    tx = optax.chain(optax.GradientTransformationExtraArgs(*plateau))
    tx.update(GRADS, tx.init(PARAMS), PARAMS, value=1.0)
    with pytest.raises(TypeError, match="value"):
        optax.chain(plateau).update(GRADS, tx.init(PARAMS), PARAMS, value=1.0)
