"""A transformation that is run or not."""

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.core.transformation import as_transformation
from gradtx.wrappers.branch import as_before, checked_flag, cond, step_if, transform_if, unchanged
from tests.wrappers.common import assert_close, assert_same, tree

TX = as_transformation(gradtx.sgd(0.1, 0.9))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("runs", [True, False])
def test_both_ways(compiled, runs):
    params, g = tree(0), tree(1)
    state = TX.init(params)

    def both(runs):
        return (
            transform_if(runs, TX, g, state, params, {}),
            transform_if(runs, TX, g, state, params, {}, unchanged),
            step_if(runs, TX, g, state, params, {}),
            step_if(runs, TX, g, state, params, {}, unchanged),
        )

    zeroed, passed, stepped, added = (jax.jit(both) if compiled else both)(jnp.array(runs))
    if runs:
        assert_close(zeroed, TX.update(g, state, params))
        assert_close(passed, zeroed)
        assert_close(stepped, TX.step(g, state, params))
        assert_close(added, stepped)
    else:
        assert_same(zeroed, (jax.tree.map(jnp.zeros_like, g), state))
        assert_same(passed, (g, state))
        assert_same(stepped, (params, state))
        assert_close(added, (gradtx.apply_updates(params, g), state))


def test_a_known_flag_compiles_nothing():
    def refused():
        raise AssertionError

    assert cond(jnp.array(True), lambda: 1, refused) == 1
    assert cond(False, refused, lambda: 2) == 2


def test_dtypes_of_a_foreign_state_are_kept():
    old = (jnp.ones(2, jnp.bfloat16), jax.random.key(0), 3)
    new = as_before(old, (jnp.ones(2), jax.random.key(1), 4))
    assert new[0].dtype == jnp.bfloat16 and new[1] == jax.random.key(1) and new[2] == 4

    def update(updates, state, params=None):
        return updates, state.astype(jnp.float32) + 1

    tx = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.bfloat16), update)
    for wrapped in (
        gradtx.accumulate(tx, 2),
        gradtx.skip_nonfinite(tx),
        gradtx.conditionally_mask(tx, lambda step: step > 0),
    ):
        state = jax.jit(wrapped.step)(jnp.ones(2), wrapped.init(jnp.ones(2)), jnp.ones(2))[1]
        assert jnp.bfloat16 in [x.dtype for x in jax.tree.leaves(state)]


def test_flags():
    assert checked_flag("f", True) and not checked_flag("f", jnp.array(False))
    for answer in (1, jnp.ones(()), jnp.ones(1, bool)):
        with pytest.raises(ValueError, match="f must return one boolean"):
            checked_flag("f", answer)
