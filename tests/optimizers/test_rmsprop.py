"""RMSProp in all its forms."""

import itertools

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import optax
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
    epsilons,
    falling,
    few,
    noisy_problems,
    problems,
    rates,
)


def rmsprop(
    problem, lr, d=0.9, eps=1e-8, initial=0.0, inside=True, centered=False, rho=None,
    nesterov=False, corrected=False,
):  # fmt: skip
    x, mu, nu, v, xs = problem.x0, 0.0, initial, 0.0, []
    for t in range(STEPS):
        g = problem.grad(x)
        mu = d * mu + (1 - d) * g
        nu = d * nu + (1 - d) * abs(g) ** 2
        correction = 1 - d ** (t + 1) if corrected else 1.0
        s = nu / correction
        if centered:
            s = np.maximum(s - abs(mu / correction) ** 2, 0.0)
        step = -lr(t) * g / (np.sqrt(s + eps) if inside else np.sqrt(s) + eps)
        if rho is not None:
            v = rho * v + step
            step = rho * v + step if nesterov else v
        x = x + step
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates, d=decays)
def test_lecture(problem, lr, d):
    xs = rmsprop(problem, constant(lr), d, 1e-7, inside=False)
    check_double(gradtx.rmsprop(lr, d, 1e-7, eps_in_sqrt=False), problem, xs)


def test_defaults_are_optax():
    problem = Problem()
    check_double(gradtx.rmsprop(0.01), problem, rmsprop(problem, constant(0.01)))


@pytest.mark.parametrize("inside, corrected", list(itertools.product([True, False], repeat=2)))
def test_plain(inside, corrected):
    @few
    @given(problem=problems, lr=rates, d=decays, eps=epsilons, initial=st.floats(0.0, 2.0))
    def check(problem, lr, d, eps, initial):
        xs = rmsprop(problem, constant(lr), d, eps, initial, inside, corrected=corrected)
        tx = gradtx.rmsprop(lr, d, eps, initial, inside, bias_correction=corrected)
        check_double(tx, problem, xs)

    check()


@pytest.mark.parametrize("inside", [True, False])
def test_centered(inside):
    # Without noise and at small decay the variance is a difference of equal numbers.
    @few
    @given(problem=noisy_problems, lr=rates, d=st.floats(0.8, 0.99), eps=st.floats(1e-3, 0.1))
    def check(problem, lr, d, eps):
        xs = rmsprop(problem, constant(lr), d, eps, 0.0, inside, centered=True)
        check_double(gradtx.rmsprop(lr, d, eps, 0.0, inside, centered=True), problem, xs)

    check()


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_centered_with_bias_correction(inside, initial):
    # d = 1/2: both corrected means of the first step are exact, and so is their difference, 0.
    problem = Problem()
    xs = rmsprop(problem, constant(0.01), 0.5, 0.1, initial, inside, True, corrected=True)
    tx = gradtx.rmsprop(0.01, 0.5, 0.1, initial, inside, True, bias_correction=True)
    check_double(tx, problem, xs)


@pytest.mark.parametrize("nesterov, centered", list(itertools.product([False, True], repeat=2)))
@pytest.mark.parametrize("scheduled", [False, True])
def test_momentum(nesterov, centered, scheduled):
    """The rate is inside the momentum, which a schedule shows."""
    problem = Problem()
    lr = (falling if scheduled else constant)(0.01)
    rate = gradtx.linear_schedule(0.01, 0.0, STEPS) if scheduled else 0.01
    xs = rmsprop(problem, lr, eps=1e-3, centered=centered, rho=0.8, nesterov=nesterov)
    tx = gradtx.rmsprop(rate, eps=1e-3, centered=centered, momentum=0.8, nesterov=nesterov)
    check_double(tx, problem, xs)


@pytest.mark.parametrize("inside, centered", list(itertools.product([True, False], repeat=2)))
def test_single_precision_and_complex(inside, centered):
    tx = gradtx.rmsprop(0.01, eps=1e-2, eps_in_sqrt=inside, centered=centered)
    check_forms(
        tx, lambda p: rmsprop(p, constant(0.01), eps=1e-2, inside=inside, centered=centered)
    )


@pytest.mark.parametrize("inside, corrected", list(itertools.product([True, False], repeat=2)))
def test_variance_that_rounding_makes_negative_counts_as_zero(inside, corrected):
    tx = gradtx.scale_by_stddev(0.3, 1e-8, eps_in_sqrt=inside, bias_correction=corrected)
    g = jnp.full(100, 1.0) * jnp.linspace(0.1, 1.0, 100)
    state = tx.init(g)
    for _ in range(30):
        u, state = tx.update(g, state)
    assert np.isfinite(u).all()


def test_states_count_only_where_bias_is_corrected():
    for stage in (gradtx.scale_by_rms, gradtx.scale_by_stddev):
        tx = stage(initial_scale=0.5, bias_correction=True)
        state = tx.init(jnp.zeros(2))
        np.testing.assert_array_equal(state.nu, 0.5)
        for _ in range(3):
            _, state = tx.update(jnp.ones(2), state)
        assert state.count == 3
        assert "count" not in stage().init(jnp.zeros(2))._fields


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_state_has_optaxs_three_parts(momentum):
    params = {"w": jnp.ones(3)}
    ours, theirs = (lib.rmsprop(0.1, momentum=momentum).init(params) for lib in (gradtx, optax))
    assert [type(part).__name__ for part in ours] == [type(part).__name__ for part in theirs]
