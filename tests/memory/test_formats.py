"""Formats against NumPy in float64, adversarial blocks, and errors against published maps."""

import functools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import gradtx
from gradtx.core.hashing import hashed_bits
from gradtx.core.slot import Blocks
from gradtx.memory.formats import FORMATS, FloatFormat, PowerFormat
from gradtx.memory.layout import halves, layout_of

POWERS = [name for name, format in FORMATS.items() if isinstance(format, PowerFormat)]
SCALED = [name for name in FORMATS if name != "bfloat16"]
TINY, HUGE = np.float32(1e-45), np.finfo(np.float32).max


def layout(format, shape, block=None, shards=None):
    block = block or format.default_block or 1
    return layout_of(shape, shards or (1,) * len(shape), block, format.bytes_each)


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def both_ways(format, x, block, keep_nonzero):
    stored = format.encode(x, layout(format, x.shape, block), None, keep_nonzero)
    return stored, format.decode(stored, x.shape)


def there_and_back(name, x, block=None, keep_nonzero=False):
    _, back = both_ways(FORMATS[name], jnp.asarray(x, jnp.float32), block, keep_nonzero)
    assert back.dtype == jnp.float32 and back.shape == np.shape(x)
    return np.asarray(back)


def in_blocks(x, length):
    """Rows of blocks along the last axis, filled with zeros."""
    missing = -x.shape[-1] % length
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    return padded.reshape(*x.shape[:-1], -1, length)


def power_oracle(x, length, bits, power, signed):
    blocks = in_blocks(np.asarray(x, np.float64), length)
    largest = np.abs(blocks).max(-1, keepdims=True)
    levels = 2 ** (bits - signed) - 1
    ratio = np.abs(blocks) / np.where(largest == 0, 1, largest)
    codes = np.round(levels * ratio ** (1 / power))
    back = np.sign(blocks) * (codes / levels) ** power * largest
    return back.reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]


def normal(shape, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 10.0 ** rng.uniform(-spread, spread, size=shape)
    return x.astype(np.float32)


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("shape", [(2, 512), (3, 300), (70,)])
def test_powers_by_the_definition(name, shape):
    format = FORMATS[name]
    x = normal(shape)
    x = x if format.signed else np.abs(x)
    back = there_and_back(name, x, block=64)
    rows = x.reshape(*shape[: layout(format, shape, 64).kept], -1)
    expected = power_oracle(rows, 64, format.bits, format.power, format.signed).reshape(shape)
    # A root that lies within rounding of a half may go to the other neighbour.
    wrong = ~np.isclose(back, expected, rtol=1e-5, atol=0)
    assert np.mean(wrong) < 1e-3


@pytest.mark.parametrize("name, dtype", [("float8_e4m3", "float8_e4m3fn"), ("float8_e5m2",) * 2])
def test_float8_by_ml_dtypes(name, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype))
    x = normal((2, 512), spread=1.0)
    blocks = in_blocks(x.astype(np.float64), 256)
    scale = np.abs(blocks).max(-1, keepdims=True) / float(ml_dtypes.finfo(dtype).max)
    expected = (blocks / scale).astype(np.float32).astype(dtype).astype(np.float64) * scale
    back = there_and_back(name, x).astype(np.float64)
    wrong = ~np.isclose(back, expected.reshape(x.shape), rtol=1e-5, atol=0)
    assert np.mean(wrong) < 5e-3


