"""Hyperparameters: their types, their checks at construction, and their value at a step."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core.value import Value


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Compensated:
    """A traced hyperparameter with the rounding error of its float32: value + error.

    `1 - b` of a float32 b = 0.999 is off by 1.3e-5. Here it is (1 - value) - error, which is
    exact to float32; all else computes with the sum.
    """

    value: jax.Array
    error: jax.Array

    def __jax_array__(self) -> jax.Array:
        return self.value + self.error

    def __rsub__(self, other: Any) -> Any:
        return (other - self.value) - self.error

    def __sub__(self, other: Any) -> Any:
        return self.__jax_array__() - other

    def __add__(self, other: Any) -> Any:
        return self.__jax_array__() + other

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self.__jax_array__() * other

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self.__jax_array__() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.__jax_array__()

    def __pow__(self, other: Any) -> Any:
        return self.__jax_array__() ** other

    def __rpow__(self, other: Any) -> Any:
        return other ** self.__jax_array__()

    def __neg__(self) -> Any:
        return -self.__jax_array__()

    def __lt__(self, other: Any) -> Any:
        return self.__jax_array__() < other

    def __gt__(self, other: Any) -> Any:
        return self.__jax_array__() > other


Hyper = float | jax.Array
ScheduleFn = Callable[[Any], Any]
ScalarOrSchedule = Hyper | ScheduleFn


class Schedule(Value):
    """Base of the schedules: a value that is called with a step count and gives a number.

    The first call of a training run is with count 0.
    """

    def __call__(self, count: ArrayLike) -> jax.Array:
        raise NotImplementedError  # abstract


def value_at(hyper: ScalarOrSchedule, count: ArrayLike) -> Hyper:
    """The number that `hyper` stands for at step `count`."""
    value: Hyper = hyper(count) if callable(hyper) else hyper
    return value


def as_float(count: ArrayLike) -> jax.Array:
    """`count` in the widest float that is enabled: float32, or float64 under x64."""
    return jnp.asarray(count, dtype=jnp.result_type(float))


def as_count(count: ArrayLike) -> jax.Array:
    """`count` as a signed integer, so that differences of counts may be negative."""
    array = jnp.asarray(count)
    if not jnp.issubdtype(array.dtype, jnp.unsignedinteger):
        return array
    return jnp.minimum(array, jnp.asarray(2**31 - 1, array.dtype)).astype(jnp.int32)


def check_number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raises unless `value` is a finite number from `low` to `high`; ends excluded where open.

    Tracers are let pass: they have no value yet.

    Raises:
      TypeError: `value` is not a number, array or schedule.
      ValueError: `value` is a concrete number outside the range, or NaN.
    """
    if isinstance(value, jax.core.Tracer | Compensated):
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Number | np.ndarray | jax.Array):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    array = np.asarray(value)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    if not real:
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if array.ndim:
        raise ValueError(
            f"{name} must be a single number, got an array of shape {array.shape}; "
            "use jax.vmap to run a batch of them"
        )
    above = array > low if open_low else array >= low
    below = array < high if open_high else array <= high
    if not np.all(above & below & np.isfinite(array)):
        raise ValueError(f"{name} must be {_interval(low, high, open_low, open_high)}, got {value}")


def check_fraction(name: str, value: Any) -> None:
    """Raises unless `value` is in [0, 1), as a decay rate must be."""
    check_number(name, value, 0.0, 1.0, open_high=True)


def check_nonnegative(name: str, value: Any) -> None:
    """Raises unless `value` is finite and at least 0."""
    check_number(name, value, 0.0)


def check_positive(name: str, value: Any) -> None:
    """Raises unless `value` is finite and greater than 0."""
    check_number(name, value, 0.0, open_low=True)


def check_rate(name: str, value: Any) -> None:
    """Raises unless `value` is a schedule, or finite and at least 0."""
    if not callable(value):
        check_nonnegative(name, value)


def check_steps(name: str, value: Any, low: int = 0) -> None:
    """Raises unless `value` is a whole number of at least `low`."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{name} must be a whole number, got {value}")
    check_number(name, value, low)


def _interval(low: float, high: float, open_low: bool, open_high: bool) -> str:
    if high == math.inf:
        if low == -math.inf:
            return "finite"
        return f"finite and {'>' if open_low else '>='} {low:g}"
    return f"in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
