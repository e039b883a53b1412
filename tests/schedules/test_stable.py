"""Warm-up, stable phase, decay."""

import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from gradtx import warmup_stable_decay_schedule
from tests.oracles import few
from tests.schedules.common import check_falling_per_step, check_value, check_values

SHAPES = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}
every = pytest.mark.parametrize("decay_type", SHAPES)
values = st.floats(0.1, 2.0)


def warmup_stable_decay(init, peak, warmup, stable, decay, end, decay_type):
    def value(t):
        if t < warmup:
            return init + (peak - init) * t / warmup
        if t < warmup + stable:
            return peak
        if t >= warmup + stable + decay:
            return end
        return end + (peak - end) * SHAPES[decay_type]((t - warmup - stable) / decay)

    return value


@every
def test_against_the_formula(decay_type):
    @few
    @given(
        init=values, peak=values, end=values,
        warmup=st.integers(0, 15), stable=st.integers(0, 15), decay=st.integers(0, 20),
    )  # fmt: skip
    def check(init, peak, end, warmup, stable, decay):
        args = init, peak, warmup, stable, decay, end, decay_type
        check_values(warmup_stable_decay_schedule(*args), warmup_stable_decay(*args))

    check()


@every
@few
@given(peak=st.floats(1e-8, 1.0), end=st.floats(1e-8, 1.0), decay=st.integers(1, 2**30))
def test_ends_are_exact(decay_type, peak, end, decay):
    schedule = warmup_stable_decay_schedule(1e-8, peak, 4, 3, decay, end, decay_type)
    assert schedule(0) == np.float32(1e-8)
    for count in (4, 6, 7):
        assert schedule(count) == np.float32(peak)
    for count in (7 + decay, 8 + decay, 2**31 - 1):
        assert schedule(count) == np.float32(end)


@every
def test_phases_of_no_steps_and_of_one(decay_type):
    def at(warmup, stable, decay):
        schedule = warmup_stable_decay_schedule(0.25, 1.0, warmup, stable, decay, 0.5, decay_type)
        return [float(schedule(t)) for t in range(4)]

    assert at(0, 0, 0) == [0.5] * 4
    assert at(1, 0, 0) == [0.25, 0.5, 0.5, 0.5]
    assert at(0, 1, 0) == [1.0, 0.5, 0.5, 0.5]
    assert at(0, 0, 1) == [1.0, 0.5, 0.5, 0.5]
    assert at(1, 1, 1) == [0.25, 1.0, 1.0, 0.5]


@every
def test_falls_beyond_what_float32_counts(decay_type):
    schedule = warmup_stable_decay_schedule(0.0, 1.0, 10, 2**25, 2**26, 0.0, decay_type)
    if decay_type != "cosine":  # flat at its beginning
        check_falling_per_step(schedule, 2**25 + 20)
    check_falling_per_step(schedule, 2**26)


def test_the_root_is_precise_at_both_ends():
    steps = 2**26
    schedule = warmup_stable_decay_schedule(0.0, 1.0, 0, 5, steps, 0.0, "1-sqrt")
    for done in (1, 2, 3, steps - 2, steps - 1):
        left = (steps - done) / steps / (1 + math.sqrt(done / steps))
        np.testing.assert_allclose(schedule(5 + done), left, rtol=2e-7)
        np.testing.assert_allclose(1 - schedule(5 + done), 1 - left, rtol=1e-3)


@every
def test_counts_of_any_kind_and_traced_numbers(decay_type):
    schedule = warmup_stable_decay_schedule(0.1, 1.0, 2, 3, 4, 0.2, decay_type)
    for t in range(11):
        counts = (np.int64(t), jnp.int32(t), jnp.uint32(t), jnp.int8(t), jnp.float32(t))
        assert {float(schedule(count)) for count in counts} == {float(schedule(t))}

    def at(peak, warmup, decay):
        schedule = warmup_stable_decay_schedule(0.0, peak, warmup, 3, decay, decay_type=decay_type)
        return schedule(5)

    batch = jnp.asarray([1.0, 2.0]), jnp.asarray([10, 2]), jnp.asarray([0, 7])
    np.testing.assert_allclose(jax.vmap(at)(*batch), [0.5, 2.0], rtol=1e-6)


def test_values():
    schedule = warmup_stable_decay_schedule(0.0, 1.0, 2, 3, 4)
    check_value(schedule, schedule.replace(decay_type="cosine"), [0.0, 1.0, 2, 3, 4, 0.0])


@pytest.mark.parametrize("decay_type", ["sqrt", None, 1])
def test_decay_types(decay_type):
    with pytest.raises(ValueError, match="decay_type must be 'linear', 'cosine' or '1-sqrt'"):
        warmup_stable_decay_schedule(0.0, 1.0, 2, 3, 4, decay_type=decay_type)
