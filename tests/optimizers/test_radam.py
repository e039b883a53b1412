"""RAdam as in Liu et al.'s Algorithm 2, rho in exact rational arithmetic."""

import itertools
from fractions import Fraction

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from gradtx.optimizers.radam import langevin
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


def rectifier(b2, t, threshold):
    """r_t, or None where rho_t is below the threshold."""
    b2 = Fraction(b2)
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
    if rho < threshold:
        return None
    square = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    return np.sqrt(float(square))


def radam(
    problem, lr, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=5.0, nesterov=False
):  # fmt: skip
    x, m, v, xs = problem.x0, 0.0, 0.0, []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        u = m / (1 - b1**t)
        if nesterov:
            u = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        r = rectifier(b2, t, threshold)
        if r is not None:
            u = r * u / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        x = x - lr(t - 1) * u
        xs.append(x)
    return xs


@pytest.mark.parametrize("nesterov", [False, True])
def test_radam(nesterov):
    @few
    @given(
        problem=problems, lr=rates, b1=decays, b2=st.floats(0.61, 0.999), eps=epsilons,
        eps_root=st.sampled_from([0.0, 1e-2]), threshold=st.sampled_from([4.1, 5.0, 11.7]),
    )  # fmt: skip
    def check(problem, lr, b1, b2, eps, eps_root, threshold):
        xs = radam(problem, constant(lr), b1, b2, eps, eps_root, threshold, nesterov)
        tx = gradtx.radam(lr, b1, b2, eps, eps_root, threshold, nesterov=nesterov)
        check_double(tx, problem, xs)

    check()


def test_defaults():
    problem = Problem()
    check_double(gradtx.radam(1e-2), problem, radam(problem, constant(1e-2)))
    problem = Problem()
    tx = gradtx.chain(gradtx.scale_by_radam(), gradtx.scale_by_learning_rate(1e-2))
    check_double(tx, problem, radam(problem, constant(1e-2)))


def test_scheduled():
    problem = Problem()
    tx = gradtx.radam(gradtx.linear_schedule(0.05, 0.0, STEPS), b2=0.95)
    check_double(tx, problem, radam(problem, falling(0.05), b2=0.95))


@pytest.mark.parametrize("nesterov", [False, True])
def test_single_precision_and_complex(nesterov):
    def loop(problem):
        return radam(problem, constant(0.01), b2=0.9, nesterov=nesterov)

    check_forms(gradtx.radam(0.01, b2=0.9, nesterov=nesterov), loop)


@pytest.mark.parametrize(
    "b2, threshold", list(itertools.product([0.7, 0.9, 0.999, 0.9999, 0.99999], [4.5, 5.0]))
)
def test_rectification_in_single_precision(b2, threshold):
    """With a gradient of 1 the update is r_t, from the very step that the paper has it."""
    tx = gradtx.chain(gradtx.scale_by_radam(b2=b2, eps=0.0, threshold=threshold))
    state, g = tx.init(jnp.zeros(())), jnp.ones(())
    for t in range(1, 13):
        updates, state = tx.update(g, state)
        r = rectifier(b2, t, threshold)
        np.testing.assert_allclose(updates, 1.0 if r is None else r, rtol=3e-6)


@pytest.mark.parametrize("b2", [0.9, 0.999, 0.99999])
def test_rectification_late(b2):
    tx = gradtx.scale_by_radam(b2=b2, eps=0.0)
    state, g = tx.init(jnp.zeros(())), jnp.ones(())
    for t in (50, 499, 501, 5000):
        mu, nu = 1 - 0.9 ** (t - 1), -np.expm1((t - 1) * np.log(b2))
        state = state._replace(
            count=jnp.int32(t - 1), mu=jnp.asarray(mu, "float32"), nu=jnp.asarray(nu, "float32")
        )
        np.testing.assert_allclose(tx.update(g, state)[0], rectifier(b2, t, 5.0), rtol=1e-5)


def test_the_threshold_itself_is_rectified():
    """At last rho_t = rho_inf, which is 9 here."""
    tx = gradtx.scale_by_radam(b2=0.8, eps=0.0, threshold=9.0)
    state, g, updates = tx.init(jnp.zeros(())), jnp.asarray(2.0), []
    for _ in range(200):
        u, state = tx.update(g, state)
        updates.append(u)
    np.testing.assert_allclose([updates[0], updates[-1]], [2.0, 1.0], rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_langevin():
    for z in (1e-9, 1e-3, 0.1, 0.25):
        expected = 1 / np.tanh(np.longdouble(z)) - 1 / np.longdouble(z) if z > 0.05 else z / 3
        np.testing.assert_allclose(
            langevin(jnp.asarray(z)), expected, rtol=2e-14 if z > 0.05 else 1e-7
        )


@pytest.mark.parametrize("t", [1, 7, 400, 10**7])
def test_the_derivative_by_b2_is_finite(t):
    def update(b2):
        tx = gradtx.scale_by_radam(b2=b2)
        state = tx.init(jnp.zeros(()))._replace(count=jnp.int32(t - 1), nu=jnp.ones(()))
        return tx.update(jnp.ones(()), state)[0]

    for b2 in (0.7, 0.99):
        assert jnp.isfinite(jax.grad(update)(b2))
