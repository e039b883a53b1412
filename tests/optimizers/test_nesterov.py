"""Nesterov's momentum: the look-ahead form, the change of variables, and how they agree."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
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


def lookahead(problem, lr, rho):
    """x, and the points x + rho v where each gradient was taken, and the one after the last."""
    x, v, xs, points = problem.x0, np.zeros(4), [], []
    for t in range(STEPS):
        points.append(x + rho * v)
        v = rho * v - lr(t) * problem.grad(points[-1])
        x = x + v
        xs.append(x)
    return xs, [*points, x + rho * v]


def change_of_variables(problem, lr, rho):
    x, v, xs = problem.x0, 0.0, []
    for t in range(STEPS):
        old_v = v
        v = rho * v - lr(t) * problem.grad(x)
        x = x - rho * old_v + (1 + rho) * v
        xs.append(x)
    return xs


@jax.jit
def lookahead_scan(tx, x0, grads):
    def one(carry, g):
        x, state = carry
        point = tx.lookahead_point(state, x)
        x, state = tx.step(g, state, x)
        return (x, state), (x, point)

    (x, state), (xs, points) = jax.lax.scan(one, (x0, tx.init(x0)), grads)
    return xs, jnp.concatenate([points, tx.lookahead_point(state, x)[None]])


def check_lookahead(tx, problem, expected):
    with jax.enable_x64(True):
        xs, points = lookahead_scan(tx, problem.x0, np.stack(problem.grads))
    assert_close(xs, expected[0])
    assert_close(points, expected[1])


@few
@given(seed=seeds, lr=rates, rho=decays)
def test_lookahead_form(seed, lr, rho):
    problem = Problem(seed)
    tx = gradtx.nesterov_momentum(lr, rho, lookahead=True)
    check_lookahead(tx, problem, lookahead(problem, constant(lr), rho))


@few
@given(seed=seeds, lr=rates, rho=decays)
def test_change_of_variables(seed, lr, rho):
    problem = Problem(seed)
    tx = gradtx.nesterov_momentum(lr, rho)
    check_double(tx, problem, change_of_variables(problem, constant(lr), rho))


def test_scheduled():
    problem = Problem()
    schedule = gradtx.linear_schedule(0.1, 0.0, STEPS)
    xs = change_of_variables(problem, falling(0.1), 0.9)
    check_double(gradtx.nesterov_momentum(schedule, 0.9), problem, xs)
    problem = Problem()
    expected = lookahead(problem, falling(0.1), 0.9)
    check_lookahead(gradtx.nesterov_momentum(schedule, lookahead=True), problem, expected)


@few
@given(seed=seeds, lr=rates, rho=decays)
def test_forms_agree_step_by_step_at_the_lookahead_point(seed, lr, rho):
    problem = Problem(seed)
    _, points = lookahead(problem, constant(lr), rho)
    grads = np.stack(problem.grads)
    with jax.enable_x64(True):
        tx = gradtx.nesterov_momentum(lr, rho, lookahead=True)
        _, ahead = lookahead_scan(tx, problem.x0, grads)
        tilde, _ = lookahead_scan(gradtx.nesterov_momentum(lr, rho), problem.x0, grads)
    assert_close(tilde, ahead[1:])
    assert_close(tilde, points[1:])
    # At a constant rate Optax's and PyTorch's form is the change of variables too.
    check_double(gradtx.sgd(lr, rho, nesterov=True), problem, points[1:])


def test_trained_with_gradients_at_the_lookahead_point():
    """The whole loop in JAX: gradients are asked for at `tx.lookahead_point(state, params)`."""
    problem = Problem(batch=None)
    a, b = problem.a, problem.b
    x, v, xs = problem.x0, 0.0, []
    for _ in range(STEPS):
        point = x + 0.9 * v
        v = 0.9 * v - 0.05 * (a.T @ (a @ point - b) / 64)
        x = x + v
        xs.append(x)

    with jax.enable_x64(True):
        tx = gradtx.nesterov_momentum(0.05, 0.9, lookahead=True)

        def one(carry, _):
            x, state = carry
            point = tx.lookahead_point(state, x)
            x, state = tx.step(a.T @ (a @ point - b) / 64, state, x)
            return (x, state), x

        x0 = jnp.asarray(problem.x0)
        actual = jax.lax.scan(one, (x0, tx.init(x0)), length=STEPS)[1]
    assert_close(actual, xs)


def test_lookahead_point_is_params_elsewhere_and_goes_through_combinators():
    x = jnp.asarray([1.0, 2.0])
    for tx in (gradtx.nesterov_momentum(0.1), gradtx.sgd(0.1, 0.9), gradtx.adam(0.1)):
        state = tx.update(x, tx.init(x), x)[1]
        np.testing.assert_array_equal(tx.lookahead_point(state, x), x)

    inner = gradtx.nesterov_momentum(0.1, 0.5, lookahead=True)
    for tx in (
        gradtx.chain(gradtx.clip(9.0), inner),
        gradtx.named_chain(("clip", gradtx.clip(9.0)), ("descend", inner)),
        gradtx.masked(inner, True),
    ):
        params, state = tx.step(jnp.ones(2), tx.init(x), x)
        np.testing.assert_allclose(tx.lookahead_point(state, params), params - 0.05, rtol=1e-6)


def test_lookahead_point_has_the_dtype_of_the_parameters():
    tx = gradtx.nesterov_momentum(0.1, lookahead=True)
    x = jnp.ones(2, jnp.bfloat16)
    assert tx.lookahead_point(tx.init(x), x).dtype == jnp.bfloat16


def test_single_precision_and_complex():
    tx = gradtx.nesterov_momentum(0.05)
    check_forms(tx, lambda p: change_of_variables(p, constant(0.05), 0.9))


def test_lookahead_trace_refuses_nesterov():
    with pytest.raises(ValueError, match="nesterov"):
        gradtx.lookahead_trace(0.9, nesterov=True)