def test_bfloat16_is_a_cast():
    x = normal((3, 5))
    stored, back = both_ways(FORMATS["bfloat16"], jnp.asarray(x), None, False)
    assert stored.dtype == jnp.bfloat16
    np.testing.assert_array_equal(back, x.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_bfloat16_at_both_ends():
    """What is below the normal numbers becomes the least one, and the largest stays finite."""
    least = np.float32(2.0**-126)
    small = np.float32([1e-45, 1e-40, np.nextafter(least, 0), least, 1.5 * least, 1.2e-38, 0])
    x = np.r_[small, -small]
    _, back = both_ways(FORMATS["bfloat16"], jnp.asarray(x), None, True)
    cast = np.maximum(np.abs(x), least).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(back, np.where(x == 0, 0, np.copysign(cast, x)))
    for keep_nonzero in (False, True):
        ends = jnp.asarray([HUGE, -HUGE])
        _, back = both_ways(FORMATS["bfloat16"], ends, None, keep_nonzero)
        largest = np.float32(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
        np.testing.assert_array_equal(back, [largest, -largest])


@pytest.mark.parametrize("name", SCALED)
def test_zero_and_the_largest_are_exact(name):
    x = normal((4, 256))
    x = x if FORMATS[name].signed else np.abs(x)
    x[:, ::3] = 0
    back = there_and_back(name, x, block=64)
    assert (back[:, ::3] == 0).all()
    blocks, backs = in_blocks(x, 64), in_blocks(back, 64)
    where = np.abs(blocks).argmax(-1)[..., None]
    np.testing.assert_allclose(
        np.take_along_axis(backs, where, -1), np.take_along_axis(blocks, where, -1), rtol=1e-6
    )


ADVERSARIAL = {
    "zeros": np.zeros(512),
    "one huge": np.r_[np.ones(511), HUGE],
    "all huge": np.full(512, HUGE),
    "denormal": np.linspace(0, 1e-40, 512),
    "smallest": np.full(512, TINY),
    "least normal": np.full(512, 1.2e-38),
    "constant": np.full(512, 0.3),
    "alternating": np.tile([1e-30, 1e30], 256),
    "alternating small": np.tile([1e-38, 1e-30], 256),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("case", ADVERSARIAL)
def test_finite_stays_finite_and_positive_positive(name, case):
    x = ADVERSARIAL[case].astype(np.float32)
    for signs in [1] + [np.tile(np.float32([1, -1]), 256)] * FORMATS[name].signed:
        back = there_and_back(name, x * signs, keep_nonzero=True)
        assert np.isfinite(back).all()
        np.testing.assert_array_equal(np.sign(back), np.sign(x * signs))


@hypothesis.given(
    x=hnp.arrays(
        np.float32,
        st.tuples(st.just(2), st.sampled_from([1, 31, 80])),
        elements=st.floats(0, float(HUGE), width=32),
    ),
    name=st.sampled_from(SCALED),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_block(x, name):
    back = there_and_back(name, x, block=32, keep_nonzero=True)
    assert np.isfinite(back).all()
    np.testing.assert_array_equal(back > 0, x > 0)
    assert (back <= np.maximum(x.max(), 2e-38 * 255.0**4) * np.float64(1.00001)).all()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("keep_nonzero", [False, True])
def test_nan_stays_and_an_inf_becomes_the_largest_number(name, bad, keep_nonzero):
    x = np.ones(512, np.float32)
    x[10] = bad
    back = there_and_back(name, x, keep_nonzero=keep_nonzero)
    if np.isnan(bad):
        assert np.isnan(back[10])
    else:
        assert np.isfinite(back).all() and abs(back[10]) > 3e38
        assert "unsigned" in name or np.sign(back[10]) == np.sign(bad)
    assert np.isfinite(back[256:]).all(), "another block is touched"


@pytest.mark.parametrize("name", SCALED)
def test_float64_never_enters(name, x64):
    stored, back = both_ways(FORMATS[name], jnp.ones((2, 300), jnp.float32), None, False)
    assert back.dtype == jnp.float32 and stored.scales.dtype == jnp.float32


ROUNDED = [FORMATS[name] for name in POWERS]
ROUNDED += [PowerFormat(bits, power, signed=False) for bits in (4, 8) for power in (1, 2, 8)]


def rounded_at_random(format, x, seed=0):
    bits = np.random.default_rng(seed).integers(0, 2**32, x.shape, np.uint32)
    stored = format.encode(x, layout(format, x.shape, 64), jnp.asarray(bits), False)
    return np.asarray(format.decode(stored, x.shape), np.float64)


@pytest.mark.parametrize("format", ROUNDED, ids=repr)
def test_rounding_at_random_is_right_on_average(format):
    """The value; its fourth root where there are no negative numbers."""
    repeats = 4000
    x = np.linspace(0.0, 1.0, 64, dtype=np.float32) ** 2
    many = jnp.broadcast_to(jnp.asarray(x), (repeats, 64))
    back = rounded_at_random(format, many)
    levels, power = 2 ** (format.bits - format.signed) - 1, format.power
    fair = 1 if format.signed else 1 / 4
    low = np.floor(levels * x.astype(np.float64) ** (1 / power))
    step = ((low + 1) ** (power * fair) - low ** (power * fair)) / levels ** (power * fair)
    error = back**fair - x.astype(np.float64) ** fair
    assert (np.abs(error.mean(0)) <= 5 * step / 2 / np.sqrt(repeats) + 1e-6).all()
    assert (np.abs(error) <= step * 1.01 + 1e-6).all()
    ups = error[:, 1:-1] > 0
    assert 0.1 < ups.mean() < 0.9


def test_steps_by_a_second_moment_are_right_on_average():
    """A mean of g^2 that is rounded at every step: 1/sqrt of it is 1/g on average."""
    format = FORMATS["unsigned4"]
    square = jnp.tile(10.0 ** jnp.linspace(-2.5, 0, 64), (32, 1))
    blocks = layout(format, square.shape, 64)

    def body(nu, seed):
        nu = nu + (square - nu) * jnp.float32(0.02)
        stored = format.encode(nu, blocks, hashed_bits(nu.shape, seed), True)
        nu = format.decode(stored, nu.shape)
        return nu, jnp.sqrt(square / nu)

    _, ratios = jax.lax.scan(body, square, jnp.arange(2000, dtype=jnp.uint32))
    ratios = np.asarray(ratios[200:], np.float64)
    assert ratios.std() > 0.1
    assert abs(ratios.mean() - 1) < 0.003
    # Rounding nu itself so that it is right on average makes it 1.12 for the smallest entries.
    assert (np.abs(ratios.mean((0, 1)) - 1) < 0.02).all()


def test_packed_bytes():
    x = jnp.asarray([7.0, -1.75, 0.0, 7.0], jnp.float32)  # codes 7, -3.5 -> -4 or -3, 0, 7
    for rows in (x, jnp.stack([x[:2], x[2:]])):  # a block's halves; two rows
        stored = FORMATS["signed4"].encode(
            rows, layout(FORMATS["signed4"], rows.shape), None, False
        )
        assert isinstance(stored, Blocks) and stored.codes.dtype == jnp.uint8
        low, high = np.asarray(stored.codes).ravel() & 15, np.asarray(stored.codes).ravel() >> 4
        assert low.tolist()[0] == 7 and high[0] == 0
        assert low.tolist()[1] in (12, 13)


@pytest.mark.parametrize("name", ["signed4", "unsigned4", "wide4"])
@pytest.mark.parametrize("shape", [(6, 300), (3, 300), (67, 40), (3, 3, 64, 64), (300,)])
def test_halves_of_what_is_decoded(name, shape):
    format = FORMATS[name]
    x = jnp.abs(normal(shape))
    made = layout(format, shape)
    stored, back = both_ways(format, x, None, True)
    for found, expected in zip(
        format.decoded_halves(stored, shape), halves(back, made), strict=True
    ):
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)
    assert format.fits(stored, shape) and not format.fits(stored, (2, *shape))
    assert sum(part.nbytes for part in stored) == format.stored_bytes(shape)


def dynamic_map(signed):
    """bitsandbytes' 8-bit dynamic map, as published: create_dynamic_map(signed, 7, 8)."""
    values = [0.0, 1.0]
    for i in range(7):
        count = 2**i + 1 if signed else 2 ** (i + 1) + 1
        edges = np.linspace(0.1, 1, count)
        means = 10.0 ** (i - 6) * (edges[:-1] + edges[1:]) / 2
        values += [*means, *(-means if signed else [])]
    assert len(values) == 256
    return np.sort(values)


@functools.cache
def recorded_moments():
    """Adam's moments after 20 and 200 steps on the digits, in float64, with the step count."""
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    pixels, labels = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target)
    rng = np.random.default_rng(0)
    params = {
        "a": jnp.asarray(rng.normal(size=(64, 64)) / 8, jnp.float32),
        "b": jnp.asarray(rng.normal(size=(64, 10)) / 8, jnp.float32),
    }
    tx = gradtx.adamw(3e-3)

    def loss(params, rows):
        logits = jax.nn.relu(pixels[rows] @ params["a"]) @ params["b"]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[rows][:, None], 1)
        return -jnp.mean(chosen)

    @jax.jit
    def step(params, state, rows):
        return tx.step(jax.grad(loss)(params, rows), state, params)

    state, found = tx.init(params), []
    for t in range(1, 201):
        params, state = step(params, state, rng.integers(0, len(labels), 64))
        if t in (20, 200):
            mu, nu = gradtx.tree.get(state, "mu")["a"], gradtx.tree.get(state, "nu")["a"]
            found.append((t, np.asarray(mu, np.float64), np.asarray(nu, np.float64)))
    return found


def by_table(x, table):
    blocks = in_blocks(x.ravel(), 256)
    largest = np.abs(blocks).max(-1, keepdims=True)
    nearest = table[np.searchsorted((table[1:] + table[:-1]) / 2, blocks / largest)]
    return (nearest * largest).ravel()[: x.size].reshape(x.shape)


def distance(x, y):
    return np.linalg.norm(x - y) / np.linalg.norm(y)


def test_no_worse_than_the_dynamic_map():
    signed = np.unique(dynamic_map(True))
    unsigned = dynamic_map(False)
    for t, mu, nu in recorded_moments():
        ours = distance(there_and_back("signed8", mu), mu)
        assert ours < 0.7 * distance(by_table(mu, signed), mu)
        assert distance(there_and_back("wide8", mu), mu) < distance(by_table(mu, signed), mu)

        def update(nu, mu=mu, t=t):
            return mu / (1 - 0.9**t) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8)

        kept = there_and_back("unsigned8", nu, keep_nonzero=True).astype(np.float64)
        # The map's own smallest value in the place of zero, which it takes small moments for.
        table = np.maximum(by_table(nu, unsigned), (nu > 0) * unsigned[1] * nu.max())
        assert distance(update(kept), update(nu)) < 0.03
        assert distance(update(kept), update(nu)) < distance(update(table), update(nu))


def test_errors_name_what_is_allowed():
    with pytest.raises(ValueError, match="bits must be 4 or 8, got 5"):
        PowerFormat(5)
    with pytest.raises(ValueError, match="power must be 1, 2, 4 or 8, got 3"):
        PowerFormat(8, 3)
    with pytest.raises(ValueError, match="float8_e4m3fn"):
        FloatFormat("float32")
    with pytest.raises(TypeError, match="dtype"):
        FloatFormat("int8")
    assert repr(FORMATS["unsigned8"]) == "PowerFormat(bits=8, power=4, signed=False)"
    for format in FORMATS.values():
        assert eval(repr(format), vars(gradtx)) == format
