"""Where blocks lie and which codes share bytes, against NumPy."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core.slot import Blocks
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


@hypothesis.given(
    shape=st.lists(st.integers(1, 70), max_size=4).map(tuple),
    block=st.sampled_from([16, 64, 256]),
    shared=st.booleans(),
)
def test_the_shapes_tell_the_layout(shape, block, shared):
    made = layout_of(shape, (1,) * len(shape), block, 0.5 if shared else 1.0)
    scales = np.zeros((*shape[: made.kept], made.blocks))
    codes = np.zeros(packed_shape(shape, made) if shared else shape)
    assert layout_like(shape, Blocks(codes, scales)) == made
    assert made.length <= max(block, 2)


@pytest.mark.parametrize(
    "shape, shards, expected",
    [
        ((1000, 1000), (1, 1), (1, 256, 4)),
        ((3, 3, 64, 64), (1, 1, 1, 1), (2, 256, 16)),
        ((3, 3, 64, 64), (1, 1, 1, 2), (3, 32, 2)),
        ((3, 3, 64, 64), (1, 1, 2, 1), (3, 64, 1)),
        ((8, 1024), (1, 8), (1, 128, 8)),
        ((8, 1024), (8, 1), (1, 256, 4)),
        ((), (), (0, 2, 1)),
    ],
)
def test_blocks_stay_within_shards(shape, shards, expected):
    assert layout_of(shape, shards, 256, 1.0) == Layout(*expected)


@pytest.mark.parametrize(
    "shape, shards, axis, codes",
    [
        ((1000, 1000), (1, 1), 0, (500, 1000)),
        ((1000, 1000), (4, 1), 0, (500, 1000)),
        ((1000, 1000), (8, 1), None, (1000, 512)),  # 125 rows in a shard
        ((1000, 1000), (1, 8), 0, (500, 1000)),
        ((4, 1000, 1000), (1, 8, 1), 0, (2, 1000, 1000)),
        ((1001, 1000), (1, 1), 0, (501, 1000)),
        ((3, 1000), (1, 1), None, (3, 512)),  # a fourth row would be much
        ((3, 3, 64, 64), (1, 1, 1, 1), 2, (3, 3, 32, 64)),
        ((4099,), (1,), None, (2112,)),
        ((), (), None, (1,)),
    ],
)
def test_codes_that_share_a_byte(shape, shards, axis, codes):
    made = layout_of(shape, shards, 128, 0.5)
    assert made.paired == axis and packed_shape(shape, made) == codes


def by_definition(x, layout):
    """The two halves: of rows two by two, or of each block; zeros where there is nothing."""
    if layout.paired is not None:
        x = np.moveaxis(x, layout.paired, 0)
        x = np.concatenate([x, np.zeros((len(x) % 2, *x.shape[1:]), x.dtype)])
        return tuple(np.moveaxis(x[i::2], 0, layout.paired) for i in (0, 1))
    rows = x.reshape(*x.shape[: layout.kept], -1)
    missing = layout.blocks * layout.length - rows.shape[-1]
    rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)])
    blocks = rows.reshape(*rows.shape[:-1], layout.blocks, layout.length)
    low, high = np.split(blocks, 2, -1)
    return tuple(half.reshape(*rows.shape[:-1], -1) for half in (low, high))


SHAPES = [(6, 300), (67, 40), (3, 300), (2, 3, 5, 40), (300,), (1,), (), (5, 66, 70)]


@pytest.mark.parametrize("shape", SHAPES)
def test_halves_and_back(shape):
    layout = layout_of(shape, (1,) * len(shape), 64, 0.5)
    x = np.random.default_rng(0).integers(0, 16, shape)
    expected = by_definition(x, layout)
    for found, half in zip(halves(jnp.asarray(x), layout), expected, strict=True):
        np.testing.assert_array_equal(found, half)
    codes = jnp.asarray(expected[0] + 16 * expected[1], jnp.uint8)
    np.testing.assert_array_equal(packed(jnp.asarray(x), layout), codes)
    assert codes.shape == packed_shape(shape, layout)
    np.testing.assert_array_equal(unpacked(codes, layout, shape), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_scales_of_entries(shape):
    layout = layout_of(shape, (1,) * len(shape), 64, 0.5)
    scales = np.random.default_rng(0).normal(size=(*shape[: layout.kept], layout.blocks))
    scales = scales.astype(np.float32)
    n = int(np.prod(shape[layout.kept :]))
    each = np.repeat(scales, layout.length, -1)[..., :n].reshape(shape)
    np.testing.assert_array_equal(spread(jnp.asarray(scales), layout, shape), each)
    found = spread_halves(jnp.asarray(scales), layout, shape, lambda x: 2 * x)
    for half, expected in zip(found, by_definition(2 * each, layout), strict=True):
        np.testing.assert_array_equal(half, expected)
    np.testing.assert_array_equal(one_of_each_block(jnp.asarray(each), layout), scales)


def test_blocks_shorter_than_16_are_not_made_for_shards():
    assert layout_of((8, 1000), (1, 8), 256, 1.0).length == 256  # 125 in a shard
    assert layout_of((8, 1024), (1, 8), 256, 1.0).length == 128
    assert layout_of((8, 64), (1, 8), 256, 1.0).length == 8  # a whole shard
