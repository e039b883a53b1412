"""Gradient descent on full batches and sampled ones, and momentum in the lecture's first form."""

import hypothesis.strategies as st
import jax.numpy as jnp
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
    rates,
)

seeds = st.integers(0, 10**6)


def descent(problem, lr):
    x, xs = problem.x0, []
    for t in range(STEPS):
        x = x - lr(t) * problem.grad(x)
        xs.append(x)
    return xs


def momentum_loop(problem, lr, rho, nesterov=False):
    x, v, xs = problem.x0, 0.0, []
    for t in range(STEPS):
        g = problem.grad(x)
        v = rho * v + g
        x = x - lr(t) * (g + rho * v if nesterov else v)
        xs.append(x)
    return xs


@few
@given(seed=seeds, lr=rates)
def test_full_batch_gradient_descent(seed, lr):
    problem = Problem(seed, batch=None)
    xs = descent(problem, constant(lr))
    check_double(gradtx.sgd(lr), problem, xs)


def test_full_batch_gradient_is_the_mean_over_examples_and_descends():
    problem = Problem(batch=None, condition=1.0)
    xs = descent(problem, constant(0.3))
    losses = [np.mean(np.abs(problem.a @ x - problem.b) ** 2) / 2 for x in xs]
    assert all(np.diff(losses) < 1e-6)
    best = np.linalg.lstsq(problem.a, problem.b, rcond=None)[0]
    check_double(gradtx.sgd(0.3), problem, xs)
    np.testing.assert_allclose(xs[-1], best, atol=1e-3)


@few
@given(seed=seeds, lr=rates, batch=st.sampled_from([1, 8, 32]))
def test_minibatch_sgd(seed, lr, batch):
    problem = Problem(seed, batch=batch)
    check_double(gradtx.sgd(lr), problem, descent(problem, constant(lr)))


@few
@given(seed=seeds, lr=rates)
def test_scheduled_rate(seed, lr):
    problem = Problem(seed)
    tx = gradtx.sgd(gradtx.linear_schedule(lr, 0.0, STEPS))
    check_double(tx, problem, descent(problem, falling(lr)))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scheduled", [False, True])
def test_momentum(nesterov, scheduled):
    @few
    @given(seed=seeds, lr=rates, rho=decays)
    def check(seed, lr, rho):
        problem = Problem(seed)
        xs = momentum_loop(problem, (falling if scheduled else constant)(lr), rho, nesterov)
        rate = gradtx.linear_schedule(lr, 0.0, STEPS) if scheduled else lr
        check_double(gradtx.sgd(rate, rho, nesterov), problem, xs)

    check()


def test_single_precision_and_complex():
    check_forms(gradtx.sgd(0.1), lambda p: descent(p, constant(0.1)))
    for nesterov in (False, True):
        tx = gradtx.sgd(0.05, momentum=0.9, nesterov=nesterov)
        check_forms(tx, lambda p, n=nesterov: momentum_loop(p, constant(0.05), 0.9, n))


def test_nesterov_without_momentum_is_descent():
    problem = Problem()
    check_double(gradtx.sgd(0.1, nesterov=True), problem, descent(problem, constant(0.1)))


def test_momentum_none_keeps_no_state_and_zero_does():
    assert gradtx.sgd(0.1).init(jnp.zeros(3)) == (gradtx.EmptyState(), gradtx.EmptyState())
    assert gradtx.sgd(0.1, momentum=0.0).init(jnp.zeros(3))[0].trace.shape == (3,)


def test_accumulator_dtype():
    tx = gradtx.sgd(0.1, 0.9, accumulator_dtype="bfloat16")
    assert tx.init(jnp.zeros(3))[0].trace.dtype == "bfloat16"
