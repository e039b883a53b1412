"""Layer-wise distance over gradients against the paper, and against Optax where that is right."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

import gradtx
from gradtx.testing import gradients_like
from tests.oracles import assert_close, few
from tests.trees import TreeProblem, check_tree, check_tree_forms, loop, trees


def ldog(reps_rel, eps):
    """Equation 5 of the paper, with its initial distance and its eps, on one leaf."""

    def rule(t, g, x, s):
        if t == 1:
            s["start"], s["sum"] = x, 0.0
            s["distance"] = reps_rel * (1 + np.linalg.norm(x))
        s["distance"] = max(s["distance"], np.linalg.norm(x - s["start"]))
        s["sum"] += np.sum(np.abs(g) ** 2)
        return x - s["distance"] / np.sqrt(s["sum"] + eps) * g

    return rule


@few
@given(
    problem=trees,
    reps_rel=st.sampled_from([1e-6, 1e-4, 0.1]),
    eps=st.sampled_from([1e-8, 1.0]),
)
def test_trajectory(problem, reps_rel, eps):
    tx = gradtx.chain(gradtx.scale_by_distance_over_gradients(reps_rel, eps), gradtx.scale(-1.0))
    check_tree(tx, problem, loop(problem, ldog(reps_rel, eps)))


def test_single_precision_and_complex():
    tx = gradtx.scale_by_distance_over_gradients(0.1, global_scale=-1.0)
    check_tree_forms(tx, lambda: ldog(0.1, 1e-8), rtol=1e-4)


def test_optax_script():
    problem = TreeProblem()
    x0 = jax.tree.map(jnp.float32, problem.x0)
    runs = []
    for lib in (gradtx, optax):
        tx = lib.scale_by_distance_over_gradients(0.01, 0.1, jnp.float32, -1.0)
        params, state = x0, tx.init(x0)
        for seed in range(5):
            grads = gradients_like(x0, seed)
            with jax.numpy_rank_promotion("allow"):
                updates, state = tx.update(grads, state, params)
            params = lib.apply_updates(params, updates)
        runs.append((params, state))
    (ours, our_state), (theirs, their_state) = runs
    for key in x0:
        assert_close(ours[key], theirs[key], 1e-6)
        assert our_state.max_dist[key].shape == our_state.grad_sum_of_squares[key].shape == ()
    assert our_state._fields == their_state._fields
    for actual, expected in zip(*map(jax.tree.leaves, (our_state, their_state)), strict=True):
        np.testing.assert_allclose(actual, np.reshape(expected, actual.shape), rtol=1e-5)


def test_a_scalar_parameter_keeps_its_shape():
    tx = gradtx.scale_by_distance_over_gradients()
    assert tx.update(1.0, tx.init(1.0), 1.0)[0].shape == ()


def test_sums_of_low_precision_gradients_do_not_stall():
    tx = gradtx.scale_by_distance_over_gradients()
    params = jnp.ones(4, jnp.bfloat16)
    state = tx.init(params)
    assert {x.dtype for x in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    for _ in range(1000):
        _, state = tx.update(params, state, params)
    np.testing.assert_allclose(state.grad_sum_of_squares, 4000.0)


def test_the_start_is_a_copy_in_its_own_dtype():
    params = jnp.ones(4)
    for dtype in (None, "float32", "bfloat16"):
        start = gradtx.scale_by_distance_over_gradients(param_dtype=dtype).init(params).init_params
        assert start.dtype == (dtype or "float32")
        assert start.unsafe_buffer_pointer() != params.unsafe_buffer_pointer()


def test_params_are_needed():
    tx = gradtx.scale_by_distance_over_gradients()
    with pytest.raises(ValueError, match="needs params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
