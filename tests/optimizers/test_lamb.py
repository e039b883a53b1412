"""LAMB as in You et al.'s Algorithm 2, with phi the identity: every norm is of one leaf."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

import gradtx
from tests.oracles import STEPS, constant, decays, epsilons, falling, few, never, rates
from tests.trees import TreeProblem, check_tree, check_tree_forms, loop, trees


def lamb(lr, b1=0.9, b2=0.999, eps=1e-6, decay=never, eps_root=0.0):
    def rule(t, g, x, s):
        s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * abs(g) ** 2
        r = s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t) + eps_root) + eps)
        u = r + decay(t - 1) * x
        sizes = np.linalg.norm(x), np.linalg.norm(u)
        return x - lr(t - 1) * u * (sizes[0] / sizes[1] if all(sizes) else 1.0)

    return rule


@few
@given(problem=trees, lr=rates, b1=decays, b2=decays, eps=epsilons, decay=st.floats(0.0, 0.5))
def test_lamb(problem, lr, b1, b2, eps, decay):
    expected = loop(problem, lamb(constant(lr), b1, b2, eps, constant(decay)))
    check_tree(gradtx.lamb(lr, b1, b2, eps, weight_decay=decay), problem, expected)


def test_defaults():
    problem = TreeProblem()
    check_tree(gradtx.lamb(0.01), problem, loop(problem, lamb(constant(0.01))))


def test_eps_root_is_inside_the_root():
    problem = TreeProblem()
    expected = loop(problem, lamb(constant(0.01), eps=0.1, eps_root=0.3))
    check_tree(gradtx.lamb(0.01, eps=0.1, eps_root=0.3), problem, expected)


def test_schedules_and_mask():
    problem = TreeProblem()
    expected = loop(problem, lamb(falling(0.05), decay=falling(0.3)))
    schedule = gradtx.linear_schedule
    tx = gradtx.lamb(schedule(0.05, 0.0, STEPS), weight_decay=schedule(0.3, 0.0, STEPS))
    check_tree(tx, problem, expected)
    problem = TreeProblem()
    decayed, plain = lamb(constant(0.05), decay=constant(0.3)), lamb(constant(0.05))
    expected = loop(
        problem, lambda t, g, x, s: decayed(t, g, x, s) if x.ndim > 1 else plain(t, g, x, s)
    )
    tx = gradtx.lamb(0.05, weight_decay=0.3, mask={"w": True, "b": False})
    check_tree(tx, problem, expected)


def test_a_leaf_of_zeros_moves_as_with_adam():
    problem = TreeProblem()
    problem.x0["b"] = np.zeros(5)
    check_tree(gradtx.lamb(0.01), problem, loop(problem, lamb(constant(0.01))))


def test_single_precision_and_complex():
    check_tree_forms(gradtx.lamb(0.01), lambda: lamb(constant(0.01)))
