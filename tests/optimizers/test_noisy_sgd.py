"""Noisy gradient descent as in Neelakantan et al.: the noise is that of `add_noise`."""

import hypothesis.strategies as st
import jax
import numpy as np
from hypothesis import given

import gradtx
from tests.oracles import STEPS, constant, falling, few, rates
from tests.transforms.test_noise import draws
from tests.trees import TreeProblem, check_tree, loop, trees


def noisy(problem, lr, eta=0.01, gamma=0.55, key=0):
    noise = draws(problem.x0, key)
    names = {x.shape: k for k, x in problem.x0.items()}

    def rule(t, g, x, s):
        n = noise[names[x.shape]][t - 1]
        return x - lr(t - 1) * (g + np.sqrt(eta / t**gamma) * n)

    return loop(problem, rule)


@few
@given(problem=trees, lr=rates, eta=st.floats(0.0, 3.0), gamma=st.floats(0.0, 1.5))
def test_noisy_sgd(problem, lr, eta, gamma):
    expected = noisy(problem, constant(lr), eta, gamma, 7)
    check_tree(gradtx.noisy_sgd(lr, eta, gamma, key=7), problem, expected)


def test_defaults_and_a_schedule():
    problem = TreeProblem()
    check_tree(gradtx.noisy_sgd(0.1), problem, noisy(problem, constant(0.1)))
    problem = TreeProblem()
    tx = gradtx.noisy_sgd(gradtx.linear_schedule(0.1, 0.0, STEPS), key=jax.random.key(3))
    check_tree(tx, problem, noisy(problem, falling(0.1), key=3))
