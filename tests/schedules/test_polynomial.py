"""Constant, linear and polynomial schedules."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

import gradtx
from gradtx import constant_schedule, linear_schedule, polynomial_schedule
from gradtx.schedules.polynomial import remaining
from tests.oracles import few
from tests.schedules.common import check_falling_per_step, check_optax, check_value, check_values

halves = st.floats(-2.0, 2.0, width=16)


def polynomial(init, end, power, steps, begin=0):
    def value(t):
        k = min(max(t - begin, 0), steps)
        return (init - end) * (1 - k / steps) ** power + end

    return value


@few
@given(
    init=halves, end=halves, power=st.floats(0.5, 3.0),
    steps=st.integers(1, 50), begin=st.integers(0, 20),
)  # fmt: skip
def test_against_the_formula(init, end, power, steps, begin):
    schedule = polynomial_schedule(init, end, power, steps, begin)
    check_values(schedule, polynomial(init, end, power, steps, begin))
    schedule = linear_schedule(init, end, steps, begin)
    check_values(schedule, polynomial(init, end, 1.0, steps, begin))
    check_values(constant_schedule(init), lambda t: init)


@pytest.mark.parametrize("args", [(1.0, 0.1, 40), (0.0, 2.0, 1), (1.0, 0.5, 20, 10)])
def test_optax(args):
    check_optax(linear_schedule(*args), optax.linear_schedule(*args))
    args = (*args[:2], 2.5, *args[2:])
    check_optax(polynomial_schedule(*args), optax.polynomial_schedule(*args))
    check_optax(constant_schedule(0.3), optax.constant_schedule(0.3))


@few
@given(init=st.floats(1e-8, 1.0), end=st.floats(1e-8, 1.0), steps=st.integers(1, 2**30))
def test_ends_are_exact(init, end, steps):
    for schedule in (
        linear_schedule(init, end, steps, 5),
        polynomial_schedule(init, end, 2.0, steps, 5),
    ):
        for count in (0, 5):
            assert schedule(count) == np.float32(init)
        for count in (steps + 5, steps + 6, 2**31 - 1):
            assert schedule(count) == np.float32(end)


def test_ends_far_apart():
    assert linear_schedule(1e-8, 1.0, 10)(0) == np.float32(1e-8)
    assert linear_schedule(1.0, 1e-8, 10)(10) == np.float32(1e-8)


def test_fraction_that_remains():
    fractions = [float(remaining(t, 4, 2)) for t in range(8)]
    assert fractions == [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert [float(remaining(t, 0, 2)) for t in range(4)] == [1.0, 1.0, 0.0, 0.0]


def test_phases_of_no_steps_and_of_one():
    jump = linear_schedule(1.0, 0.25, 0, 3)
    assert [float(jump(t)) for t in range(5)] == [1.0, 1.0, 1.0, 0.25, 0.25]
    assert linear_schedule(1.0, 0.25, 0)(0) == 0.25
    one = linear_schedule(1.0, 0.25, 1, 3)
    assert [float(one(t)) for t in range(6)] == [1.0, 1.0, 1.0, 1.0, 0.25, 0.25]


def test_falls_with_every_step_beyond_what_float32_counts():
    steps = 2**26
    schedule = linear_schedule(1.0, 0.0, steps)
    check_falling_per_step(schedule, 2**25)
    late = check_falling_per_step(schedule, steps - 3000)
    np.testing.assert_array_equal(late, (3000 - np.arange(2000)) / steps)  # each one exact
    check_falling_per_step(polynomial_schedule(1.0, 0.0, 2.0, steps), 2**25)


def test_numbers_may_be_traced_and_batched():
    values = jax.vmap(lambda init: linear_schedule(init, 0.0, 4)(jnp.int32(2)))(jnp.arange(3.0))
    np.testing.assert_array_equal(values, [0.0, 0.5, 1.0])
    values = jax.vmap(lambda n: linear_schedule(1.0, 0.0, n)(1))(jnp.asarray([0, 1, 2]))
    np.testing.assert_array_equal(values, [0.0, 0.0, 0.5])


def test_values():
    check_value(constant_schedule(0.1), constant_schedule(0.2), [0.1])
    other = linear_schedule(1.0, 0.0, 11)
    check_value(linear_schedule(1.0, 0.0, 10), other, [1.0, 0.0, 10, 0])
    schedule = polynomial_schedule(1.0, 0.0, 2.0, 10, 3)
    check_value(schedule, polynomial_schedule(1.0, 0.0, 1.0, 10, 3), [1.0, 0.0, 2.0, 10, 3])
    assert linear_schedule(1, 0, 10) == linear_schedule(1.0, jnp.zeros(()), np.int64(10))
    assert gradtx.sgd(linear_schedule(1.0, 0.0, 10)) != gradtx.sgd(linear_schedule(1.0, 0.0, 9))


def test_unsigned_and_long_counts():
    assert float(linear_schedule(0.1, 0.0, 3)(jnp.uint32(5))) == 0.0
    assert float(linear_schedule(1.0, 0.0, 3, 5)(jnp.uint32(0))) == 1.0
    assert float(linear_schedule(1.0, 0.0, 2**31 - 1, 10)(jnp.int32(0))) == 1.0
