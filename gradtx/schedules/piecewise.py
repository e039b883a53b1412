"""Schedules in pieces: constant between boundaries, or interpolated."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import (
    Hyper,
    Schedule,
    as_float,
    check_nonnegative,
    check_number,
    check_steps,
)
from gradtx.core.value import static


class piecewise_constant_schedule(Schedule):
    """Multiplies by a factor at each boundary and is constant between them.

    Args:
      init_value: value before the first boundary.
      boundaries_and_scales: from step to factor, >= 0; the factor counts from that step on.
        `None` for none.

    Raises:
      TypeError, ValueError: a value is not a finite number, a factor is negative, or a
        boundary is not a whole number >= 0.

    >>> schedule = gradtx.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.1})
    >>> print(schedule(9), schedule(10), schedule(19))
    1.0 0.5 0.5
    """

    init_value: Hyper
    boundaries_and_scales: Mapping[int, float] | None = None

    def validate(self) -> None:
        _check_pieces(self.init_value, self.boundaries_and_scales)

    def __call__(self, count: ArrayLike) -> jax.Array:
        count = jnp.asarray(count)
        value = as_float(self.init_value)
        for boundary, factor in sorted((self.boundaries_and_scales or {}).items()):
            value = jnp.where(count < boundary, value, value * factor)
        return value


class piecewise_interpolate_schedule(Schedule):
    """Multiplies by a factor towards each boundary, interpolating on the way there.

    Args:
      interpolate_type: `'linear'` or `'cosine'`.
      init_value: value at step 0.
      boundaries_and_scales: from step to factor, >= 0; at that step the value is the product
        of the factors so far and `init_value`. `None` for none.

    Raises:
      TypeError, ValueError: `interpolate_type` is neither; or as for
        `piecewise_constant_schedule`.

    >>> schedule = gradtx.piecewise_interpolate_schedule("linear", 1.0, {10: 0.5})
    >>> print(schedule(0), schedule(5), schedule(10), schedule(20))
    1.0 0.75 0.5 0.5
    """

    interpolate_type: str = static()
    init_value: Hyper
    boundaries_and_scales: Mapping[int, float] | None = None

    def validate(self) -> None:
        if self.interpolate_type not in ("linear", "cosine"):
            raise ValueError(
                f"interpolate_type must be 'linear' or 'cosine', got {self.interpolate_type!r}"
            )
        _check_pieces(self.init_value, self.boundaries_and_scales)

    def __call__(self, count: ArrayLike) -> jax.Array:
        count = jnp.asarray(count)
        value = as_float(self.init_value)
        start = value
        begin = 0
        for boundary, factor in sorted((self.boundaries_and_scales or {}).items()):
            end = start * factor
            done = as_float(jnp.clip(count - begin, 0, boundary - begin)) / max(boundary - begin, 1)
            if self.interpolate_type == "cosine":
                done = jnp.sin(0.5 * jnp.pi * done) ** 2
            value = jnp.where(count < begin, value, start + (end - start) * done)
            value = jnp.where(count < boundary, value, end)
            start, begin = end, boundary
        return value


def _check_pieces(init_value: Hyper, boundaries_and_scales: Mapping[int, float] | None) -> None:
    check_number("init_value", init_value)
    for boundary, factor in (boundaries_and_scales or {}).items():
        check_steps("a boundary", boundary)
        check_nonnegative(f"the factor at step {boundary}", factor)
