"""An array of the state to what is stored and back, one leaf at a time."""

from __future__ import annotations

import functools
from typing import Any

import jax

from gradtx.core.hashing import hashed_bits
from gradtx.core.leaf import written_after
from gradtx.core.slot import Blocks
from gradtx.memory.formats import Format, PowerFormat
from gradtx.memory.halves import Halved, full, is_halved
from gradtx.memory.layout import Layout, halves, layout_like, unpacked


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def decode_leaf(
    format: Format, shape: tuple[int, ...], in_halves: bool, shared: None, stored: Any
) -> Any:
    x = format.decode(stored, shape)
    if not (in_halves and isinstance(format, PowerFormat) and format.bits == 4):
        return x
    layout = layout_like(shape, stored)
    if not layout.by_halves:
        return x
    low, high = format.decoded_halves(stored, shape)
    return Halved(x, low, high, layout)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def encode_leaf(
    format: Format,
    layout: Layout,
    keep_nonzero: bool,
    shared: None,
    x: Any,
    seed: jax.Array | None,
    before: Any,
) -> Any:
    parts = (x.low, x.high) if is_halved(x) and x.layout == layout else None
    x = full(x)
    if isinstance(format, PowerFormat) and format.bits == 4 and layout.by_halves:
        bits = None if seed is None else _hashed_halves(x.shape, seed, layout)
        reader = None if before is None else _entries(before, x.shape)
        stored = format.encode(x, layout, bits, keep_nonzero, parts=parts, reader=reader)
    else:
        each = None if seed is None else hashed_bits(x.shape, seed)
        stored = format.encode(x, layout, each, keep_nonzero)
    if before is None:
        return stored
    if not isinstance(stored, Blocks):
        return written_after(stored, _entries(before, x.shape))
    if stored.codes.shape != x.shape and not layout.by_halves:
        return stored  # XLA copies the old codes
    return stored._replace(codes=written_after(stored.codes, *_readers(before, stored, x.shape)))


def _hashed_halves(
    shape: tuple[int, ...], seed: jax.Array, layout: Layout
) -> tuple[jax.Array, jax.Array]:
    """`halves` of `hashed_bits`; XLA's CPU backend makes no vectors of halves of what is hashed."""
    low, high = (lambda x: halves(x, layout)[0]), (lambda x: halves(x, layout)[1])
    return hashed_bits(shape, seed, part=low), hashed_bits(shape, seed, part=high)


def _readers(before: Any, stored: Blocks, shape: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Arrays in the shape of codes that are formed of what was written before."""
    if isinstance(before, Blocks) and before.codes.shape == stored.codes.shape:
        return (before.codes,)
    entries = _entries(before, shape)
    if stored.codes.shape == shape:
        return (entries,)
    return halves(entries, layout_like(shape, stored))


def _entries(stored: Any, shape: tuple[int, ...]) -> jax.Array:
    """An array of this shape that is formed of what is stored, or is it."""
    codes: jax.Array = stored.codes if isinstance(stored, Blocks) else stored
    if codes.shape == shape:
        return codes
    return unpacked(codes, layout_like(shape, stored), shape)
