"""AMSGrad: the paper's form, without corrections; Optax's; PyTorch's."""

import itertools

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
    decays,
    epsilons,
    few,
    problems,
    rates,
)


def amsgrad(
    problem, lr, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, correct_mu=True, correct_nu=True,
    max_first=False,
):  # fmt: skip
    x, mu, nu, largest, xs = problem.x0, 0.0, 0.0, np.zeros(4), []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs(g) ** 2
        mu_correction = 1 - b1**t if correct_mu else 1.0
        nu_correction = 1 - b2**t if correct_nu else 1.0
        if max_first:
            largest = np.maximum(largest, nu)
            nu_hat = largest / nu_correction
        else:
            nu_hat = largest = np.maximum(largest, nu / nu_correction)
        x = x - lr * mu / mu_correction / (np.sqrt(nu_hat + eps_root) + eps)
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates, b1=decays, b2=decays)
def test_paper(problem, lr, b1, b2):
    xs = amsgrad(problem, lr, b1, b2, 1e-8, 0.0, False, False)
    tx = gradtx.amsgrad(lr, b1, b2, bias_correction_mu=False, bias_correction_nu=False)
    check_double(tx, problem, xs)


@pytest.mark.parametrize("max_first", [False, True])
def test_corrected(max_first):
    @few
    @given(
        problem=problems, lr=rates, b1=decays, b2=decays, eps=epsilons,
        eps_root=st.sampled_from([0.0, 1e-2]),
    )  # fmt: skip
    def check(problem, lr, b1, b2, eps, eps_root):
        xs = amsgrad(problem, lr, b1, b2, eps, eps_root, max_first=max_first)
        tx = gradtx.amsgrad(lr, b1, b2, eps, eps_root, max_before_correction=max_first)
        check_double(tx, problem, xs)

    check()


@pytest.mark.parametrize("mu, nu, max_first", list(itertools.product([False, True], repeat=3)))
def test_each_correction_on_its_own(mu, nu, max_first):
    problem = Problem()
    xs = amsgrad(problem, 0.05, 0.9, 0.99, 1e-3, 1e-3, mu, nu, max_first)
    tx = gradtx.amsgrad(0.05, 0.9, 0.99, 1e-3, 1e-3, None, mu, nu, max_before_correction=max_first)
    check_double(tx, problem, xs)


def test_defaults_are_optax():
    problem = Problem()
    check_double(gradtx.amsgrad(1e-2), problem, amsgrad(problem, 1e-2))


@pytest.mark.parametrize("max_first", [False, True])
def test_single_precision_and_complex(max_first):
    tx = gradtx.amsgrad(0.01, eps=1e-2, max_before_correction=max_first)
    check_forms(tx, lambda p: amsgrad(p, 0.01, eps=1e-2, max_first=max_first))


def test_mu_dtype_is_mu_alone():
    state = gradtx.amsgrad(0.1, mu_dtype="bfloat16").init(jnp.zeros(2))[0]
    dtypes = [s.dtype for s in (state.mu, state.nu, state.nu_max)]
    assert dtypes == [jnp.bfloat16, jnp.float32, jnp.float32]
