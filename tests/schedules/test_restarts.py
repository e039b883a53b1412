"""Warm restarts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import sgdr_schedule
from tests.schedules.common import check_falling_per_step, check_optax, check_value, check_values

CYCLES = [
    {"init_value": 0.25, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10},
    {"init_value": 0.0, "peak_value": 0.5, "warmup_steps": 5, "decay_steps": 21, "end_value": 0.1},
    {"init_value": 0.1, "peak_value": 0.7, "warmup_steps": 1, "decay_steps": 2, "exponent": 2.0},
]


def value(t):
    for cycle in CYCLES:
        end, peak = cycle.get("end_value", 0.0), cycle["peak_value"]
        warmup, steps = cycle["warmup_steps"], cycle["decay_steps"]
        if t < warmup:
            return cycle["init_value"] + (peak - cycle["init_value"]) * t / warmup
        if t < steps:
            c = (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2
            return end + (peak - end) * c ** cycle.get("exponent", 1.0)
        t -= steps
    return end


def test_against_the_formula():
    check_values(sgdr_schedule(CYCLES), value)


@pytest.mark.parametrize("cycles", [CYCLES, CYCLES[:1], CYCLES[1:]])
def test_optax(cycles):
    check_optax(sgdr_schedule(cycles), optax.sgdr_schedule(cycles))


def test_each_cycle_begins_and_ends_exactly():
    schedule = sgdr_schedule(iter(CYCLES))
    knots = {0: 0.25, 3: 1.0, 10: 0.0, 15: 0.5, 31: 0.1, 32: 0.7, 33: 0.0, 2**31 - 1: 0.0}
    assert {t: float(schedule(t)) for t in knots} == {t: np.float32(v) for t, v in knots.items()}


def test_late_cycles_begin_at_their_step():
    long = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 2**25 + 1}
    schedule = sgdr_schedule([long, long])
    near = jax.vmap(schedule)(2**25 + jnp.arange(3))
    assert near[0] < 1e-6 and (near[1:] == 1.0).all()
    check_falling_per_step(schedule, 2**25 + 2**24)


def test_numbers_may_be_traced_and_batched():
    def at(peak, steps):
        return sgdr_schedule(
            [CYCLES[0] | {"decay_steps": steps}, CYCLES[0] | {"peak_value": peak}]
        )(13)

    found = jax.vmap(at)(jnp.asarray([1.0, 2.0]), jnp.asarray([10, 13]))
    np.testing.assert_allclose(found, [1.0, 0.25], rtol=1e-6)


def test_values():
    schedule = sgdr_schedule(CYCLES[:1])
    check_value(schedule, sgdr_schedule(CYCLES[1:2]), [10, 0.25, 1.0, 3])
    assert schedule == sgdr_schedule(({**CYCLES[0], "decay_steps": np.int64(10)},))


@pytest.mark.parametrize(
    "cycles, error, words",
    [
        (None, TypeError, "cosine_kwargs must be"),
        (CYCLES[0], TypeError, "cosine_kwargs must be a list of dicts"),
        ("abc", TypeError, "cosine_kwargs must be a list of dicts"),
        ([], ValueError, "cosine_kwargs must hold at least one dict"),
        ([CYCLES[0], 3], TypeError, r"cosine_kwargs\[1\] must be a dict, got 3"),
        ([CYCLES[0] | {"decay_steps": 2}], ValueError, r"cosine_kwargs\[0\]: decay_steps"),
        ([CYCLES[0] | {"peak": 2}], TypeError, r"cosine_kwargs\[0\]: .*'peak'"),
    ],
)
def test_errors(cycles, error, words):
    with pytest.raises(error, match=words):
        sgdr_schedule(cycles)
