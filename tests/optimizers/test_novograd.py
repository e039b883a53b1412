"""NovoGrad as in Ginsburg et al.'s Algorithm 1."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, assert_close, constant, decays, epsilons, falling, few, never
from tests.trees import TreeProblem, check_tree, check_tree_forms, loop, trees


def novograd(lr, b1=0.9, b2=0.25, eps=1e-6, decay=never, eps_root=0.0):
    def rule(t, g, x, s):
        square = np.linalg.norm(g) ** 2
        s["v"] = square if t == 1 else b2 * s["v"] + (1 - b2) * square
        d = g / (np.sqrt(s["v"] + eps_root) + eps) + decay(t - 1) * x
        s["m"] = d if t == 1 else b1 * s["m"] + d
        return x - lr(t - 1) * s["m"]

    return rule


@few
@given(
    problem=trees,
    lr=st.floats(1e-3, 0.1),
    b1=decays,
    b2=decays,
    eps=epsilons,
    eps_root=epsilons,
    decay=st.floats(0.0, 0.1),
)
def test_novograd(problem, lr, b1, b2, eps, eps_root, decay):
    expected = loop(problem, novograd(constant(lr), b1, b2, eps, constant(decay), eps_root))
    check_tree(gradtx.novograd(lr, b1, b2, eps, eps_root, decay), problem, expected)


def test_defaults():
    problem = TreeProblem()
    check_tree(gradtx.novograd(0.01), problem, loop(problem, novograd(constant(0.01))))
    problem = TreeProblem()
    tx = gradtx.chain(gradtx.scale_by_novograd(), gradtx.scale(-0.01))
    check_tree(tx, problem, loop(problem, novograd(constant(0.01), eps=1e-8)))


def test_scheduled():
    problem = TreeProblem()
    schedule = gradtx.linear_schedule
    tx = gradtx.novograd(schedule(0.1, 0.0, STEPS), weight_decay=schedule(0.1, 0.0, STEPS))
    check_tree(tx, problem, loop(problem, novograd(falling(0.1), decay=falling(0.1))))


def test_a_gradient_of_zeros_at_first():
    """The mean starts with the first squared norm, even 0, and not with the first that is not."""
    tx, x = gradtx.scale_by_novograd(b1=0.0, b2=0.75), jnp.ones(1)
    u, state = tx.update(jnp.zeros(1), tx.init(x), x)
    assert_close(u, [0.0])
    u, state = tx.update(jnp.full(1, 3.0), state, x)
    assert_close(u, [2.0], 1e-6)
    assert_close(state.nu, 2.25)


def test_state():
    params = {
        "half": jnp.ones((2, 3), jnp.bfloat16),
        "complex": jnp.ones(2, jnp.complex64),
        "scalar": jnp.float32(1.0),
        "none": None,
    }
    state = gradtx.scale_by_novograd(mu_dtype="bfloat16").init(params)
    assert {k: None if v is None else (v.shape, v.dtype) for k, v in state.nu.items()} == {
        "half": ((), jnp.float32),
        "complex": ((), jnp.float32),
        "scalar": ((), jnp.float32),
        "none": None,
    }
    assert state.mu["half"].dtype == jnp.bfloat16 and state.mu["complex"].dtype == jnp.complex64
    assert gradtx.scale_by_novograd().init(params).mu["half"].dtype == jnp.float32
    grads = jax.tree.map(jnp.ones_like, params)
    tx = gradtx.scale_by_novograd()
    u, state = tx.update(grads, tx.init(params), params)
    assert_close(state.nu["half"], 6.0, 1e-6)
    assert_close(np.float32(u["half"]), np.full((2, 3), 6**-0.5), 1e-2)


def test_params_are_needed():
    with pytest.raises(ValueError, match="scale_by_novograd needs params"):
        tx = gradtx.novograd(0.1)
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


def test_single_precision_and_complex():
    check_tree_forms(gradtx.novograd(0.01), lambda: novograd(constant(0.01)))
