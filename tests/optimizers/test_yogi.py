"""Yogi as in Zaheer et al.'s Algorithm 2, with Optax's bias corrections and first moments."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

import gradtx
from tests.oracles import (
    STEPS,
    Problem,
    check_double,
    check_forms,
    constant,
    decays,
    epsilons,
    falling,
    few,
    problems,
    rates,
)


def yogi(problem, lr, b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0, start=1e-6):
    x, m, v, xs = problem.x0, start, start, []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - abs(g) ** 2) * abs(g) ** 2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        x = x - lr(t - 1) * m_hat / (np.sqrt(v_hat + eps_root) + eps)
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates, b1=decays, b2=decays, eps=epsilons)
def test_yogi(problem, lr, b1, b2, eps):
    check_double(gradtx.yogi(lr, b1, b2, eps), problem, yogi(problem, constant(lr), b1, b2, eps))


@few
@given(
    problem=problems, lr=rates, b1=decays, b2=decays, eps=epsilons,
    eps_root=st.sampled_from([0.0, 1e-2]), start=st.sampled_from([0.0, 1e-3, 1.0]),
)  # fmt: skip
def test_stage(problem, lr, b1, b2, eps, eps_root, start):
    xs = yogi(problem, constant(lr), b1, b2, eps, eps_root, start)
    first = gradtx.scale_by_yogi(b1, b2, eps, eps_root, start)
    check_double(gradtx.chain(first, gradtx.scale_by_learning_rate(lr)), problem, xs)


def test_defaults():
    problem = Problem()
    check_double(gradtx.yogi(1e-2), problem, yogi(problem, constant(1e-2)))
    problem = Problem()
    tx = gradtx.chain(gradtx.scale_by_yogi(), gradtx.scale_by_learning_rate(1e-2))
    check_double(tx, problem, yogi(problem, constant(1e-2)))


def test_scheduled():
    problem = Problem()
    tx = gradtx.yogi(gradtx.linear_schedule(0.05, 0.0, STEPS))
    check_double(tx, problem, yogi(problem, falling(0.05)))


def test_single_precision_and_complex():
    check_forms(gradtx.yogi(0.01), lambda p: yogi(p, constant(0.01)))
