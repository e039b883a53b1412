"""Multiplying by a number, a schedule, the learning rate."""

import dataclasses
import inspect

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.examples import EXAMPLES, public_transformations
from tests.oracles import STEPS, Problem, check_double, falling, few, rates
from tests.properties.test_laws import EXTRA


def steps(problem, step):
    x, xs = problem.x0, []
    for t in range(STEPS):
        x = x + step(t) * problem.grad(x)
        xs.append(x)
    return xs


@few
@given(seed=st.integers(0, 10**6), rate=rates)
def test_scale_and_schedules_count_from_zero(seed, rate):
    schedule = gradtx.linear_schedule(rate, 0.0, STEPS)
    minus = gradtx.linear_schedule(-rate, 0.0, STEPS)
    for tx, step in (
        (gradtx.scale(-rate), lambda t: -rate),
        (gradtx.scale_by_learning_rate(rate), lambda t: -rate),
        (gradtx.scale_by_learning_rate(-0.0 + rate, flip_sign=True), lambda t: -rate),
        (gradtx.scale_by_schedule(minus), lambda t: -falling(rate)(t)),
        (gradtx.scale_by_learning_rate(schedule), lambda t: -falling(rate)(t)),
    ):
        problem = Problem(seed)
        check_double(tx, problem, steps(problem, step))


def test_flip_sign_and_none():
    u = jnp.asarray([1.0, -2.0])
    for rate in (0.5, gradtx.constant_schedule(0.5)):
        tx = gradtx.scale_by_learning_rate(rate, flip_sign=False)
        np.testing.assert_array_equal(tx.update(u, tx.init(u))[0], 0.5 * u)
    tx = gradtx.scale_by_learning_rate(None)
    np.testing.assert_array_equal(tx.update(u, tx.init(u))[0], u)
    assert tx.init(u) == gradtx.EmptyState()


@pytest.mark.parametrize("make", [gradtx.scale_by_schedule, gradtx.scale_by_learning_rate])
def test_count(make):
    tx = make(lambda count: 1.0)
    state = tx.init(None)
    assert (state.count, state.count.dtype) == (0, jnp.int32)
    for _ in range(3):
        _, state = tx.update(jnp.ones(1), state)
    assert (state.count, state.count.dtype) == (3, jnp.int32)
    last = state._replace(count=jnp.int32(2**31 - 1))
    assert tx.update(jnp.ones(1), last)[1].count == 2**31 - 1


def test_rate_does_not_promote():
    for dtype in (jnp.bfloat16, jnp.float16):
        tx = gradtx.scale(jnp.float32(2.0))
        assert tx.update(jnp.ones(2, dtype), tx.init(None))[0].dtype == dtype


SCHEDULED = [
    (name, field.name)
    for name, made in public_transformations().items()
    if inspect.isclass(made)
    for field in dataclasses.fields(made)
    if field.type == "ScalarOrSchedule"
]


@pytest.mark.parametrize("name, field", SCHEDULED)
def test_every_schedule_counts_the_steps_from_0(name, field):
    seen = []

    def schedule(count):
        seen.append(int(count))
        return 0.1

    tx = EXAMPLES[f"{name}-0"].replace(**{field: schedule})
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    state = tx.init(params)
    for step in range(3):
        seen.clear()
        _, state = tx.update(params, state, params, **EXTRA, grad=params)
        assert set(seen) == {step}
