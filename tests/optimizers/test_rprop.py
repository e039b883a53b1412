"""Rprop without backtracking (iRprop- of Igel & Huesken), one parameter at a time."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, Problem, check_double, check_forms, few, problems, rates


def rprop(problem, lr, eta_minus=0.5, eta_plus=1.2, low=1e-6, high=50.0):
    """Complex gradients: the product of two is that of vectors in the plane."""
    x, delta, old, xs = problem.x0.copy(), [lr] * 4, [0.0] * 4, []
    for _ in range(STEPS):
        g = problem.grad(x)
        x = x.copy()
        for i in range(4):
            now = g[i]
            product = now.real * np.real(old[i]) + now.imag * np.imag(old[i])
            if product > 0:
                delta[i] = min(max(delta[i] * eta_plus, low), high)
            elif product < 0:
                delta[i] = min(max(delta[i] * eta_minus, low), high)
                now = 0.0
            if now != 0:
                x[i] -= delta[i] * now / abs(now)
            old[i] = now
        xs.append(x)
    return xs


@few
@given(
    problem=problems, lr=rates, eta_minus=st.floats(0.1, 0.95), eta_plus=st.floats(1.05, 3.0),
    low=st.sampled_from([0.0, 1e-6, 1e-3]), high=st.sampled_from([0.3, 50.0]),
)  # fmt: skip
def test_rprop(problem, lr, eta_minus, eta_plus, low, high):
    xs = rprop(problem, lr, eta_minus, eta_plus, low, high)
    check_double(gradtx.rprop(lr, eta_minus, eta_plus, low, high), problem, xs)


def test_defaults():
    for batch in (None, 8):
        problem = Problem(batch=batch)
        check_double(gradtx.rprop(0.01), problem, rprop(problem, 0.01))
        problem = Problem(batch=batch)
        tx = gradtx.chain(gradtx.scale_by_rprop(0.01), gradtx.scale(-1.0))
        check_double(tx, problem, rprop(problem, 0.01))


def test_single_precision_and_complex():
    check_forms(gradtx.rprop(0.01), lambda p: rprop(p, 0.01))


def updates_of(tx, grads):
    state, updates = tx.init(grads[0]), []
    for g in grads:
        u, state = tx.update(g, state)
        updates.append(float(u))
    return updates, state


def test_by_hand():
    grads = jnp.asarray([3.0, 0.1, -5.0, -5.0, -1.0, 0.0, -2.0])
    updates, state = updates_of(gradtx.scale_by_rprop(1.0, 0.5, 2.0), grads)
    assert updates == [1.0, 2.0, 0.0, -1.0, -2.0, 0.0, -2.0]
    assert float(state.step_sizes) == 2.0
    assert float(state.prev_updates) == -2.0


def test_default_bounds_and_factors():
    ones = jnp.ones(40)
    updates, _ = updates_of(gradtx.scale_by_rprop(1.0), ones)
    assert max(updates) == 50.0
    assert min(updates_of(gradtx.rprop(1.0), ones)[0]) == -50.0
    np.testing.assert_allclose(updates[1], 1.2, rtol=1e-6)
    turning = jnp.asarray([1.0, -1.0, -1.0] + [1.0, 1.0, -1.0, -1.0] * 20)
    updates, state = updates_of(gradtx.scale_by_rprop(1.0), turning)
    assert updates[2] == -0.5
    np.testing.assert_allclose(state.step_sizes, 1e-6, rtol=1e-6)


def test_the_smallest_gradients_still_have_a_sign():
    updates, _ = updates_of(gradtx.scale_by_rprop(1e-6, 0.5, 2.0, 0.0), jnp.full(3, 1e-37))
    np.testing.assert_allclose(updates, [1e-6, 2e-6, 4e-6], rtol=1e-6)


def test_complex_step_sizes_are_real():
    state = gradtx.rprop(0.1).init(jnp.ones(2, complex))[0]
    assert state.step_sizes.dtype == jnp.float32
    assert state.prev_updates.dtype == jnp.complex64


def test_bounds_are_in_order():
    for make in (gradtx.rprop, gradtx.scale_by_rprop):
        with pytest.raises(ValueError, match=r"min_step_size must be at most max_step_size.*0\.5"):
            make(0.1, min_step_size=0.5, max_step_size=0.1)
        make(0.1, min_step_size=0.5, max_step_size=0.5)
    jax.eval_shape(lambda low: gradtx.rprop(0.1, min_step_size=low) and low, 100.0)
