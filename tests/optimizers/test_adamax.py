"""Adamax as in Kingma & Ba's Algorithm 2, with Optax's and PyTorch's eps, and AdamaxW."""

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
    never,
    problems,
    rates,
)


def adamax(problem, lr, b1=0.9, b2=0.999, eps=1e-8, decay=never):
    x, mu, nu, xs = problem.x0, 0.0, np.zeros(4), []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        mu = b1 * mu + (1 - b1) * g
        nu = np.maximum(b2 * nu, abs(g) + eps)
        x = x - lr(t - 1) * (mu / (1 - b1**t) / nu + decay(t - 1) * x)
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates, b1=decays, b2=decays, eps=epsilons)
def test_adamax(problem, lr, b1, b2, eps):
    check_double(
        gradtx.adamax(lr, b1, b2, eps), problem, adamax(problem, constant(lr), b1, b2, eps)
    )


def test_defaults():
    problem = Problem()
    check_double(gradtx.adamax(2e-3), problem, adamax(problem, constant(2e-3)))
    problem = Problem()
    xs = adamax(problem, constant(2e-3), decay=constant(1e-4))
    check_double(gradtx.adamaxw(2e-3), problem, xs)


@few
@given(problem=problems, lr=rates, b1=decays, b2=decays, decay=st.floats(0.0, 0.5))
def test_adamaxw(problem, lr, b1, b2, decay):
    xs = adamax(problem, constant(lr), b1, b2, 1e-3, constant(decay))
    check_double(gradtx.adamaxw(lr, b1, b2, 1e-3, decay), problem, xs)


def test_adamaxw_scheduled_and_masked():
    problem = Problem()
    xs = adamax(problem, falling(0.05), decay=falling(0.3))
    schedule = gradtx.linear_schedule
    tx = gradtx.adamaxw(schedule(0.05, 0.0, STEPS), weight_decay=schedule(0.3, 0.0, STEPS))
    check_double(tx, problem, xs)
    problem = Problem()
    tx = gradtx.adamaxw(0.05, weight_decay=0.3, mask=False)
    check_double(tx, problem, adamax(problem, constant(0.05)))


def test_single_precision_and_complex():
    check_forms(gradtx.adamax(0.01), lambda p: adamax(p, constant(0.01)))
