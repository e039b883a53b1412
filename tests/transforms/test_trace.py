"""`trace` and `ema` against the loops that define them."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, check_double, check_forms, decays, few, problems


def trace(problem, decay, nesterov):
    x, v, xs = problem.x0, 0.0, []
    for _ in range(STEPS):
        u = -0.1 * problem.grad(x)
        v = decay * v + u
        x = x + (decay * v + u if nesterov else v)
        xs.append(x)
    return xs


def ema(problem, decay, debias):
    x, m, xs = problem.x0, 0.0, []
    for t in range(1, STEPS + 1):
        m = decay * m - (1 - decay) * 0.1 * problem.grad(x)
        x = x + (m / (1 - decay**t) if debias else m)
        xs.append(x)
    return xs


@pytest.mark.parametrize("nesterov", [False, True])
def test_trace(nesterov):
    @few
    @given(problem=problems, decay=decays)
    def check(problem, decay):
        tx = gradtx.chain(gradtx.scale(-0.1), gradtx.trace(decay, nesterov))
        check_double(tx, problem, trace(problem, decay, nesterov))

    check()
    tx = gradtx.chain(gradtx.scale(-0.1), gradtx.trace(0.9, nesterov))
    check_forms(tx, lambda p: trace(p, 0.9, nesterov))


def test_trace_may_sum_without_decay():
    tx = gradtx.trace(1.0)
    state = tx.init(jnp.zeros(1))
    for total in (1.0, 2.0, 3.0):
        u, state = tx.update(jnp.ones(1), state)
        np.testing.assert_array_equal(u, total)


@pytest.mark.parametrize("debias", [False, True])
def test_ema(debias):
    @few
    @given(problem=problems, decay=decays)
    def check(problem, decay):
        tx = gradtx.chain(gradtx.scale(-0.1), gradtx.ema(decay, debias))
        check_double(tx, problem, ema(problem, decay, debias))

    check()
    tx = gradtx.chain(gradtx.scale(-0.1), gradtx.ema(0.9, debias))
    check_forms(tx, lambda p: ema(p, 0.9, debias))


@few
@given(decay=st.floats(0.5, 0.9999), value=st.floats(-10.0, 10.0, width=32))
def test_debiased_mean_of_a_constant_is_the_constant(decay, value):
    tx = gradtx.ema(decay)
    state = tx.init(jnp.zeros(()))
    for _ in range(5):
        u, state = tx.update(jnp.float32(value), state)
        np.testing.assert_allclose(u, value, rtol=1e-5)
    assert state.count == 5


@pytest.mark.parametrize("make", [gradtx.trace, gradtx.ema])
def test_accumulator_dtype(make):
    tx = make(0.5, accumulator_dtype=jnp.bfloat16)
    state = tx.init(jnp.zeros(2))
    assert state[-1].dtype == jnp.bfloat16
    u, state = tx.update(jnp.full(2, 1.0 + 2**-12), state)
    assert (u.dtype, state[-1].dtype) == (jnp.float32, jnp.bfloat16)
    assert tx == make(0.5, accumulator_dtype="bfloat16")
    assert make(0.5).init(jnp.zeros(2, jnp.bfloat16))[-1].dtype == jnp.float32
