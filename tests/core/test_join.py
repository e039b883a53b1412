import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core.join import _block_length, apart, joined

LAYER = [(4,), (2, 3), (), (0, 5), (7, 1)]
SHAPES = {
    "few": LAYER * 3,
    "many": LAYER * 40,
    "equal": [(3, 2)] * 200,
    "irregular": [(n % 13,) for n in range(0, 900, 7)],
    "empty": [(0,)] * 100,
}


def arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("compiled", [False, True])
def test_there_and_back(shapes, compiled):
    there, back = joined, lambda vector: apart(vector, shapes)
    if compiled:
        there, back = jax.jit(there), jax.jit(back)
    parts = arrays(shapes)
    vector = there(list(map(jnp.asarray, parts)))
    np.testing.assert_array_equal(vector, np.concatenate([part.ravel() for part in parts]))
    for piece, part in zip(back(vector), parts, strict=True):
        np.testing.assert_array_equal(piece, part)
        assert piece.shape == part.shape


def test_values_that_are_not_finite_or_negative_zero():
    vector = jnp.asarray([jnp.nan, -0.0, jnp.inf, -jnp.inf] * 50)
    pieces = jax.jit(lambda x: apart(x, [(1,)] * 200))(vector)
    found = np.concatenate(pieces)
    np.testing.assert_array_equal(found, vector)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(vector))


def test_mapped_and_differentiated():
    shapes = SHAPES["many"]
    count = sum(map(math.prod, shapes))
    vectors = jnp.arange(2.0 * count).reshape(2, count)
    pieces = jax.jit(jax.vmap(lambda x: apart(x, shapes)))(vectors)
    np.testing.assert_array_equal(
        jnp.concatenate([piece.reshape(2, -1) for piece in pieces], axis=1), vectors
    )

    def loss(vector):
        return sum(float(i) * jnp.sum(x**2) for i, x in enumerate(apart(vector, shapes)))

    factors = np.repeat(np.arange(len(shapes), dtype=np.float32), list(map(math.prod, shapes)))
    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(vectors[0]), 2 * factors * vectors[0])

    def joined_loss(parts):
        return jnp.sum(joined(parts) ** 2)

    parts = list(map(jnp.asarray, arrays(shapes)))
    for found, part in zip(jax.grad(joined_loss)(parts), parts, strict=True):
        np.testing.assert_array_equal(found, 2 * part)


def test_blocks_have_equal_cuts():
    def different_cuts(sizes, length):
        found = set()
        for i in range(0, len(sizes), length):
            block = sizes[i : i + length]
            starts = itertools.accumulate(block[:-1], initial=0)
            found |= {(sum(block), *cut) for cut in zip(starts, block, strict=True)}
        return len(found) + math.ceil(len(sizes) / length)

    layers = [size for _ in range(100) for size in (4, 6, 1, 9, 7)]
    assert _block_length(layers) % 5 == 0
    assert different_cuts(layers, _block_length(layers)) < 0.12 * len(layers)
    equal = [20] * 1000
    assert different_cuts(equal, _block_length(equal)) < 100
    for sizes in (layers, equal, [n % 13 for n in range(0, 900, 7)], [1, 1, 2, 1, 1, 3] * 20):
        fewest = min(different_cuts(sizes, n) for n in range(1, 4 * math.isqrt(len(sizes))))
        assert different_cuts(sizes, _block_length(sizes)) == fewest


def test_on_a_cpu_a_vector_is_cut_twice_and_joined_twice():
    def text(function, operand):
        return jax.jit(function).lower(operand).compile().as_text()

    def blocks(shapes):
        vector = jnp.zeros(sum(map(math.prod, shapes)))
        cut = re.search(r"= \((.*)\) conditional\(", text(lambda x: apart(x, shapes), vector))
        return cut and cut[1].count("f32")

    assert blocks(SHAPES["few"]) is None
    assert blocks(SHAPES["equal"]) == math.ceil(200 / _block_length([6] * 200)) <= 20
    few, many = (
        text(joined, list(map(jnp.asarray, arrays(SHAPES[name])))).count(" concatenate(")
        for name in ("few", "equal")
    )
    assert few == 1 and many > 10
