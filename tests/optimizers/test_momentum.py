"""Momentum in the lecture's second form: v <- rho v - lr g; x <- x + v."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

import gradtx
from tests.optimizers.test_sgd import momentum_loop as first_form
from tests.oracles import (
    STEPS,
    Problem,
    assert_close,
    check_double,
    check_forms,
    constant,
    decays,
    falling,
    few,
    rates,
)

seeds = st.integers(0, 10**6)


def second_form(problem, lr, rho):
    x, v, xs = problem.x0, 0.0, []
    for t in range(STEPS):
        v = rho * v - lr(t) * problem.grad(x)
        x = x + v
        xs.append(x)
    return xs


@few
@given(seed=seeds, lr=rates, rho=decays)
def test_second_form(seed, lr, rho):
    problem = Problem(seed)
    tx = gradtx.classical_momentum(lr, rho)
    check_double(tx, problem, second_form(problem, constant(lr), rho))


@few
@given(seed=seeds, lr=rates, rho=decays)
def test_second_form_under_a_schedule(seed, lr, rho):
    problem = Problem(seed)
    tx = gradtx.classical_momentum(gradtx.linear_schedule(lr, 0.0, STEPS), rho)
    check_double(tx, problem, second_form(problem, falling(lr), rho))


@few
@given(seed=seeds, lr=rates, rho=decays)
def test_forms_are_equal_at_constant_rate(seed, lr, rho):
    problem, again = Problem(seed), Problem(seed)
    first = first_form(problem, constant(lr), rho)
    assert_close(second_form(again, constant(lr), rho), first, 1e-6)  # gradients are rounded
    check_double(gradtx.classical_momentum(lr, rho), problem, first)
    check_double(gradtx.sgd(lr, rho), problem, first)


def test_forms_differ_under_a_schedule():
    problem = Problem()
    schedule = gradtx.linear_schedule(0.1, 0.0, STEPS)
    first = first_form(problem, falling(0.1), 0.9)
    check_double(gradtx.sgd(schedule, 0.9), problem, first)

    problem = Problem()
    second = second_form(problem, falling(0.1), 0.9)
    check_double(gradtx.classical_momentum(schedule, 0.9), problem, second)

    moved = np.abs(np.array(first) - problem.x0).max()
    assert np.abs(np.array(first) - second).max() > 1e-3 * moved


def test_single_precision_and_complex():
    tx = gradtx.classical_momentum(0.05)
    check_forms(tx, lambda p: second_form(p, constant(0.05), 0.9))
