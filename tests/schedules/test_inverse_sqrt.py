"""Decay with the inverse square root of the step."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from gradtx import inverse_sqrt_schedule
from tests.oracles import few
from tests.schedules.common import check_falling_per_step, check_value, check_values

values = st.floats(0.1, 2.0)


def inverse_sqrt(init, peak, warmup, timescale):
    def value(t):
        if t < warmup:
            return init + (peak - init) * t / warmup
        return peak * math.sqrt(timescale / (timescale + t - warmup))

    return value


@few
@given(init=values, peak=values, warmup=st.integers(1, 30), timescale=st.integers(1, 50))
def test_against_the_formula(init, peak, warmup, timescale):
    args = init, peak, warmup
    check_values(inverse_sqrt_schedule(*args, timescale), inverse_sqrt(*args, timescale))
    check_values(inverse_sqrt_schedule(*args), inverse_sqrt(*args, warmup))
    check_values(
        inverse_sqrt_schedule(init, peak, 0, timescale), inverse_sqrt(init, peak, 0, timescale)
    )


def test_the_transformers():
    """Equation 3 of "Attention is all you need"."""
    width, warmup = 64, 20
    schedule = inverse_sqrt_schedule(0.0, (width * warmup) ** -0.5, warmup)
    check_values(
        schedule, lambda t: width**-0.5 * min((t or 1) ** -0.5, t * warmup**-1.5), steps=200
    )


def test_t5():
    schedule = inverse_sqrt_schedule(10**-0.5, 10**-0.5, 10)
    check_values(schedule, lambda t: 1 / math.sqrt(max(t, 10)))


def test_exact_values():
    schedule = inverse_sqrt_schedule(1e-8, 0.3, 4)
    assert schedule(0) == np.float32(1e-8) and schedule(4) == np.float32(0.3)
    schedule = inverse_sqrt_schedule(0.0, 1.0, 2**28)
    assert [float(schedule(t)) for t in (0, 2**27, 2**28, 2**30)] == [0.0, 0.5, 1.0, 0.5]
    one = inverse_sqrt_schedule(0.5, 1.0, 1)
    assert [float(one(t)) for t in (0, 1, 4)] == [0.5, 1.0, 0.5]
    assert [float(inverse_sqrt_schedule(0.5, 1.0, 0, 1)(t)) for t in (0, 3)] == [1.0, 0.5]
    late = inverse_sqrt_schedule(0.0, 1.0, 1, 2**31 - 1)(2**31 - 1)
    np.testing.assert_allclose(late, 0.5**0.5, rtol=1e-6)


def test_falls_beyond_what_float32_counts():
    check_falling_per_step(inverse_sqrt_schedule(0.0, 1.0, 2**24), 2**25)


def test_counts_of_any_kind_and_traced_numbers():
    schedule = inverse_sqrt_schedule(0.1, 1.0, 3)
    for t in range(9):
        counts = np.int64(t), jnp.int32(t), jnp.uint32(t), jnp.int8(t)
        assert {float(schedule(count)) for count in counts} == {float(schedule(t))}
    batch = jnp.asarray([4, 16])
    found = jax.vmap(lambda n: inverse_sqrt_schedule(0.0, 1.0, n)(16))(batch)
    np.testing.assert_allclose(found, [0.5, 1.0], rtol=1e-6)


def test_values():
    schedule = inverse_sqrt_schedule(0.0, 1.0, 4)
    check_value(schedule, schedule.replace(timescale=5), [0.0, 1.0, 4])
    check_value(inverse_sqrt_schedule(0.0, 1.0, 0, 5), schedule, [0.0, 1.0, 0, 5])


def test_no_steps_need_a_timescale():
    with pytest.raises(ValueError, match="timescale must be given where warmup_steps is 0"):
        inverse_sqrt_schedule(0.0, 1.0, 0)
