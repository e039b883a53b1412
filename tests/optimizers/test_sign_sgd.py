"""signSGD and Signum as in Bernstein et al.'s Algorithms 1 and 2."""

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
    problems,
    rates,
)


def signum(problem, lr, beta=0.9):
    x, m, xs = problem.x0, 0.0, []
    for t in range(STEPS):
        m = beta * m + (1 - beta) * problem.grad(x)
        x = x - lr(t) * m / abs(m)
        xs.append(x)
    return xs


def sign_sgd(problem, lr):
    return signum(problem, lr, 0.0)


@few
@given(problem=problems, lr=rates, beta=decays)
def test_signum(problem, lr, beta):
    check_double(gradtx.signum(lr, beta), problem, signum(problem, constant(lr), beta))


@few
@given(problem=problems, lr=rates)
def test_sign_sgd(problem, lr):
    check_double(gradtx.sign_sgd(lr), problem, sign_sgd(problem, constant(lr)))


def test_defaults():
    problem = Problem()
    check_double(gradtx.signum(0.01), problem, signum(problem, constant(0.01)))


@pytest.mark.parametrize("make, loop", [(gradtx.sign_sgd, sign_sgd), (gradtx.signum, signum)])
def test_scheduled(make, loop):
    problem = Problem()
    tx = make(gradtx.linear_schedule(0.05, 0.0, STEPS))
    check_double(tx, problem, loop(problem, falling(0.05)))


@pytest.mark.parametrize("make, loop", [(gradtx.sign_sgd, sign_sgd), (gradtx.signum, signum)])
def test_single_precision_and_complex(make, loop):
    check_forms(make(0.01), lambda p: loop(p, constant(0.01)))


def test_stage():
    tx = gradtx.scale_by_sign()
    updates = {"a": jnp.asarray([-2.0, 0.0, 1e-30]), "b": jnp.asarray([3.0 - 4.0j, 0.0])}
    signs, state = tx.update(updates, tx.init(updates))
    np.testing.assert_array_equal(signs["a"], [-1.0, 0.0, 1.0])
    np.testing.assert_allclose(signs["b"], [0.6 - 0.8j, 0.0], rtol=1e-6)
    assert state == gradtx.EmptyState()


def test_errors_speak_of_beta():
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\)"):
        gradtx.signum(0.1, 1.0)


def test_accumulator_dtype_and_raw_mean():
    tx = gradtx.signum(0.1, 0.75, "bfloat16")
    state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)))[1]
    assert state[0].ema.dtype == jnp.bfloat16
    np.testing.assert_array_equal(state[0].ema, [0.25, 0.25])  # not debiased
