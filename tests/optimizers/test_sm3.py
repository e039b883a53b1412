"""SM3-II as in Anil et al., with momentum: a parameter is covered by one set along each axis."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, assert_close, constant, decays, epsilons, falling, few, rates
from tests.trees import TreeProblem, check_tree, check_tree_forms, loop

SHAPES = {"a": (), "b": (4,), "c": (3, 4), "d": (2, 3, 2)}


def sm3(lr, b1=0.9, b2=1.0, eps=1e-8):
    def rule(t, g, x, s):
        """Entry by entry over the cover: the paper's two loops."""
        cover = [(axis, i) for axis in range(g.ndim) for i in range(g.shape[axis])] or [()]
        old = s.get("mu", dict.fromkeys(cover, 0.0))
        new = dict.fromkeys(cover, 0.0)
        u = np.zeros_like(g)
        for place in np.ndindex(g.shape):
            sets = list(enumerate(place)) or [()]
            square = abs(g[place]) ** 2 * (1.0 if b2 == 1 else 1 - b2)
            nu = b2 * min(old[r] for r in sets) + square
            u[place] = g[place] / np.sqrt(nu + eps) if nu > 0 else 0.0
            for r in sets:
                new[r] = max(new[r], nu)
        s["mu"] = new
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * u
        return x - lr(t - 1) * s["m"]

    return rule


few_trees = st.builds(TreeProblem, seed=st.integers(0, 10**6), shapes=st.just(SHAPES))


@few
@given(problem=few_trees, lr=rates, b1=decays)
def test_sm3(problem, lr, b1):
    check_tree(gradtx.sm3(lr, b1), problem, loop(problem, sm3(constant(lr), b1)))


@few
@given(problem=few_trees, b1=decays, b2=st.sampled_from([0.0, 0.5, 0.99, 1.0]), eps=epsilons)
def test_stage(problem, b1, b2, eps):
    tx = gradtx.chain(gradtx.scale_by_sm3(b1, b2, eps), gradtx.scale(-0.1))
    check_tree(tx, problem, loop(problem, sm3(constant(0.1), b1, b2, eps)))


def test_defaults_and_a_schedule():
    for tx in (gradtx.sm3(0.1), gradtx.chain(gradtx.scale_by_sm3(), gradtx.scale(-0.1))):
        problem = TreeProblem(shapes=SHAPES)
        check_tree(tx, problem, loop(problem, sm3(constant(0.1))))
    problem = TreeProblem(shapes=SHAPES)
    tx = gradtx.sm3(gradtx.linear_schedule(0.1, 0.0, STEPS))
    check_tree(tx, problem, loop(problem, sm3(falling(0.1))))


def test_state_is_a_vector_for_each_axis():
    params = {k: jnp.ones(shape, jnp.complex64) for k, shape in SHAPES.items()}
    state = gradtx.scale_by_sm3().init(params | {"half": jnp.ones((2, 0), jnp.bfloat16)})
    assert {k: [v.shape for v in vectors] for k, vectors in state.mu.items()} == {
        "a": [()],
        "b": [(4,)],
        "c": [(3,), (4,)],
        "d": [(2,), (3,), (2,)],
        "half": [(2,), (0,)],
    }
    assert {v.dtype for v in jax.tree.leaves(state.mu)} == {np.dtype("float32")}
    assert state.nu["c"].dtype == jnp.complex64 and state.nu["half"].dtype == jnp.float32


def test_a_scalar_is_accumulated_as_by_adagrad():
    tx, x = gradtx.scale_by_sm3(b1=0.0, eps=0.0), jnp.float32(1.0)
    state = tx.init(x)
    for expected in (1.0, 2**-0.5, 3**-0.5):
        u, state = tx.update(jnp.float32(2.0), state)
        assert_close(u, expected, 1e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_no_gradient_no_step(eps):
    tx, x = gradtx.scale_by_sm3(b1=0.0, eps=eps), jnp.ones((2, 2))
    u, state = tx.update(jnp.asarray([[0.0, 0.0], [0.0, 3.0]]), tx.init(x))
    assert_close(u, [[0.0, 0.0], [0.0, 1.0]], 1e-6)
    np.testing.assert_array_equal(state.mu[0], [0.0, 9.0])


def test_single_precision_and_complex():
    check_tree_forms(gradtx.sm3(0.1), lambda: sm3(constant(0.1)))
