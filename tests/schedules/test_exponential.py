"""Exponential decay."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from gradtx import exponential_decay
from tests.oracles import few
from tests.schedules.common import check_optax, check_value, check_values


def exponential(init, steps, rate, begin=0, staircase=False, end=None):
    def value(t):
        power = max(t - begin, 0) / steps
        result = init * rate ** (math.floor(power) if staircase else power)
        if end is None:
            return result
        return max(result, end) if rate < 1 else min(result, end)

    return value


@pytest.mark.parametrize("staircase", [False, True])
@pytest.mark.parametrize("end", [None, 0.3])
def test_against_the_formula(staircase, end):
    @few
    @given(
        init=st.floats(0.1, 2.0), steps=st.integers(1, 30), rate=st.floats(0.5, 1.05),
        begin=st.integers(0, 20),
    )  # fmt: skip
    def check(init, steps, rate, begin):
        args = init, steps, rate, begin, staircase, end
        check_values(exponential_decay(*args), exponential(*args))

    check()


@pytest.mark.parametrize(
    "args",
    [
        (1.0, 10, 0.5),
        (1.0, 7, 0.9, 5, True),
        (1.0, 7, 1.1, 5, False, 2.0),
        (1, 5, 0.5, 0, True, 0.2),
    ],
)
def test_optax(args):
    check_optax(exponential_decay(*args), optax.exponential_decay(*args))


def test_exact_where_the_power_is_whole():
    schedule = exponential_decay(1.0, 10, 0.5, 3)
    assert [float(schedule(t)) for t in (0, 3, 13, 23)] == [1.0, 1.0, 0.5, 0.25]
    stairs = exponential_decay(1.0, 10, 0.5, staircase=True)
    assert [float(stairs(t)) for t in (9, 10, 19, 20)] == [1.0, 0.5, 0.5, 0.25]


def test_end_value_bounds_below_or_above():
    assert exponential_decay(1.0, 1, 0.1, end_value=0.25)(9) == 0.25
    assert exponential_decay(1.0, 1, 10.0, end_value=4.0)(9) == 4.0
    assert exponential_decay(1.0, 1, 1.0, end_value=4.0)(9) == 1.0


def test_does_not_rise_beyond_what_float32_counts():
    schedule = exponential_decay(1.0, 2**24, 0.5)
    values = np.asarray(jax.vmap(schedule)(2**25 + jnp.arange(2000)))
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(values[0], 0.25, rtol=1e-6)


def test_values():
    check_value(exponential_decay(1.0, 10, 0.5), exponential_decay(1.0, 10, 0.6), [1.0, 10, 0.5, 0])
    schedule = exponential_decay(1.0, 10, 0.5, 2, True, 0.1)
    check_value(schedule, schedule.replace(staircase=False), [1.0, 10, 0.5, 2, 0.1])


def test_unsigned_counts():
    schedule = exponential_decay(1.0, 10, 0.5, transition_begin=5)
    assert float(schedule(jnp.uint32(0))) == 1.0
