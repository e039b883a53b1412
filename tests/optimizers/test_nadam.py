"""NAdam with constant momentum (Optax) and with Dozat's schedule of it (PyTorch); NAdamW."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.optimizers.test_adam import adam
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


def dozat(problem, lr, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, psi=4e-3, decay=never):
    x, mu, nu, product, xs = problem.x0, 0.0, 0.0, 1.0, []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        b, b_next = (b1 * (1 - 0.5 * 0.96 ** (s * psi)) for s in (t, t + 1))
        product = product * b
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs(g) ** 2
        m = b_next * mu / (1 - product * b_next) + (1 - b) * g / (1 - product)
        u = m / (np.sqrt(nu / (1 - b2**t) + eps_root) + eps)
        x = x - lr(t - 1) * (u + decay(t - 1) * x)
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates, b1=decays, b2=decays, eps=epsilons)
def test_constant_momentum(problem, lr, b1, b2, eps):
    xs = adam(problem, constant(lr), b1, b2, eps, 1e-3, nesterov=True)
    check_double(gradtx.nadam(lr, b1, b2, eps, 1e-3), problem, xs)


@few
@given(
    problem=problems, lr=rates, b1=decays, b2=decays, eps=epsilons,
    psi=st.sampled_from([0.0, 4e-3, 1.0]),
)  # fmt: skip
def test_dozats_schedule(problem, lr, b1, b2, eps, psi):
    xs = dozat(problem, constant(lr), b1, b2, eps, 1e-3, psi)
    check_double(gradtx.nadam(lr, b1, b2, eps, 1e-3, momentum_decay=psi), problem, xs)


def test_defaults():
    problem = Problem()
    check_double(gradtx.nadam(1e-2), problem, adam(problem, constant(1e-2), nesterov=True))
    problem = Problem()
    xs = adam(problem, constant(1e-2), nesterov=True, decay=constant(1e-4))
    check_double(gradtx.nadamw(1e-2), problem, xs)
    problem = Problem()
    stage = gradtx.chain(gradtx.scale_by_nadam(), gradtx.scale(-1e-2))
    check_double(stage, problem, dozat(problem, constant(1e-2)))


def test_nadamw():
    problem = Problem()
    xs = adam(problem, falling(0.05), 0.8, 0.95, 1e-3, 1e-2, nesterov=True, decay=falling(0.3))
    rate, decay = (gradtx.linear_schedule(v, 0.0, STEPS) for v in (0.05, 0.3))
    tx = gradtx.nadamw(rate, 0.8, 0.95, 1e-3, 1e-2, weight_decay=decay)
    check_double(tx, problem, xs)
    problem = Problem()
    xs = dozat(problem, constant(0.05), 0.8, 0.95, 1e-3, 1e-2, 0.1, constant(0.3))
    tx = gradtx.nadamw(0.05, 0.8, 0.95, 1e-3, 1e-2, weight_decay=0.3, momentum_decay=0.1)
    check_double(tx, problem, xs)
    problem = Problem()
    tx = gradtx.nadamw(0.05, weight_decay=0.3, mask=False)
    check_double(tx, problem, adam(problem, constant(0.05), nesterov=True))


def test_without_nesterov_it_is_adam():
    problem = Problem()
    check_double(gradtx.nadam(0.05, nesterov=False), problem, adam(problem, constant(0.05)))
    problem = Problem()
    xs = adam(problem, constant(0.05), decay=constant(0.1))
    check_double(gradtx.nadamw(0.05, weight_decay=0.1, nesterov=False), problem, xs)


def test_single_precision_and_complex():
    tx = gradtx.nadam(0.01, eps=1e-2, momentum_decay=4e-3)
    check_forms(tx, lambda p: dozat(p, constant(0.01), eps=1e-2))
    tx = gradtx.nadam(0.01, eps=1e-2)
    check_forms(tx, lambda p: adam(p, constant(0.01), eps=1e-2, nesterov=True))


def test_mu_dtype_is_mu_alone():
    for make in (gradtx.nadam, gradtx.nadamw):
        for psi in (None, 4e-3):
            tx = make(0.1, mu_dtype="bfloat16", momentum_decay=psi)
            state = tx.init(jnp.zeros(2))[0]
            assert (state.mu.dtype, state.nu.dtype) == (jnp.bfloat16, jnp.float32)


def test_momentum_decay_needs_nesterov():
    for make in (gradtx.nadam, gradtx.nadamw):
        with pytest.raises(ValueError, match="momentum_decay"):
            make(0.1, nesterov=False, momentum_decay=4e-3)
