"""Schedules in pieces: constant between boundaries, or interpolated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from gradtx.core.value import plain_number, static


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
        check_number("init_value", self.init_value)
        pieces = _checked_pieces(self.boundaries_and_scales)
        object.__setattr__(self, "boundaries_and_scales", pieces)

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
        check_number("init_value", self.init_value)
        pieces = _checked_pieces(self.boundaries_and_scales)
        object.__setattr__(self, "boundaries_and_scales", pieces)

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


def _checked_pieces(pieces: Any) -> dict[int, Hyper] | None:
    if pieces is None:
        return None
    if not isinstance(pieces, Mapping):
        raise TypeError(f"boundaries_and_scales must be a dict, got {pieces!r}")
    for boundary, factor in pieces.items():
        check_steps("a boundary", boundary)
        check_nonnegative(f"the factor at step {boundary}", factor)
    return {plain_number(b, whole=True): plain_number(factor) for b, factor in pieces.items()}
