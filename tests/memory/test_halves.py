"""What works entry by entry is formed of halves too, and the rest as before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.memory.halves import Halved, full, is_halved, only_full, with_halves
from gradtx.memory.layout import Layout, halves

SHAPE, LAYOUT = (4, 6), Layout(1, 4, 2, paired=0)


def array(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE), jnp.float32)


def halved(x):
    # Halves that are not those of the array, so that what is formed of which can be seen.
    low, high = halves(x + 100, LAYOUT)
    return Halved(x, low, high, LAYOUT)


def as_numpy(function, *operands):
    return np.asarray(function(*(np.asarray(x, np.float64) for x in operands)))


@pytest.mark.parametrize("jitted", [False, True])
def test_entry_by_entry(jitted):
    x, g = array(), array(1)

    def rule(x, g):
        return 0.9 * x + 0.1 * g * g

    function = jax.jit(rule) if jitted else rule
    found = with_halves(lambda tree: [function(tree["x"], g)], {"x": halved(x)})[0]
    assert is_halved(found) and found.layout == LAYOUT
    np.testing.assert_allclose(found.full, as_numpy(rule, x, g), rtol=1e-6)
    beyond = as_numpy(rule, x + 100, g)
    np.testing.assert_allclose(found.low, beyond[0::2], rtol=1e-6)
    np.testing.assert_allclose(found.high, beyond[1::2], rtol=1e-6)


def test_what_is_not_entry_by_entry_is_formed_of_the_array():
    x, g = array(), array(1)

    def function(x):
        norm = jnp.sqrt(jnp.sum(x * x))
        return {
            "norm": norm,
            "scaled": g / norm * x,
            "turned": x.T,
            "cumulative": jnp.cumsum(x, 0),
            "step": jax.lax.cond(norm > 0, lambda x: x + 1, lambda x: x, x),
            "passed": x,
            "none": None,
            "number": 3,
        }

    found = with_halves(function, halved(x))
    assert {name for name, leaf in found.items() if is_halved(leaf)} == {"scaled", "passed"}
    assert found["none"] is None and found["number"] == 3
    low = as_numpy(lambda x, g: g / np.sqrt(np.sum(x * x)) * (x + 100), x, g)[0::2]
    np.testing.assert_allclose(found["scaled"].low, low, rtol=1e-5)
    for name, leaf in only_full(function(x)).items():
        np.testing.assert_allclose(full(found[name]), leaf, rtol=1e-6) if leaf is not None else None


def test_without_halves_nothing_is_traced():
    seen = []
    assert with_halves(lambda x: seen.append(x) or x, 3) == 3 and seen == [3]


def test_effects_happen_once(capfd):
    def function(x):
        jax.debug.print("seen {}", x[0, 0])
        return jax.jit(lambda x: (jax.debug.print("inside"), x * 2)[1])(x)

    found = jax.jit(lambda x: with_halves(function, halved(x)))(array())
    jax.block_until_ready(found.full)
    jax.effects_barrier()
    out = capfd.readouterr().out
    assert out.count("seen") == out.count("inside") == 1


def test_under_vmap_and_grad():
    x = array()
    many = jnp.stack([x, x + 1])
    found = jax.vmap(lambda x: with_halves(lambda x: x * x, halved(x)))(many)
    np.testing.assert_allclose(found.low[1], as_numpy(np.square, x + 101)[0::2], rtol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(with_halves(lambda x: x * x, halved(x)).high))(x)
    np.testing.assert_allclose(slope[1::2], 2 * (x + 100)[1::2], rtol=1e-6)
    assert not slope[0::2].any()


def test_halves_that_lie_otherwise_are_taken_of_the_array():
    x, y = array(), array(1)
    other = Layout(1, 2, 3)
    low, high = halves(y + 100, other)
    found = with_halves(lambda both: both[0] + both[1], [halved(x), Halved(y, low, high, other)])
    assert found.layout == LAYOUT
    np.testing.assert_allclose(found.low, as_numpy(np.add, x + 100, y)[0::2], rtol=1e-6)
