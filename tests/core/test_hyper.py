import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.hyper import (
    Schedule,
    as_count,
    as_float,
    check_fraction,
    check_nonnegative,
    check_number,
    check_positive,
    check_rate,
    check_steps,
    value_at,
)


@pytest.mark.parametrize("value", [0.0, 0.999, np.float32(0.5), jnp.asarray(0.1)])
def test_fractions(value):
    check_fraction("b1", value)


@pytest.mark.parametrize("value", [1.0, -0.1, float("nan"), float("inf"), jnp.asarray(1.0)])
def test_no_fractions(value):
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got"):
        check_fraction("b1", value)


@pytest.mark.parametrize("value", ["0.1", None, True, [0.1], {}, np.asarray(["a"])])
def test_no_numbers(value):
    with pytest.raises(TypeError, match="rate must be"):
        check_number("rate", value)


def test_batches_are_refused():
    with pytest.raises(ValueError, match=r"b1 must be a single number, got .* \(2,\).*vmap"):
        check_fraction("b1", jnp.asarray([0.1, 0.2]))


def test_counts_are_signed():
    assert as_count(np.uint32(3)) - 5 == -2
    assert int(as_count(jnp.uint32(2**32 - 1))) == 2**31 - 1
    assert as_count(7).dtype == jnp.int32


def test_signs():
    check_nonnegative("eps", 0.0)
    check_positive("eps", 1e-30)
    with pytest.raises(ValueError, match="eps must be finite and >= 0, got -1"):
        check_nonnegative("eps", -1)
    with pytest.raises(ValueError, match="eps must be finite and > 0, got 0"):
        check_positive("eps", 0)
    with pytest.raises(ValueError, match="x must be finite, got inf"):
        check_number("x", float("inf"))


def test_steps():
    check_steps("steps", 0)
    check_steps("steps", 2.0)
    with pytest.raises(ValueError, match="steps must be a whole number"):
        check_steps("steps", 2.5)
    with pytest.raises(ValueError, match="steps must be finite and >= 1, got 0"):
        check_steps("steps", 0, low=1)


def test_tracers_pass_and_schedules_only_as_rates():
    jax.jit(lambda x: check_positive("x", x))(-1.0)
    check_rate("rate", gradtx.constant_schedule(-1.0))
    with pytest.raises(TypeError, match="x must be a number"):
        check_positive("x", gradtx.constant_schedule(1.0))
    with pytest.raises(ValueError, match="rate must be finite and >= 0"):
        check_rate("rate", -1.0)


def test_value_at():
    assert value_at(0.5, 3) == 0.5
    assert float(value_at(gradtx.linear_schedule(0.0, 1.0, 4), 2)) == 0.5
    assert value_at(lambda count: count + 1, 2) == 3
    with pytest.raises(NotImplementedError):
        Schedule()(0)


def test_as_float(x64):
    assert as_float(jnp.int32(3)).dtype == jnp.float64
