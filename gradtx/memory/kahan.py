"""Compensated addition of updates to narrow parameters (Kahan, 1965).

y = u + c spacing(x)                          the update, and what earlier ones are owed
x_new = round(x + y)
c_new = (y - (x_new - x)) / spacing(x_new)    what this rounding lost
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.leaf import never_false
from gradtx.core.slot import Inner, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import static
from gradtx.memory.rounding import is_low, map_low, rounded, update_to


class KahanState(NamedTuple):
    """What rounding has lost of each narrow parameter, and the inner transformation's state.

    `compensation` is `None` for parameters in float32 or wider. Of int16 it is in units of
    2^-16 of the spacing of the parameter's values, of int8 in 2^-8; floats are in spacings.
    """

    compensation: Annotated[Updates, Slot(read_late=True)]
    inner_state: Inner


class kahan(GradientTransformation):
    """Adds to the next update what rounding a bfloat16 or float16 parameter lost of this one.

        y = u + c spacing(x);  x_new = round(x + y);  c_new = (y - (x_new - x)) / spacing(x_new)

    spacing(x) is the distance between the values of the parameter's dtype around x: 2^(e - 7) for
    bfloat16 and 2^(e - 10) for float16, where 2^e <= |x| < 2^(e + 1), and not below 2^-107.

    The compensation is up to half a spacing, which int16 divides into 2^15 steps: together with
    the parameter it is a number of 24 bits for bfloat16, as many as float32 has, and of 27 for
    float16. Updates below 2^-24 of a bfloat16 parameter can be lost (2^-27 for float16); 1,000
    equal ones of 1e-5 of it end within 1 % of float32. In int8, one byte, those below 2^-16 can
    be lost (2^-19), in a float16 compensation those below 2^-20 (2^-23). Parameters in float32
    or wider are left to the inner transformation alone.

    The compensation is of what `apply_updates` makes of the update that is returned. Where the
    new parameter is not between half and twice the old one, that may end beside the nearest
    value, and integers do not hold as much: up to 2^-7 of that update is lost (2^-10 for
    float16), if the old one was not 0. With `dtype=jnp.float32` nothing is.

    `quantize_state` leaves integers as they are. With `dtype=jnp.float32` it can store the
    compensation in 8 bits; stochastic rounding then keeps steps below those that int8 holds.

    Put it outermost: nothing may change the updates after. Parameters may be changed from
    outside: they keep the compensation as a part of their new spacing.

    Source: Kahan, "Further remarks on reducing truncation errors", 1965, Communications of the
    ACM 8(1); for bfloat16 weights Zamirai et al., "Revisiting BFloat16 training", 2020,
    arXiv:2010.06192, Algorithm 3; in units of the spacing Gonzalez Ortiz, Gupta, Renard, Blalock,
    "FlashOptim: Optimizers for memory efficient training", 2026, arXiv:2602.23349.

    Args:
      inner: the transformation whose updates are added.
      dtype: of the compensation: int16, int8, or a floating dtype.

    Raises:
      TypeError: `inner` is not a transformation, or `dtype` not such a dtype.
      ValueError: in `update`: `params` is missing.

    >>> tx = gradtx.kahan(gradtx.adamw(1e-3))
    >>> tx = gradtx.kahan(gradtx.adamw(1e-3), dtype=jnp.int8)
    >>> tx = gradtx.kahan(gradtx.adamw(1e-3), dtype=jnp.float32)
    >>> tx = gradtx.kahan(gradtx.sgd(1e-3))
    >>> params, grads = jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.bfloat16)
    >>> state = tx.init(params)
    >>> for _ in range(100):
    ...     params, state = tx.step(grads, state, params)
    >>> print(params, state.compensation / 2**16)  # of a spacing of 2^-8
    [0.898438] [0.40031433]
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    inner: GradientTransformation
    dtype: DTypeLike = static(default=np.dtype(np.int16), kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        object.__setattr__(self, "dtype", _checked(self.dtype))

    def init(self, params: Params) -> KahanState:
        def zeros(leaf: Any) -> Any:
            return jnp.zeros_like(leaf, dtype=self.dtype) if is_low(leaf) else None

        return KahanState(jax.tree.map(zeros, params), self.inner.init(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, inner_state = self.inner.transform(
            updates, state.inner_state, params, **extra_args
        )
        updates, compensation = map_low(_compensate, None, updates, params, state.compensation)
        return updates, KahanState(compensation, inner_state)

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(state.inner_state, params)


@jax.jit
def _compensate(_: None, u: jax.Array, p: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = p.astype(jnp.float32)
    owed = u.astype(jnp.float32) + c.astype(jnp.float32) / _one(c.dtype) * _spacing(x, p.dtype)
    update = update_to(rounded(x + owed, p.dtype), p)
    moved = rounded(x + update, p.dtype)
    compensation = _stored((owed - (moved - x)) / _spacing(moved, p.dtype), c.dtype)
    return _apart(update, compensation, p.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _apart(update: jax.Array, compensation: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """The same two; on a CPU each is formed from one array that holds the bits of both.

    XLA's CPU backend makes a kernel of each. The second would want the old parameter or the old
    compensation, which the first has overwritten: it would copy one, and store the inner update.

    Args:
      update: float32, of values that `dtype` holds.
      compensation: where it has more than 16 bits, both stay as they are.
      dtype: of the parameter.
    """
    bits, kept = (f"uint{8 * np.dtype(d).itemsize}" for d in (dtype, compensation.dtype))

    def apart(update: jax.Array, compensation: jax.Array) -> tuple[jax.Array, jax.Array]:
        high = jax.lax.bitcast_convert_type(update.astype(dtype), bits).astype(jnp.uint32)
        low = jax.lax.bitcast_convert_type(compensation, kept).astype(jnp.uint32)
        both = (high << np.uint32(16)) | low
        # XLA takes a division for too dear to make in both kernels; the code generator behind it
        # sees that it is one by 1.
        both = both // jnp.where(never_false(both), np.uint32(1), np.uint32(2))
        high, low = (both >> np.uint32(16)).astype(bits), both.astype(kept)
        update = jax.lax.bitcast_convert_type(high, dtype).astype(jnp.float32)
        return update, jax.lax.bitcast_convert_type(low, compensation.dtype)

    if compensation.dtype.itemsize > 2:
        return update, compensation
    result: tuple[jax.Array, jax.Array] = jax.lax.platform_dependent(
        update, compensation, cpu=apart, default=lambda *both: both
    )
    return result


@_apart.defjvp
def _apart_jvp(dtype: Any, primals: Any, tangents: Any) -> tuple[Any, Any]:
    return _apart(*primals, dtype), tangents


def _spacing(x: jax.Array, dtype: Any) -> jax.Array:
    """The distance between the values of `dtype` around each of `x`, of which it is one."""
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    exponent = jax.lax.bitcast_convert_type(x, jnp.uint32) & np.uint32(0x7F800000)
    power = jax.lax.bitcast_convert_type(exponent, jnp.float32)
    # Not below 2^-100: what is divided by it is to stay finite, and steps of it normal numbers.
    smallest = np.float32(max(float(info.tiny), 2.0**-100))
    return jnp.maximum(power, smallest) * np.float32(2.0**-info.nmant)


def _one(dtype: Any) -> Any:
    """What stands for one spacing."""
    integer = jnp.issubdtype(dtype, jnp.integer)
    return np.float32(2.0 ** (8 * dtype.itemsize) if integer else 1.0)


def _stored(spacings: jax.Array, dtype: Any) -> jax.Array:
    """A number of spacings as `dtype` holds it, or the nearest that it holds."""
    integer = jnp.issubdtype(dtype, jnp.integer)
    info = jnp.iinfo(dtype) if integer else jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    units = jnp.round(spacings * _one(dtype)) if integer else spacings
    return jnp.clip(units, np.float32(info.min), np.float32(info.max)).astype(dtype)


def _checked(dtype: Any) -> Any:
    message = "dtype must be int16, int8 or a floating dtype, got "
    if dtype is None:  # float64 to NumPy
        raise TypeError(f"{message}None")
    try:
        result = jnp.dtype(dtype)
    except TypeError:
        raise TypeError(f"{message}{dtype!r}") from None
    if result not in (np.int16, np.int8) and not jnp.issubdtype(result, jnp.floating):
        raise TypeError(f"{message}{result.name}")
    return result
