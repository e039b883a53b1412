"""One schedule after another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import constant_schedule, exponential_decay, join_schedules, linear_schedule
from tests.schedules.common import check_optax, check_value, check_values

PHASES = [linear_schedule(0.0, 1.0, 10), exponential_decay(1.0, 5, 0.5), constant_schedule(0.3)]


def value(t):
    if t < 10:
        return t / 10
    return 0.5 ** ((t - 10) / 5) if t < 30 else 0.3


def test_each_phase_counts_from_its_own_beginning():
    check_values(join_schedules(PHASES, [10, 30]), value)


@pytest.mark.parametrize("boundaries", [[10, 30], [0, 30], [10, 10], [10, 11], [1, 2]])
def test_optax(boundaries):
    check_optax(join_schedules(PHASES, boundaries), optax.join_schedules(PHASES, boundaries))


def test_phases_of_no_steps_are_passed_over():
    schedule = join_schedules(PHASES, [0, 0])
    np.testing.assert_allclose(schedule(0), 0.3, 1e-6)
    schedule = join_schedules(PHASES, [2, 3])
    np.testing.assert_allclose([float(schedule(t)) for t in range(4)], [0.0, 0.1, 1.0, 0.3], 1e-6)
    assert join_schedules(PHASES[:1], [])(5) == 0.5


def test_a_phase_that_is_not_running_may_be_undefined():
    def root(count):
        return jnp.sqrt(10.0 - count)

    with jax.numpy_dtype_promotion("standard"):
        assert join_schedules([root, constant_schedule(0.5)], [5])(50) == 0.5


def test_a_phase_that_is_not_running_counts_from_zero():
    seen = []

    def record(count):
        seen.append(int(count))
        return 1.0

    schedule = join_schedules([constant_schedule(0.5), record], [5])
    assert [float(schedule(t)) for t in (3, 5, 7)] == [0.5, 1.0, 1.0]
    assert seen == [0, 0, 2]


def test_late_boundaries_are_met_at_their_step():
    step = 2**25 + 1
    schedule = join_schedules([constant_schedule(1.0), linear_schedule(0.5, 0.0, 4)], [step])
    values = jax.vmap(schedule)(step + jnp.arange(-2, 3))
    np.testing.assert_array_equal(values, [1.0, 1.0, 0.5, 0.375, 0.25])


def test_values():
    schedule = join_schedules(PHASES[1:], [30])
    leaves = [*jax.tree.leaves(PHASES[1:]), 30]
    check_value(schedule, join_schedules(PHASES[1:], [31]), leaves)
    assert join_schedules([max], []) == join_schedules([max], []) != join_schedules([min], [])


@pytest.mark.parametrize(
    "phases, boundaries, error, words",
    [
        ([max, 0.1], [5], TypeError, "callable"),
        ([max, min], [], ValueError, "boundaries"),
        ([max, min], [1, 2], ValueError, "boundaries"),
        ([], [], ValueError, "schedules"),
        ([max, min, max], [5, 4], ValueError, r"boundaries\[1\]"),
        ([max, min], [-1], ValueError, r"boundaries\[0\]"),
        ([max, min], [1.5], ValueError, r"boundaries\[0\]"),
    ],
)
def test_errors(phases, boundaries, error, words):
    with pytest.raises(error, match=words):
        join_schedules(phases, boundaries)


def test_boundaries_of_any_kind_of_number_are_the_same():
    schedules = [constant_schedule(1.0), constant_schedule(2.0)]
    plain = join_schedules(schedules, [3])
    assert plain == join_schedules(schedules, np.array([3]))
    assert plain == join_schedules(schedules, [3.0])
