"""One leaf to what is stored and back; what was written before changes no number."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core.hashing import hashed_bits
from gradtx.core.slot import Blocks
from gradtx.memory.encode import decode_leaf, encode_leaf
from gradtx.memory.formats import FORMATS
from gradtx.memory.halves import Halved, is_halved
from gradtx.memory.layout import halves, layout_of, unpacked

SHAPE = (6, 300)
NAMES = ["signed4", "signed8", "float8_e4m3", "bfloat16"]


def array(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE), jnp.float32)


def encoded(name, x, before=None):
    format = FORMATS[name]
    layout = layout_of(SHAPE, (1, 1), format.default_block or 1, format.bytes_each)
    return encode_leaf(format, layout, False, None, x, None, before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("before", [None, *NAMES])
def test_order_changes_no_number(name, before):
    x = array()
    readers = [array(1).at[0].set(jnp.nan)] if before is None else [encoded(before, array(1))]
    for reader in readers:
        for found, expected in zip(encoded(name, x, reader), encoded(name, x), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_halves_where_codes_share_bytes(name):
    stored = encoded(name, array())
    whole = decode_leaf(FORMATS[name], SHAPE, False, None, stored)
    found = decode_leaf(FORMATS[name], SHAPE, True, None, stored)
    assert is_halved(found) == (name == "signed4")
    if is_halved(found):
        np.testing.assert_array_equal(found.full, whole)
        for half, expected in zip(
            (found.low, found.high), halves(whole, found.layout), strict=True
        ):
            np.testing.assert_array_equal(half, expected)


def test_codes_are_formed_of_halves_and_scales_of_the_array():
    x = array()
    layout = layout_of(SHAPE, (1, 1), 128, 0.5)
    low, high = halves(-x, layout)
    found = encoded("signed4", Halved(x, low, high, layout))
    expected = encoded("signed4", -x)
    assert isinstance(found, Blocks)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.scales, expected.scales)
    elsewhere = layout._replace(paired=None)
    found = encoded("signed4", Halved(x, *halves(-x, elsewhere), elsewhere))
    np.testing.assert_array_equal(found.codes, encoded("signed4", x).codes)


@pytest.mark.parametrize("name", ["signed4", "unsigned4"])
def test_random_bits_are_those_of_each_entry(name):
    """Whatever entries share a byte, and so whatever the sharding."""
    x, seed, format = jnp.abs(array()), jnp.uint32(5), FORMATS[name]
    layout = layout_of(SHAPE, (1, 1), format.default_block, format.bytes_each)
    assert layout.by_halves
    found = encode_leaf(format, layout, False, None, x, seed, None)
    apart = layout._replace(paired=None)
    other = encode_leaf(format, apart, False, None, x, seed, None)
    np.testing.assert_array_equal(
        unpacked(found.codes, layout, SHAPE), unpacked(other.codes, apart, SHAPE)
    )
    rounded = encode_leaf(format, layout, False, None, x, None, None)
    assert np.any(np.asarray(found.codes) != np.asarray(rounded.codes))
    bits = hashed_bits(SHAPE, seed)
    expected = format.encode(x, layout, halves(bits, layout), False)
    np.testing.assert_array_equal(found.codes, expected.codes)
