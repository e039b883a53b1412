"""Adadelta as in Zeiler's Algorithm 1, with a learning rate and L2 decay."""

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
)

rates = st.floats(0.1, 2.0)


def adadelta(problem, lr, rho=0.9, eps=1e-6, decay=never):
    x, e_g, e_dx, xs = problem.x0, 0.0, 0.0, []
    for t in range(STEPS):
        g = problem.grad(x) + decay(t) * x
        e_g = rho * e_g + (1 - rho) * abs(g) ** 2
        dx = -np.sqrt(e_dx + eps) / np.sqrt(e_g + eps) * g
        e_dx = rho * e_dx + (1 - rho) * abs(dx) ** 2
        x = x + lr(t) * dx
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates, rho=decays, eps=epsilons, decay=st.floats(0.0, 0.5))
def test_adadelta(problem, lr, rho, eps, decay):
    xs = adadelta(problem, constant(lr), rho, eps, constant(decay))
    check_double(gradtx.adadelta(lr, rho, eps, decay), problem, xs)


def test_defaults():
    problem = Problem()
    check_double(gradtx.adadelta(1.0), problem, adadelta(problem, constant(1.0)))
    problem = Problem()
    tx = gradtx.chain(gradtx.scale_by_adadelta(), gradtx.scale(-1.0))
    check_double(tx, problem, adadelta(problem, constant(1.0)))


def test_without_a_rate_there_is_no_minus_sign():
    problem = Problem()
    tx = gradtx.chain(gradtx.adadelta(), gradtx.scale(-1.0))
    check_double(tx, problem, adadelta(problem, constant(1.0)))


def test_scheduled_and_masked():
    problem = Problem()
    schedule = gradtx.linear_schedule
    tx = gradtx.adadelta(schedule(1.5, 0.0, STEPS), weight_decay=schedule(0.3, 0.0, STEPS))
    check_double(tx, problem, adadelta(problem, falling(1.5), decay=falling(0.3)))
    problem = Problem()
    tx = gradtx.adadelta(1.0, weight_decay=0.3, weight_decay_mask=False)
    check_double(tx, problem, adadelta(problem, constant(1.0)))


def test_single_precision_and_complex():
    check_forms(gradtx.adadelta(1.0), lambda p: adadelta(p, constant(1.0)))
