"""Cosine decay."""

import math

import hypothesis.strategies as st
import numpy as np
import optax
import pytest
from hypothesis import given

from gradtx import cosine_decay_schedule
from tests.oracles import few
from tests.schedules.common import check_falling_per_step, check_optax, check_value, check_values


def cosine(init, steps, alpha=0.0, exponent=1.0):
    def value(t):
        c = (1 + math.cos(math.pi * min(t, steps) / steps)) / 2
        return init * ((1 - alpha) * c**exponent + alpha)

    return value


@few
@given(
    init=st.floats(0.1, 2.0), steps=st.integers(1, 50), alpha=st.floats(0.0, 1.0),
    exponent=st.floats(0.5, 3.0),
)  # fmt: skip
def test_against_the_formula(init, steps, alpha, exponent):
    schedule = cosine_decay_schedule(init, steps, alpha, exponent)
    # Near its end the cosine is a difference: a root of it amplifies the rounding.
    check_values(schedule, cosine(init, steps, alpha, exponent))


@pytest.mark.parametrize("args", [(1.0, 40), (0.3, 1), (1.0, 20, 0.1), (1.0, 50, 0.1, 2.0)])
def test_optax(args):
    check_optax(cosine_decay_schedule(*args), optax.cosine_decay_schedule(*args))


def test_ends():
    schedule = cosine_decay_schedule(0.3, 10)
    assert (schedule(0), schedule(10), schedule(99)) == (np.float32(0.3), 0.0, 0.0)
    schedule = cosine_decay_schedule(1.0, 10, alpha=0.25)
    assert (schedule(0), schedule(10), schedule(2**31 - 1)) == (1.0, 0.25, 0.25)
    one = cosine_decay_schedule(1.0, 1)
    assert (one(0), one(1)) == (1.0, 0.0)


def test_falls_beyond_what_float32_counts():
    check_falling_per_step(cosine_decay_schedule(1.0, 2**26), 2**25)


def test_values():
    schedule = cosine_decay_schedule(1.0, 10, 0.1)
    check_value(schedule, schedule.replace(exponent=2.0), [1.0, 10, 0.1, 1.0])
