"""AdaBelief as in Zhuang et al.'s Algorithm 2, and with Nesterov's look ahead."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import (
    STEPS,
    Problem,
    check_double,
    check_forms,
    constant,
    decays,
    falling,
    few,
    problems,
    rates,
)


def adabelief(problem, lr, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False):
    x, m, s, xs = problem.x0, 0.0, 0.0, []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * abs(g - m) ** 2 + eps_root
        m_hat, s_hat = m / (1 - b1**t), s / (1 - b2**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        x = x - lr(t - 1) * m_hat / (np.sqrt(s_hat) + eps)
        xs.append(x)
    return xs


# Below, g - m is what rounding leaves of g.
beliefs = st.floats(0.1, 0.99)
small = st.sampled_from([1e-8, 1e-4, 0.1])


@pytest.mark.parametrize("nesterov", [False, True])
def test_adabelief(nesterov):
    @few
    @given(problem=problems, lr=rates, b1=beliefs, b2=decays, eps=small, eps_root=small)
    def check(problem, lr, b1, b2, eps, eps_root):
        xs = adabelief(problem, constant(lr), b1, b2, eps, eps_root, nesterov)
        tx = gradtx.adabelief(lr, b1, b2, eps, eps_root, nesterov=nesterov)
        check_double(tx, problem, xs)

    check()


def test_defaults():
    problem = Problem()
    check_double(gradtx.adabelief(1e-3), problem, adabelief(problem, constant(1e-3)))
    problem = Problem()
    tx = gradtx.chain(gradtx.scale_by_belief(), gradtx.scale_by_learning_rate(1e-3))
    check_double(tx, problem, adabelief(problem, constant(1e-3)))


def test_without_momentum_only_the_epsilons_are_left():
    problem = Problem()
    xs = adabelief(problem, constant(0.01), 0.0, 0.9, 0.1, 0.2)
    check_double(gradtx.adabelief(0.01, 0.0, 0.9, 0.1, 0.2), problem, xs)


def test_the_defaults_of_the_two_epsilons():
    """They show only where the gradient is as its mean predicts."""
    for make in gradtx.scale_by_belief, lambda: gradtx.adabelief(1.0):
        tx = make()
        assert tx.eps == tx.eps_root == 1e-16


def test_scheduled():
    problem = Problem()
    tx = gradtx.adabelief(gradtx.linear_schedule(0.05, 0.0, STEPS))
    check_double(tx, problem, adabelief(problem, falling(0.05)))


@pytest.mark.parametrize("nesterov", [False, True])
def test_single_precision_and_complex(nesterov):
    def loop(problem):
        return adabelief(problem, constant(0.01), nesterov=nesterov)

    check_forms(gradtx.adabelief(0.01, nesterov=nesterov), loop)
