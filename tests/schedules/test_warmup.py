"""Schedules that begin with a linear warm-up."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from gradtx import (
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
    warmup_linear_decay_schedule,
)
from tests.oracles import few
from tests.schedules.common import check_falling_per_step, check_optax, check_value, check_values
from tests.schedules.test_cosine import cosine
from tests.schedules.test_exponential import exponential
from tests.schedules.test_polynomial import polynomial

values = st.floats(0.1, 2.0)


def warm(init, peak, warmup, after):
    return lambda t: init + (peak - init) * t / warmup if t < warmup else after(t - warmup)


@few
@given(init=values, peak=values, end=values, warmup=st.integers(0, 20), rest=st.integers(1, 30))
def test_against_the_formula(init, peak, end, warmup, rest):
    schedule = warmup_constant_schedule(init, peak, warmup)
    check_values(schedule, warm(init, peak, warmup, lambda t: peak))
    schedule = warmup_cosine_decay_schedule(init, peak, warmup, warmup + rest, end, 2.0)
    check_values(schedule, warm(init, peak, warmup, cosine(peak, rest, end / peak, 2.0)))
    schedule = warmup_linear_decay_schedule(init, peak, warmup, warmup + rest, end)
    check_values(schedule, warm(init, peak, warmup, polynomial(peak, end, 1.0, rest)))
    args = rest, 0.8, 3, True, 0.05
    schedule = warmup_exponential_decay_schedule(init, peak, warmup, *args)
    check_values(schedule, warm(init, peak, warmup, exponential(peak, *args)))


@pytest.mark.parametrize("warmup", [1, 10])
def test_optax(warmup):
    args = 0.1, 1.0, warmup
    check_optax(warmup_constant_schedule(*args), optax.warmup_constant_schedule(*args))
    for rest in ((50,), (50, 0.2), (50, 0.2, 2.0), (warmup + 1,)):
        ours = warmup_cosine_decay_schedule(*args, *rest)
        check_optax(ours, optax.warmup_cosine_decay_schedule(*args, *rest))
    for rest in ((10, 0.5), (10, 0.5, 5, True, 0.3)):
        ours = warmup_exponential_decay_schedule(*args, *rest)
        check_optax(ours, optax.warmup_exponential_decay_schedule(*args, *rest))


def test_ends():
    for make in (
        lambda init, peak, n: warmup_constant_schedule(init, peak, n),
        lambda init, peak, n: warmup_cosine_decay_schedule(init, peak, n, n + 9, 0.25),
        lambda init, peak, n: warmup_exponential_decay_schedule(init, peak, n, 9, 0.5),
    ):
        assert (make(1e-8, 1.0, 4)(0), make(0.0, 0.3, 4)(4)) == (np.float32(1e-8), np.float32(0.3))
        assert make(0.0, 0.3, 0)(0) == np.float32(0.3)
        assert [float(make(0.0, 0.5, 1)(t)) for t in (0, 1)] == [0.0, 0.5]
    schedule = warmup_cosine_decay_schedule(0.0, 1.0, 2, 10, 0.25)
    assert (schedule(10), schedule(99)) == (0.25, 0.25)
    schedule = warmup_cosine_decay_schedule(0.0, 0.3, 2, 3, 0.1)
    assert (schedule(2), schedule(3)) == (np.float32(0.3), np.float32(0.1))


@few
@given(peak=st.floats(1e-8, 1.0), end=st.floats(1e-8, 1.0), rest=st.integers(1, 2**29))
def test_ends_are_exact(peak, end, rest):
    for schedule in (
        warmup_cosine_decay_schedule(1e-8, peak, 4, rest + 4, end),
        warmup_linear_decay_schedule(1e-8, peak, 4, rest + 4, end),
    ):
        assert (schedule(0), schedule(4)) == (np.float32(1e-8), np.float32(peak))
        for count in (rest + 4, rest + 5, 2**31 - 1):
            assert schedule(count) == np.float32(end)


def test_linear_phases_of_no_steps():
    def at(warmup, steps):
        schedule = warmup_linear_decay_schedule(0.25, 1.0, warmup, steps, 0.5)
        return [float(schedule(t)) for t in range(4)]

    assert at(0, 0) == [0.5, 0.5, 0.5, 0.5]
    assert at(1, 1) == [0.25, 0.5, 0.5, 0.5]
    assert at(0, 1) == [1.0, 0.5, 0.5, 0.5]
    assert at(1, 2) == [0.25, 1.0, 0.5, 0.5]


def test_cosine_to_a_peak_of_zero_is_zero():
    schedule = warmup_cosine_decay_schedule(1.0, 0.0, 2, 10, 0.0)
    assert [float(schedule(t)) for t in (0, 1, 2, 5, 10)] == [1.0, 0.5, 0.0, 0.0, 0.0]
    check_optax(schedule, optax.warmup_cosine_decay_schedule(1.0, 0.0, 2, 10, 0.0))


def test_falls_beyond_what_float32_counts():
    schedule = warmup_cosine_decay_schedule(0.0, 1.0, 2**25, 2**27)
    check_falling_per_step(schedule, 2**26)
    check_falling_per_step(warmup_linear_decay_schedule(0.0, 1.0, 2**25, 2**27), 2**26)
    rising = np.asarray(jax.vmap(schedule)(jnp.arange(1000, 2000)))
    assert (np.diff(rising) >= 0).all() and rising[-1] > rising[0]


def test_values():
    schedule = warmup_constant_schedule(0.0, 1.0, 10)
    check_value(schedule, warmup_constant_schedule(0.0, 1.0, 11), [0.0, 1.0, 10])
    schedule = warmup_cosine_decay_schedule(0.0, 1.0, 10, 100)
    check_value(schedule, schedule.replace(end_value=0.5), [0.0, 1.0, 10, 100, 0.0, 1.0])
    schedule = warmup_linear_decay_schedule(0.0, 1.0, 10, 100)
    check_value(schedule, schedule.replace(end_value=0.5), [0.0, 1.0, 10, 100, 0.0])
    schedule = warmup_exponential_decay_schedule(0.0, 1.0, 10, 5, 0.5)
    check_value(schedule, schedule.replace(staircase=True), [0.0, 1.0, 10, 5, 0.5, 0])


def test_numbers_may_be_traced_and_batched():
    def at(peak, warmup):
        return warmup_cosine_decay_schedule(0.0, peak, warmup, 20)(5)

    peaks, warmups = jnp.asarray([1.0, 0.0, 2.0]), jnp.asarray([10, 10, 5])
    np.testing.assert_allclose(jax.vmap(at)(peaks, warmups), [0.5, 0.0, 2.0], rtol=1e-6)


def test_unsigned_counts_and_ends():
    schedule = warmup_cosine_decay_schedule(0.0, 1.0, 2, 10, end_value=0.1)
    for count in (0, 1, 2, 9, 10, 11):
        assert schedule(jnp.uint32(count)) == schedule(count)
    assert float(schedule(10)) == float(schedule(10**9)) == float(jnp.float32(0.1))
    assert float(warmup_cosine_decay_schedule(0.0, 0.0, 2, 10, end_value=0.5)(10)) == 0.5
