"""Lion as in Chen et al.'s Algorithm 2, and Optax's softened signs."""

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
    never,
    problems,
    rates,
)


def hard(c):
    return c / abs(c)


def smooth(beta):
    return lambda c: np.tanh(beta * abs(c)) * c / abs(c)


def refined(c):
    return c / np.maximum(1.0, abs(c))


def lion(problem, lr, b1=0.9, b2=0.99, decay=never, sign=hard):
    x, m, xs = problem.x0, 0.0, []
    for t in range(STEPS):
        g = problem.grad(x)
        c = b1 * m + (1 - b1) * g
        x = x - lr(t) * (sign(c) + decay(t) * x)
        m = b2 * m + (1 - b2) * g
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates, b1=decays, b2=decays, decay=st.floats(0.0, 0.5))
def test_lion(problem, lr, b1, b2, decay):
    xs = lion(problem, constant(lr), b1, b2, constant(decay))
    check_double(gradtx.lion(lr, b1, b2, weight_decay=decay), problem, xs)


MODES = {"hard": lambda beta: hard, "smooth": smooth, "refined": lambda beta: refined}


def stage(mode, lr, b1=0.9, b2=0.99, beta=1.0):
    first = gradtx.scale_by_lion(b1, b2, mode=mode, smooth_beta=beta)
    return gradtx.chain(first, gradtx.scale_by_learning_rate(lr))


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode):
    @few
    @given(problem=problems, lr=rates, b1=decays, b2=decays, beta=st.floats(0.1, 20.0))
    def check(problem, lr, b1, b2, beta):
        xs = lion(problem, constant(lr), b1, b2, sign=MODES[mode](beta))
        check_double(stage(mode, lr, b1, b2, beta), problem, xs)

    check()


def test_defaults():
    problem = Problem()
    check_double(gradtx.lion(1e-2), problem, lion(problem, constant(1e-2), decay=constant(1e-3)))
    for mode, sign in MODES.items():
        problem = Problem()
        first = gradtx.scale_by_lion(mode=mode)
        tx = gradtx.chain(first, gradtx.scale_by_learning_rate(0.01))
        check_double(tx, problem, lion(problem, constant(0.01), sign=sign(1.0)))
    assert gradtx.scale_by_lion() == gradtx.scale_by_lion(mode="hard")


def test_scheduled_and_masked():
    problem = Problem()
    schedule = gradtx.linear_schedule
    tx = gradtx.lion(schedule(0.05, 0.0, STEPS), weight_decay=schedule(0.3, 0.0, STEPS))
    check_double(tx, problem, lion(problem, falling(0.05), decay=falling(0.3)))
    problem = Problem()
    tx = gradtx.lion(0.05, weight_decay=0.3, mask=False)
    check_double(tx, problem, lion(problem, constant(0.05)))


@pytest.mark.parametrize("mode", MODES)
def test_single_precision_and_complex(mode):
    sign = MODES[mode](3.0)
    tx = stage(mode, 0.01, beta=3.0)
    check_forms(tx, lambda p: lion(p, constant(0.01), sign=sign))


def test_no_update_is_longer_than_one():
    grads = jnp.asarray([1.5j, 1.6j, 100.0 + 1j, -3.0])
    for mode in MODES:
        tx = gradtx.scale_by_lion(0.0, mode=mode)
        updates = tx.update(grads, tx.init(grads))[0]
        assert (abs(updates) <= 1 + 1e-6).all()


def test_zero_is_its_own_sign():
    for mode in MODES:
        for x in jnp.zeros(2), jnp.zeros(2, complex):
            tx = gradtx.scale_by_lion(mode=mode)
            assert (tx.update(x, tx.init(x))[0] == 0).all()


def test_mu_dtype_and_count():
    for tx in (
        gradtx.lion(0.1, mu_dtype="bfloat16"),
        gradtx.chain(gradtx.scale_by_lion(0.9, 0.99, "bfloat16")),
    ):
        state = tx.init(jnp.zeros(2))
        assert state[0].mu.dtype == jnp.bfloat16
        for _ in range(3):
            state = tx.update(jnp.ones(2), state, jnp.zeros(2))[1]
        assert state[0].mu.dtype == jnp.bfloat16
        assert state[0].count == 3
