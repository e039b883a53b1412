"""Optimistic descent (Daskalakis et al.; Mokhtari et al.) and optimistic Adam."""

import hypothesis.strategies as st
import jax
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
    problems,
    rates,
)

weights = st.floats(-0.5, 2.0)


def ogd(problem, lr, alpha=1.0, beta=1.0):
    x, old, xs = problem.x0, None, []
    for t in range(STEPS):
        g = problem.grad(x)
        x = x - lr(t) * (alpha * g + beta * (g - (g if old is None else old)))
        old = g
        xs.append(x)
    return xs


def adam(
    problem, lr, alpha=1.0, beta=1.0, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, nesterov=True
):  # fmt: skip
    x, m, v, old, xs = problem.x0, 0.0, 0.0, None, []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        u = m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        x = x - lr(t - 1) * (alpha * u + beta * (u - (u if old is None else old)))
        old = u
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=st.floats(1e-3, 0.1), alpha=weights, beta=weights)
def test_optimistic_gradient_descent(problem, lr, alpha, beta):
    xs = ogd(problem, constant(lr), alpha, beta)
    check_double(gradtx.optimistic_gradient_descent(lr, alpha, beta), problem, xs)


@pytest.mark.parametrize("nesterov", [False, True])
def test_optimistic_adam(nesterov):
    @few
    @given(
        problem=problems, lr=rates, alpha=weights, beta=weights, b1=decays, b2=decays,
        eps=epsilons, eps_root=st.sampled_from([0.0, 1e-2]),
    )  # fmt: skip
    def check(problem, lr, **kwargs):
        xs = adam(problem, constant(lr), nesterov=nesterov, **kwargs)
        check_double(gradtx.optimistic_adam_v2(lr, nesterov=nesterov, **kwargs), problem, xs)

    check()


@few
@given(problem=problems, lr=rates, optimism=weights, b1=decays, eps=epsilons)
def test_first_version(problem, lr, optimism, b1, eps):
    xs = adam(problem, constant(1.0), lr, optimism, b1, eps=eps)
    check_double(gradtx.optimistic_adam(lr, optimism, b1, eps=eps), problem, xs)


def test_first_version_as_the_paper_and_as_optax():
    problem = Problem()
    tx = gradtx.optimistic_adam(0.01, b2=0.99, eps_root=1e-3, nesterov=False)
    kwargs = {"b2": 0.99, "eps_root": 1e-3, "nesterov": False}
    check_double(tx, problem, adam(problem, constant(0.01), **kwargs))
    with pytest.warns(DeprecationWarning):
        theirs = optax.optimistic_adam(0.01, mu_dtype="bfloat16")
    ours = gradtx.optimistic_adam(0.01, mu_dtype="bfloat16")
    x = jnp.ones(2)
    assert str(jax.eval_shape(ours.init, x)) == str(jax.eval_shape(theirs.init, x))


def test_defaults():
    problem = Problem()
    check_double(gradtx.optimistic_gradient_descent(0.05), problem, ogd(problem, constant(0.05)))
    problem = Problem()
    tx = gradtx.chain(gradtx.scale_by_optimistic_gradient(), gradtx.scale(-0.05))
    check_double(tx, problem, ogd(problem, constant(0.05)))
    problem = Problem()
    check_double(gradtx.optimistic_adam_v2(0.01), problem, adam(problem, constant(0.01)))


def test_scheduled():
    schedule = gradtx.linear_schedule(0.05, 0.0, STEPS)
    problem = Problem()
    tx = gradtx.optimistic_gradient_descent(schedule, 0.5, 2.0)
    check_double(tx, problem, ogd(problem, falling(0.05), 0.5, 2.0))
    problem = Problem()
    xs = adam(problem, falling(0.05), 0.5, 2.0)
    check_double(gradtx.optimistic_adam_v2(schedule, alpha=0.5, beta=2.0), problem, xs)


def test_single_precision_and_complex():
    check_forms(gradtx.optimistic_gradient_descent(0.05), lambda p: ogd(p, constant(0.05)))
    check_forms(gradtx.optimistic_adam_v2(0.01), lambda p: adam(p, constant(0.01)))


def distance_in_game(tx):
    """How far from its solution (0, 0) the game min_x max_y x y ends, begun at distance 1."""

    def one(carry, _):
        z, state = carry
        x, y = z
        z, state = tx.step(jnp.stack([y, -x]), state, z)
        return (z, state), None

    z = jnp.asarray([0.6, 0.8])
    (z, _), _ = jax.lax.scan(one, (z, tx.init(z)), length=500)
    return float(jnp.linalg.norm(z))


def test_converges_where_descent_circles():
    assert distance_in_game(gradtx.optimistic_gradient_descent(0.2)) < 1e-3
    assert distance_in_game(gradtx.sgd(0.2)) > 1e3


def test_mu_dtype_is_mu_alone():
    tx = gradtx.optimistic_adam_v2(0.1, mu_dtype="bfloat16")
    adam_state, optimistic, _ = tx.init(jnp.zeros(2))
    assert adam_state.mu.dtype == jnp.bfloat16
    assert adam_state.nu.dtype == optimistic.previous_gradient.dtype == jnp.float32


def test_state():
    tx = gradtx.scale_by_optimistic_gradient()
    state = tx.init(jnp.zeros(2))
    assert state.is_initial_step
    g = jnp.asarray([1.0, 2.0])
    state = tx.update(g, state)[1]
    assert not state.is_initial_step
    np.testing.assert_array_equal(state.previous_gradient, g)
