"""One-cycle schedules."""

import itertools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from gradtx import cosine_onecycle_schedule, linear_onecycle_schedule
from tests.oracles import few
from tests.schedules.common import check_falling_per_step, check_optax, check_value, check_values


def through(knots, shape):
    def value(t):
        for (begin, start), (end, stop) in itertools.pairwise(knots):
            if begin <= t < end:
                return start + (stop - start) * shape((t - begin) / (end - begin))
        return knots[-1][1]

    return value


def linear(steps, peak, start, final, div, final_div):
    knots = [(0, peak / div), (int(start * steps), peak), (int(final * steps), peak / div)]
    return through([*knots, (steps, peak / div / final_div)], lambda x: x)


def cosine(steps, peak, start, div, final_div):
    knots = [(0, peak / div), (int(start * steps), peak), (steps, peak / div / final_div)]
    return through(knots, lambda x: (1 - math.cos(math.pi * x)) / 2)


@few
@given(
    steps=st.integers(1, 50), peak=st.floats(0.1, 2.0),
    start=st.floats(0.0, 0.5), final=st.floats(0.5, 1.0),
    div=st.floats(0.5, 30.0), final_div=st.floats(0.5, 1e4),
)  # fmt: skip
def test_against_the_formula(steps, peak, start, final, div, final_div):
    args = steps, peak, start, final, div, final_div
    check_values(linear_onecycle_schedule(*args), linear(*args))
    args = steps, peak, start, div, final_div
    check_values(cosine_onecycle_schedule(*args), cosine(*args))


@pytest.mark.parametrize(
    "args",
    [
        (50, 0.7),
        (10, 1.0, 0.5),
        (50, 0.1, 0.29, 0.6, 3.0, 7.0),
        (10, 1.0, 0.28, 0.79),
        (50, 1.0, 0.02),
    ],
)
def test_optax(args):
    check_optax(linear_onecycle_schedule(*args), optax.linear_onecycle_schedule(*args))
    args = (*args[:3], *args[4:])
    check_optax(cosine_onecycle_schedule(*args), optax.cosine_onecycle_schedule(*args))


def test_the_knots_are_exact():
    schedule = linear_onecycle_schedule(10, 0.3, 0.2, 0.7, 3.0, 7.0)
    knots = {0: 0.3 / 3.0, 2: 0.3, 7: 0.3 / 3.0, 10: 0.3 / 3.0 / 7.0, 2**31 - 1: 0.3 / 3.0 / 7.0}
    assert {t: float(schedule(t)) for t in knots} == {t: np.float32(v) for t, v in knots.items()}
    schedule = cosine_onecycle_schedule(10, 0.3, 0.2, 3.0, 7.0)
    del knots[7]
    assert {t: float(schedule(t)) for t in knots} == {t: np.float32(v) for t, v in knots.items()}


def test_phases_of_no_steps():
    """A dict of boundaries, as Optax builds one, would lose a phase here."""
    rest = {"div_factor": 2.0, "final_div_factor": 2.0}
    schedule = linear_onecycle_schedule(4, 1.0, 0.0, 1.0, **rest)
    assert [float(schedule(t)) for t in range(6)] == [1.0, 0.875, 0.75, 0.625, 0.25, 0.25]
    schedule = linear_onecycle_schedule(4, 1.0, 0.5, 0.5, **rest)
    assert [float(schedule(t)) for t in range(5)] == [0.5, 0.75, 0.5, 0.375, 0.25]
    one = linear_onecycle_schedule(1, 1.0, **rest), cosine_onecycle_schedule(1, 1.0, **rest)
    assert [[float(schedule(t)) for t in range(3)] for schedule in one] == [
        [0.5, 0.25, 0.25],
        [1.0, 0.25, 0.25],
    ]


def test_falls_beyond_what_float32_counts():
    steps = 2**27
    check_falling_per_step(linear_onecycle_schedule(steps, 1.0), 2**26)
    check_falling_per_step(cosine_onecycle_schedule(steps, 1.0), 2**26)


def test_counts_of_any_kind_and_batched_peaks():
    for make in (linear_onecycle_schedule, cosine_onecycle_schedule):
        schedule = make(10, 1.0)
        for t in (0, 3, 5, 10, 11):
            counts = np.int64(t), jnp.int32(t), jnp.uint32(t), jnp.int8(t)
            assert {float(schedule(count)) for count in counts} == {float(schedule(t))}
        found = jax.vmap(lambda peak, make=make: make(10, peak)(3))(jnp.asarray([1.0, 2.0]))
        np.testing.assert_array_equal(found, [1.0, 2.0])


def test_values():
    schedule = linear_onecycle_schedule(10, 1.0)
    check_value(schedule, schedule.replace(pct_final=0.9), [1.0, 25.0, 1e4])
    assert schedule == linear_onecycle_schedule(np.int64(10), jnp.ones(()), np.float64(0.3))
    schedule = cosine_onecycle_schedule(10, 1.0)
    check_value(schedule, schedule.replace(transition_steps=11), [1.0, 25.0, 1e4])


def test_where_phases_lie_is_structure():
    for name in ("transition_steps", "pct_start"):
        with pytest.raises(TypeError, match=f"{name} must be a concrete number"):
            jax.jit(lambda x, n=name: cosine_onecycle_schedule(10, 1.0).replace(**{n: x}))(1)
    with pytest.raises(ValueError, match=r"pct_final must be in \[0.5, 1\]"):
        linear_onecycle_schedule(10, 1.0, 0.5, 0.4)
