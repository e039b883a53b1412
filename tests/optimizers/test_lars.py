"""LARS as in You, Gitman & Ginsburg's Algorithm 1, the norm being of the decayed gradient."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, assert_close, constant, descend, falling, few, rates
from tests.trees import TreeProblem, check_tree, check_tree_forms, loop, trees


def lars(lr, decay=0.0, eta=0.001, eps=0.0, rho=0.9, nesterov=False, decayed=True, ratio=True):
    def rule(t, g, x, s):
        u = g + decay * x if decayed else g
        sizes = np.linalg.norm(x), np.linalg.norm(u)
        local = eta * sizes[0] / (sizes[1] + eps) if ratio and all(sizes) else 1.0
        step = -lr(t - 1) * local * u
        s["v"] = rho * s.get("v", 0.0) + step
        return x + (rho * s["v"] + step if nesterov else s["v"])

    return rule


@few
@given(
    problem=trees,
    lr=rates,
    decay=st.floats(0.0, 0.5),
    eta=st.floats(0.01, 1.0),
    eps=st.sampled_from([0.0, 1e-3, 0.5]),
    rho=st.floats(0.0, 0.95),
    nesterov=st.booleans(),
)
def test_lars(problem, lr, decay, eta, eps, rho, nesterov):
    expected = loop(problem, lars(constant(lr), decay, eta, eps, rho, nesterov))
    tx = gradtx.lars(lr, decay, trust_coefficient=eta, eps=eps, momentum=rho, nesterov=nesterov)
    check_tree(tx, problem, expected)


def test_defaults():
    problem = TreeProblem()
    check_tree(gradtx.lars(1.0), problem, loop(problem, lars(constant(1.0))))


def test_the_rate_is_inside_the_momentum():
    problem = TreeProblem()
    tx = gradtx.lars(gradtx.linear_schedule(1.0, 0.0, STEPS))
    check_tree(tx, problem, loop(problem, lars(falling(1.0))))


@pytest.mark.parametrize("which", ["weight_decay_mask", "trust_ratio_mask"])
def test_masks(which):
    problem = TreeProblem()
    key = "decayed" if which == "weight_decay_mask" else "ratio"
    rules = {k: lars(constant(0.01), 0.3, 0.5, **{key: k == "w"}) for k in problem.x0}
    expected = loop(problem, lambda t, g, x, s: rules["w" if x.ndim > 1 else "b"](t, g, x, s))
    mask = {"w": True, "b": False}
    tx = gradtx.lars(0.01, 0.3, trust_coefficient=0.5, **{which: mask})
    check_tree(tx, problem, expected)


def test_without_decay_it_is_the_papers_and_with_decay_it_is_not():
    """The paper divides by |g| + weight_decay |x|, Optax and we by |g + weight_decay x|."""

    def paper(decay):
        def rule(t, g, x, s):
            local = 0.1 * np.linalg.norm(x) / (np.linalg.norm(g) + decay * np.linalg.norm(x))
            s["v"] = 0.9 * s.get("v", 0.0) + 0.1 * local * (g + decay * x)
            return x - s["v"]

        return rule

    problem = TreeProblem()
    expected = loop(problem, paper(0.0))
    check_tree(gradtx.lars(0.1, trust_coefficient=0.1), problem, expected)
    problem = TreeProblem()
    expected = loop(problem, paper(0.5))
    tx = gradtx.lars(0.1, 0.5, trust_coefficient=0.1)
    with pytest.raises(AssertionError):
        check_tree(tx, problem, expected)


def test_a_leaf_of_zeros_has_ratio_one():
    x = descend(gradtx.lars(0.1), {"b": np.zeros(2, np.float32)}, {"b": np.float32([[1.0, 2.0]])})
    assert_close(x["b"], [[-0.1, -0.2]], 1e-6)


def test_single_precision_and_complex():
    tx = gradtx.lars(0.1, 0.1, trust_coefficient=0.1)
    check_tree_forms(tx, lambda: lars(constant(0.1), 0.1, 0.1))
