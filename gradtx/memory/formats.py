"""How the numbers of a slot are stored: one code for each, and one scale for each block.

    scale  = max |x| over the block, divided by the largest code's value
    code   = what is nearest to x / scale
    x      ~ value(code) scale

`PowerFormat` has value(c) = sign(c) |c|^p: p = 1 is linear, larger p has smaller steps near zero
(companding, as the mu-law of telephony). Roots and powers are square roots and squares, which
vectorise; published alternatives are Dettmers et al., "8-bit optimizers via block-wise
quantization", 2021, arXiv:2110.02861 (a table) and FlashOptim's softsign. `docs/memory.md` has
the measured errors of all of them.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.leaf import written_after
from gradtx.core.slot import Blocks
from gradtx.core.value import Value, dtype, static
from gradtx.memory.layout import (
    Layout,
    halves,
    layout_like,
    layout_of,
    one_of_each_block,
    packed,
    packed_shape,
    spread,
    spread_halves,
    unpacked,
)

LEAST_PRODUCT = 1.2e-38  # just above the least normal float32, below which XLA flushes to zero


class Format(Value):
    """Base: a way to store an array of float32.

    Attributes:
      default_block: entries in a block unless the user says; 0 where there are no scales.
      signed: whether it can hold negative numbers.
    """

    @property
    def default_block(self) -> int:
        raise NotImplementedError  # abstract

    @property
    def signed(self) -> bool:
        return True

    @property
    def bytes_each(self) -> float:
        """Bytes of a code."""
        return 1.0

    @property
    def default_rounding(self) -> str:
        """`"nearest"` or `"stochastic"`: how it rounds unless the user says."""
        return "nearest"

    def encode(
        self, x: jax.Array, layout: Layout, bits: jax.Array | None, keep_nonzero: bool
    ) -> Any:
        """What is stored of `x`.

        Args:
          x: float32.
          layout: of the blocks.
          bits: uint32 in the shape of `x` to round by at random; `None` rounds to nearest.
          keep_nonzero: whether what is not zero must not become zero.
        """
        raise NotImplementedError  # abstract

    def decode(self, stored: Any, shape: tuple[int, ...]) -> jax.Array:
        """The float32 array of this shape that was stored."""
        raise NotImplementedError  # abstract

    def fits(self, stored: Any, shape: tuple[int, ...]) -> bool:
        """Whether this is what `encode` makes of an array of this shape, as far as shapes tell."""
        if not isinstance(stored, Blocks):
            return bool(stored.shape == shape)
        if stored.codes.dtype != self.code_dtype:
            return False
        layout = layout_like(shape, stored)
        codes = shape if self.bytes_each == 1 else packed_shape(shape, layout)
        kept = layout.kept
        return bool(stored.codes.shape == codes and stored.scales.shape[:-1] == shape[:kept])

    @property
    def code_dtype(self) -> Any:
        """The dtype of what is stored for an entry, or for two of them."""
        raise NotImplementedError  # abstract


class PowerFormat(Format):
    """Whole numbers c that stand for sign(c) |c|^power times the scale of their block.

    Zero is stored exactly. Rounding to nearest rounds c. Rounding at random goes up with a
    probability that makes the stored value x right on average; without negative numbers x^(1/4),
    since such a slot is most often a second moment nu that steps are divided by the root of.
    Where nu -> nu + r (g^2 - nu) is rounded at every step so that nu^a is right on average, and
    log nu comes to have the variance s^2 by it, E[nu^(-1/2)] is about (1 + (4 a - 1) s^2 / 8) / g:
    right for a = 1/4, whereas a = 1 makes steps too long.

    Args:
      bits: 8, or 4: two codes share a byte.
      power: 1, 2, 4 or 8.
      signed: whether there are codes for negative numbers.

    Raises:
      TypeError, ValueError: an argument is none of these.

    >>> gradtx.PowerFormat(8, power=2)
    PowerFormat(bits=8, power=2)
    """

    bits: int = static(default=8)
    power: int = static(default=1)
    signed: bool = static(default=True)

    def validate(self) -> None:
        for name in ("bits", "power"):
            if type(getattr(self, name)) is not int:
                raise TypeError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, got {self.bits!r}")
        if self.power not in (1, 2, 4, 8):
            raise ValueError(f"power must be 1, 2, 4 or 8, got {self.power!r}")

    def __repr__(self) -> str:
        signed = "" if self.signed else ", signed=False"
        return f"PowerFormat(bits={self.bits}, power={self.power}{signed})"

    @property
    def default_block(self) -> int:
        return 256 if self.bits == 8 else 128

    @property
    def bytes_each(self) -> float:
        return self.bits / 8

    @property
    def default_rounding(self) -> str:
        return "nearest" if self.bits == 8 and self.signed else "stochastic"

    def stored_bytes(self, shape: tuple[int, ...]) -> int:
        """The bytes that an array of this shape takes, unless shards divide it.

        >>> gradtx.PowerFormat(8, power=2).stored_bytes((1000, 1000))
        1016000
        """
        layout = layout_of(shape, (1,) * len(shape), self.default_block, self.bytes_each)
        blocks = math.prod(shape[: layout.kept]) * layout.blocks
        return math.prod(shape if self.bits == 8 else packed_shape(shape, layout)) + 4 * blocks

    @property
    def code_dtype(self) -> Any:
        return np.dtype(np.int8 if self.signed and self.bits == 8 else np.uint8)

    @property
    def _largest(self) -> int:
        largest: int = 2 ** (self.bits - self.signed) - 1
        return largest

    def encode(
        self,
        x: jax.Array,
        layout: Layout,
        bits: Any,
        keep_nonzero: bool,
        *,
        parts: tuple[jax.Array, jax.Array] | None = None,
        reader: jax.Array | None = None,
    ) -> Blocks:
        """What is stored of `x`.

        Args:
          x: float32.
          layout: of the blocks.
          bits: uint32 in the shape of `x` to round by at random, or the two halves of such an
            array, where codes are formed so; `None` rounds to nearest.
          keep_nonzero: whether what is not zero must not become zero.
          parts: `halves(x, layout)`, where they are formed otherwise than from `x`.
          reader: an array in the shape of `x`, that is there before codes of 4 bits are formed.
        """
        scales = _scales(x, layout, float(self._largest**self.power), reader=reader)
        if self.bits == 8 or not layout.by_halves:
            inverse = spread(_inverse(scales), layout, x.shape)
            code = self._code(x, inverse, bits, keep_nonzero)
            code = code if self.bits == 8 else packed(code & 15, layout)
            return Blocks(code.astype(self.code_dtype), scales)
        # Each half by itself: between old and new codes XLA then sees nothing but operations
        # entry by entry, all in the shape of the codes, and overwrites the old ones in place.
        xs = halves(x, layout) if parts is None else parts
        inverses = spread_halves(scales, layout, x.shape, _inverse)
        random = (None, None) if bits is None else bits
        random = random if isinstance(random, tuple) else halves(random, layout)
        low, high = (
            self._code(*each, keep_nonzero) for each in zip(xs, inverses, random, strict=True)
        )
        return Blocks(((low & 15) | ((high & 15) << 4)).astype(self.code_dtype), scales)

    def _code(
        self, x: jax.Array, inverse: jax.Array, bits: jax.Array | None, keep_nonzero: bool
    ) -> jax.Array:
        """The code of each entry, int32, from the inverse of its scale."""
        y = jnp.abs(x) * inverse
        root = _raised(y, 1 / self.power)
        if bits is None:
            code = (root + 0.5).astype(jnp.int32)
        else:
            low = jnp.floor(root)
            fair = 1 if self.signed else 1 / 4
            below, above = (_raised(c, self.power * fair) for c in (low, low + 1))
            # By way of int32: uint32 to float32 is no one instruction on most CPUs.
            uniform = (bits >> 8).astype(jnp.int32).astype(jnp.float32) * 2.0**-24
            up = uniform * (above - below) < _raised(y, fair) - below
            code = low.astype(jnp.int32) + up.astype(jnp.int32)
        code = jnp.minimum(code, self._largest)
        if keep_nonzero:
            code = jnp.maximum(code, _is_nonzero(x))
        return jnp.where(_is_negative(x), -code, code) if self.signed else code

    def decode(self, stored: Blocks, shape: tuple[int, ...]) -> jax.Array:
        layout = layout_like(shape, stored)
        codes = stored.codes.astype(jnp.int32)
        codes = codes if self.bits == 8 else unpacked(codes, layout, shape)
        return self._value(codes) * spread(stored.scales, layout, shape)

    def decoded_halves(self, stored: Blocks, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        """`halves` of what `decode` makes of codes that share bytes, formed from these alone."""
        layout = layout_like(shape, stored)
        codes = stored.codes.astype(jnp.int32)
        low, high = spread_halves(stored.scales, layout, shape, lambda scales: scales)
        return self._value(codes & 15) * low, self._value(codes >> 4) * high

    def _value(self, code: jax.Array) -> jax.Array:
        """What codes stand for, before they are scaled; int32 to float32."""
        if self.signed and self.bits == 4:
            code = (code ^ 8) - 8
        c = code.astype(jnp.float32)
        value = _raised(jnp.abs(c), self.power)
        return jnp.where(c < 0, -value, value) if self.signed else value


class FloatFormat(Format):
    """Narrow floating-point numbers: float8 times the scale of their block, or bfloat16 alone.

    Args:
      dtype: `"float8_e4m3fn"`, `"float8_e5m2"`, or `"bfloat16"`, which has the range of float32
        and needs no scale.

    Raises:
      TypeError, ValueError: `dtype` is none of these.

    >>> gradtx.FloatFormat("float8_e4m3fn")
    FloatFormat(dtype='float8_e4m3fn')
    """

    dtype: DTypeLike = dtype()

    def validate(self) -> None:
        allowed = ("float8_e4m3fn", "float8_e5m2", "bfloat16")
        if np.dtype(self.dtype).name not in allowed:
            raise ValueError(f"dtype must be one of {allowed}, got {self.dtype}")

    @property
    def default_block(self) -> int:
        return 0 if self.dtype == jnp.bfloat16 else 256

    @property
    def code_dtype(self) -> Any:
        return self.dtype

    def encode(
        self, x: jax.Array, layout: Layout, bits: jax.Array | None, keep_nonzero: bool
    ) -> Any:
        info = jnp.finfo(self.dtype)  # type: ignore[no-untyped-call]
        if not self.default_block:
            bare = jnp.minimum(jnp.abs(x), float(info.max))
            if keep_nonzero:
                bare = jnp.maximum(bare, _is_nonzero(x).astype(jnp.float32) * float(info.tiny))
            return jnp.where(_is_negative(x), -bare, bare).astype(self.dtype)
        smallest = np.float32(info.smallest_subnormal)
        scales = _scales(x, layout, float(info.max), float(smallest))
        y = jnp.abs(x) * spread(_inverse(scales), layout, x.shape)
        y = jnp.minimum(y, float(info.max))
        if keep_nonzero:
            y = jnp.maximum(
                y, _is_nonzero(x).astype(jnp.float32) * np.float32(info.smallest_subnormal)
            )
        return Blocks(jnp.where(_is_negative(x), -y, y).astype(self.dtype), scales)

    def decode(self, stored: Any, shape: tuple[int, ...]) -> jax.Array:
        if not self.default_block:
            bare: jax.Array = stored.astype(jnp.float32)
            return bare
        scales = spread(stored.scales, layout_like(shape, stored), shape)
        value: jax.Array = stored.codes.astype(jnp.float32) * scales
        return value


FORMATS: dict[str, Format] = {
    "int8": PowerFormat(8, 1),
    "signed8": PowerFormat(8, 2),
    "wide8": PowerFormat(8, 4),
    "unsigned8": PowerFormat(8, 4, signed=False),
    "signed4": PowerFormat(4, 2),
    "wide4": PowerFormat(4, 4),
    "unsigned4": PowerFormat(4, 4, signed=False),
    "float8_e4m3": FloatFormat("float8_e4m3fn"),
    "float8_e5m2": FloatFormat("float8_e5m2"),
    "bfloat16": FloatFormat("bfloat16"),
}
"""The formats that have a name."""


def _raised(x: jax.Array, power: float) -> jax.Array:
    """x^power for a power of two, by squares and square roots, which vectorise."""
    while power > 1:
        x, power = x * x, power / 2
    while power < 1:
        x, power = jnp.sqrt(x), power * 2
    return x


_LARGEST, _INFINITE = 0x7F7FFFFF, 0x7F800000  # the bits of float32's


def _magnitude(x: jax.Array) -> jax.Array:
    """|x| as an integer that orders as |x| does, with inf above all numbers and NaN above inf.

    XLA's CPU backend makes vectors of a maximum of integers, and not of one of floats, which
    has to look for NaN; and it takes denormal floats for zero.
    """
    return jax.lax.bitcast_convert_type(jnp.abs(x), jnp.int32)


def _is_nonzero(x: jax.Array) -> jax.Array:
    """1 or 0, in int32.

    A minimum, since the code generator makes of `magnitude > 0` a comparison of floats, which
    takes denormal ones for zero.
    """
    return jnp.minimum(_magnitude(x), 1)


def _is_negative(x: jax.Array) -> jax.Array:
    """The sign bit, for denormal floats too."""
    return jax.lax.bitcast_convert_type(x, jnp.int32) < 0


def _scales(
    x: jax.Array,
    layout: Layout,
    largest: float,
    smallest: float = 1.0,
    *,
    reader: jax.Array | None = None,
) -> jax.Array:
    """What the codes of each block are multiplied by: shape (*kept axes, number of blocks).

    0 for a block of zeros, NaN where an entry is. An inf counts as the largest number: as a scale
    it would make zeros of its block NaN. The codes' values, but zero, are from `smallest` to
    `largest`: neither product underflows or overflows.

    Only the maxima are formed before `reader` is there, in the shape of `x`.
    """
    rows = _magnitude(x)
    rows = jnp.where(rows == _INFINITE, _LARGEST, rows).reshape(*x.shape[: layout.kept], -1)
    whole = rows.shape[-1] // layout.length
    parts = []
    if whole:
        full = rows if whole == layout.blocks else rows[..., : whole * layout.length]
        parts.append(_maxima(full.reshape(*rows.shape[:-1], whole, layout.length)))
    if whole < layout.blocks:
        rest = rows[..., whole * layout.length :]
        missing = layout.length - rest.shape[-1]
        padding = [(0, 0, 0)] * (rest.ndim - 1) + [(0, missing, 0)]
        parts.append(_maxima(jax.lax.pad(rest, jnp.int32(0), padding)[..., None, :]))
    maxima = jnp.concatenate(parts, -1) if len(parts) > 1 else parts[0]
    if reader is not None:
        maxima = written_after(maxima, one_of_each_block(reader, layout))
    scales = jax.lax.bitcast_convert_type(maxima, jnp.float32) * np.float32(1 / largest)
    # Below what overflows when the largest code is multiplied by it; NaN stays.
    most = np.float32(np.finfo(np.float32).max / largest * (1 - 1e-6))
    is_number = maxima < _INFINITE
    scales = jnp.where(is_number, jnp.clip(scales, LEAST_PRODUCT / smallest, most), scales)
    return jnp.where(maxima == 0, 0.0, scales)


def _maxima(blocks: jax.Array) -> jax.Array:
    """The maxima over the last axis, whose length is a power of two.

    XLA's CPU backend reduces axes of more than 32 in two steps and stores what is between.
    """
    length, factors = blocks.shape[-1], []
    while length > 32:
        factors.append(32)
        length //= 32
    factors.append(length)
    split = blocks.reshape(*blocks.shape[:-1], *reversed(factors))
    return jnp.max(split, axis=tuple(range(blocks.ndim - 1, split.ndim)))


def _inverse(scales: jax.Array) -> jax.Array:
    return jnp.where(scales == 0, 0.0, 1 / jnp.where(scales == 0, 1.0, scales))
