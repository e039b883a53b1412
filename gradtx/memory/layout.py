"""Where the blocks of an array lie, and which entries' codes of 4 bits share a byte."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.slot import Blocks


class Layout(NamedTuple):
    """Where the blocks of an array lie: along its last axes, as if these were one.

    Attributes:
      kept: number of leading axes, which blocks do not cross.
      length: entries in a block, a power of two. The last block may have fewer.
      blocks: number of blocks along the rest.
      paired: of codes that share a byte, two neighbours along this axis do; `None`: the
        halves of each block do.
    """

    kept: int
    length: int
    blocks: int
    paired: int | None = None

    @property
    def by_halves(self) -> bool:
        """Whether codes that share bytes are formed of halves: where XLA makes vectors of that."""
        return self.paired is not None and self.paired < self.kept


def layout_of(
    shape: tuple[int, ...], shards: tuple[int, ...], block: int, bytes_each: float
) -> Layout:
    """The layout of an array of this shape.

    Blocks run along the last axis alone, so that the array's sharding is the blocks' too. Where
    it is so short that codes, padding and scales together would take a good part more than the
    codes, trailing axes that are not sharded count as one.

    Args:
      shape: of the array.
      shards: into how many parts each axis is divided.
      block: entries in a block, a power of two.
      bytes_each: bytes of a code; those of less than a byte fill the last block.
    """
    kept = max(len(shape) - 1, 0)
    paired = _paired_axis(shape, shards) if bytes_each < 1 else None

    def costs(kept: int) -> bool:
        n = math.prod(shape[kept:])
        count = -(-n // block)
        codes = count * block if bytes_each < 1 and paired is None else n
        most = max(0.575 if bytes_each < 1 else 1.05, 1.02 * (bytes_each + 4 / block))
        return codes * bytes_each + 4 * count > n * most

    while kept > 0 and costs(kept) and set(shards[kept - 1 :]) == {1}:
        kept -= 1
    n = math.prod(shape[kept:])
    length = max(min(block, _power_of_two_from(n)), 2)
    if shards and shards[-1] > 1:
        part = n // shards[-1]
        aligned = math.gcd(part, length)  # the largest power of two that divides a part
        length = aligned if aligned >= 16 or aligned == part else length
    return Layout(kept, length, -(-n // length), paired)


def _paired_axis(shape: tuple[int, ...], shards: tuple[int, ...]) -> int | None:
    """The axis whose neighbours share bytes: the last one that can, but for the last of all.

    Along the last axis itself no kernel would be vectorised.
    """
    for axis in reversed(range(len(shape) - 1)):
        even = shape[axis] > 0 and shape[axis] % (2 * shards[axis]) == 0
        if even or (shards[axis] == 1 and shape[axis] > 64):  # of which one more is little
            return axis
    return None


def layout_like(shape: tuple[int, ...], stored: Blocks) -> Layout:
    """The layout of what is stored of an array of this shape: the shapes tell it."""
    kept, count = stored.scales.ndim - 1, stored.scales.shape[-1]
    length = max(_power_of_two_from(-(-math.prod(shape[kept:]) // count)), 2)
    paired = None
    if len(stored.codes.shape) == len(shape):
        for axis in range(len(shape) - 1):
            if stored.codes.shape[axis] != shape[axis]:
                paired = axis
    return Layout(kept, length, count, paired)


def _power_of_two_from(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def halves(x: jax.Array, layout: Layout) -> tuple[jax.Array, jax.Array]:
    """The entries whose codes are the low halves of bytes, and the high ones, as bytes lie."""
    pairs = _pairs(x.shape, layout)
    rows = x.reshape(*pairs.front, -1, *pairs.behind)
    rows = _filled(rows, pairs.axis, pairs.groups * 2 * math.prod(pairs.half))
    rows = rows.reshape(*pairs.front, pairs.groups, 2, *pairs.half, *pairs.behind)
    shape = packed_shape(x.shape, layout)
    low, high = (jax.lax.index_in_dim(rows, i, pairs.axis + 1, keepdims=False) for i in (0, 1))
    return low.reshape(shape), high.reshape(shape)


def packed(codes: jax.Array, layout: Layout) -> jax.Array:
    """Two codes to a byte, of whole numbers from 0 to 15; as `halves`, but formed together."""
    pairs = _pairs(codes.shape, layout)
    rows = codes.reshape(*pairs.front, -1, *pairs.behind)
    rows = _filled(rows, pairs.axis, pairs.groups * 2 * math.prod(pairs.half))
    rows = rows.reshape(*pairs.front, pairs.groups, 2, *pairs.half, *pairs.behind)
    shifts = 4 * jax.lax.broadcasted_iota(rows.dtype, rows.shape, pairs.axis + 1)
    # A sum and not an "or" of two slices, for which XLA's CPU backend stores what is sliced.
    return jnp.sum(rows << shifts, axis=pairs.axis + 1).reshape(packed_shape(codes.shape, layout))


def unpacked(codes: jax.Array, layout: Layout, shape: tuple[int, ...]) -> jax.Array:
    """The codes that share bytes, in an array of this shape: int32 from 0 to 15."""
    pairs = _pairs(shape, layout)
    narrow = codes.astype(jnp.int32)
    narrow = narrow.reshape(*pairs.front, pairs.groups, 1, *pairs.half, *pairs.behind)
    axis = pairs.axis + 1
    wide = jnp.broadcast_to(narrow, (*narrow.shape[:axis], 2, *narrow.shape[axis + 1 :]))
    shifts = 4 * jax.lax.broadcasted_iota(jnp.int32, wide.shape, axis)
    rows = ((wide >> shifts) & 15).reshape(*pairs.front, -1, *pairs.behind)
    n = math.prod(shape[pairs.axis : len(shape) - len(pairs.behind)])
    return jax.lax.slice_in_dim(rows, 0, n, axis=pairs.axis).reshape(shape)


def packed_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """The shape of codes that share bytes."""
    pairs = _pairs(shape, layout)
    return (*pairs.front, pairs.groups * math.prod(pairs.half), *pairs.behind)


class _Pairs(NamedTuple):
    """How codes share bytes: an axis, or the last ones as if they were one, is cut in groups.

    Attributes:
      front: the axes in front.
      groups: their number.
      half: `(length,)` of the two halves of a group, which share bytes; `()` for one entry each.
      behind: the axes behind.
    """

    front: tuple[int, ...]
    groups: int
    half: tuple[int, ...]
    behind: tuple[int, ...]

    @property
    def axis(self) -> int:
        return len(self.front)


def _pairs(shape: tuple[int, ...], layout: Layout) -> _Pairs:
    axis = layout.paired
    if axis is None:
        return _Pairs(shape[: layout.kept], layout.blocks, (layout.length // 2,), ())
    return _Pairs(shape[:axis], -(-shape[axis] // 2), (), shape[axis + 1 :])


def spread(scales: jax.Array, layout: Layout, shape: tuple[int, ...]) -> jax.Array:
    """The scale of each entry of an array of this shape."""
    axes = shape[: layout.kept]
    n = math.prod(shape[layout.kept :])
    each = jnp.broadcast_to(scales[..., None], (*axes, layout.blocks, layout.length))
    each = each.reshape(*axes, layout.blocks * layout.length)
    each = each if each.shape[-1] == n else each[..., :n]
    return each.reshape(shape)


def spread_halves(
    scales: jax.Array,
    layout: Layout,
    shape: tuple[int, ...],
    function: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """`halves` of what `spread` makes of `function(scales)`."""
    if not layout.by_halves:
        return halves(spread(function(scales), layout, shape), layout)
    # Scales are cut first: XLA's CPU backend makes no vectors of halves of what is computed.
    low, high = halves(scales, layout)
    shape = packed_shape(shape, layout)
    return spread(function(low), layout, shape), spread(function(high), layout, shape)


def one_of_each_block(x: jax.Array, layout: Layout) -> jax.Array:
    """The first entry of each block: an array in the shape of the scales."""
    rows = x.reshape(*x.shape[: layout.kept], -1)
    if rows.shape[-1] % layout.length:
        return rows[..., :: layout.length]
    # Within shards of the last axis, where blocks divide these.
    return rows.reshape(*rows.shape[:-1], layout.blocks, layout.length)[..., 0]


def _filled(x: jax.Array, axis: int, length: int) -> jax.Array:
    """With zeros behind along an axis, up to this length."""
    padding = [(0, length - n if i == axis else 0, 0) for i, n in enumerate(x.shape)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), padding) if any(map(any, padding)) else x
