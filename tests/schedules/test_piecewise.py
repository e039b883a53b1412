"""Schedules in pieces."""

import itertools
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given

from gradtx import piecewise_constant_schedule, piecewise_interpolate_schedule
from tests.oracles import few
from tests.schedules.common import check_optax, check_value, check_values

pieces = st.dictionaries(st.integers(1, 50), st.floats(0.1, 2.0), max_size=3)


def constant(init, pieces):
    return lambda t: init * math.prod(scale for step, scale in pieces.items() if step <= t)


def interpolated(kind, init, pieces):
    knots = [(0, init)]
    for step, scale in sorted(pieces.items()):
        knots.append((step, knots[-1][1] * scale))

    def value(t):
        for (begin, start), (end, stop) in itertools.pairwise(knots):
            if begin <= t < end:
                done = (t - begin) / (end - begin)
                if kind == "cosine":
                    done = (1 - math.cos(math.pi * done)) / 2
                return start + (stop - start) * done
        return knots[-1][1]

    return value


@few
@given(init=st.floats(0.1, 2.0), pieces=pieces)
def test_against_the_formula(init, pieces):
    check_values(piecewise_constant_schedule(init, pieces), constant(init, pieces))
    for kind in ("linear", "cosine"):
        schedule = piecewise_interpolate_schedule(kind, init, pieces)
        check_values(schedule, interpolated(kind, init, pieces))


@pytest.mark.parametrize("pieces", [None, {}, {10: 0.5}, {30: 0.1, 10: 3.0, 31: 0.5}, {1: 0.0}])
def test_optax(pieces):
    args = 0.7, pieces
    check_optax(piecewise_constant_schedule(*args), optax.piecewise_constant_schedule(*args))
    for kind in ("linear", "cosine"):
        args = kind, 0.7, pieces
        ours = piecewise_interpolate_schedule(*args)
        check_optax(ours, optax.piecewise_interpolate_schedule(*args))


def test_boundaries():
    schedule = piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.5})
    assert [float(schedule(t)) for t in (0, 9, 10, 19, 20, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert piecewise_constant_schedule(1.0, {0: 0.5})(0) == 0.5
    for kind in ("linear", "cosine"):
        schedule = piecewise_interpolate_schedule(kind, 1.0, {0: 0.5, 1: 0.5, 11: 3.0})
        assert [float(schedule(t)) for t in (0, 1, 6, 11, 99)] == [0.5, 0.25, 0.5, 0.75, 0.75]


def test_late_boundaries_are_met_at_their_step():
    step = 2**25 + 1
    counts = step + jnp.arange(-2, 2)
    values = jax.vmap(piecewise_constant_schedule(1.0, {step: 0.5}))(counts)
    np.testing.assert_array_equal(values, [1.0, 1.0, 0.5, 0.5])
    begin = {step: 1.0, step + 4: 0.0}
    values = jax.vmap(piecewise_interpolate_schedule("linear", 1.0, begin))(step + jnp.arange(6))
    np.testing.assert_array_equal(values, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0])


def test_values():
    schedule = piecewise_constant_schedule(1.0, {10: 0.5})
    check_value(schedule, piecewise_constant_schedule(1.0, {11: 0.5}), [1.0, 0.5])
    schedule = piecewise_interpolate_schedule("linear", 1.0, {10: 0.5})
    check_value(schedule, schedule.replace(interpolate_type="cosine"), [1.0, 0.5])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_interpolated_ends_are_exact(kind):
    schedule = piecewise_interpolate_schedule(kind, 1.0, {10: 1e-8})
    assert (schedule(0), schedule(10), schedule(11)) == (1.0, np.float32(1e-8), np.float32(1e-8))


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_piece_of_no_steps_has_a_gradient(kind):
    def at(init):
        return piecewise_interpolate_schedule(kind, init, {0: 0.5, 10: 0.5})(10)

    assert jax.grad(at)(1.0) == 0.25


def test_pieces_of_any_kind_of_number_are_the_same():
    plain = piecewise_constant_schedule(1.0, {10: 1.0})
    assert plain == piecewise_constant_schedule(1.0, {10.0: 1})
    with pytest.raises(TypeError, match="boundaries_and_scales must be a dict"):
        piecewise_constant_schedule(1.0, [(10, 1.0)])
