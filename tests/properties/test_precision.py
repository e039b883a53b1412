"""Low-precision parameters: the state is that of a float32 run, and updates are rounded once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.examples import EXAMPLES
from tests.properties.test_laws import EXTRA

# A search evaluates the loss at trial points in the parameters' own dtype, so that its step
# sizes differ: "searches: dtypes of values, slopes, rates" in docs/differences.md.
SEARCHING = {"lbfgs", "scale_by_backtracking_linesearch", "scale_by_zoom_linesearch"}
# They answer for the rounding of parameters themselves: tests/memory.
ROUNDING = {"stochastic_rounding", "kahan", "master_weights"}
CASES = [name for name in EXAMPLES if name.rpartition("-")[0] not in SEARCHING | ROUNDING]
STEPS = 4  # the accumulators of the examples close their windows within these


def representable(scale, seed):
    """Values that bfloat16, float16 and float32 all hold exactly."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(scale=scale, size=shape), jnp.bfloat16).astype(jnp.float32)
        for name, shape in (("w", (3, 2)), ("b", (2,)))
    }


PARAMS = representable(1.0, seed=0)
GRADS = [representable(0.1, seed) for seed in range(1, STEPS + 1)]


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def bits(x):
    key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    x = np.asarray(jax.random.key_data(x) if key else x)
    return x.shape, str(x.dtype), x.tobytes()


def assert_same(actual, expected, what):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    paths = jax.tree_util.tree_leaves_with_path(actual)
    for (path, a), e in zip(paths, jax.tree.leaves(expected), strict=True):
        assert bits(a) == bits(e), f"{what}{jax.tree_util.keystr(path)}: {a} against {e}"


def trajectory(tx, dtype):
    """The updates and the state after each of a few gradients, at parameters that stay."""
    params = cast(PARAMS, dtype)
    state, found = tx.init(params), []
    for grads in GRADS:
        updates, state = tx.update(
            cast(grads, dtype), state, params, **EXTRA, grad=cast(grads, dtype)
        )
        found.append((updates, state))
    return found


@pytest.mark.parametrize("name", CASES)
def test_low_precision_is_float32_rounded_once(name):
    exact = trajectory(EXAMPLES[name], jnp.float32)
    for dtype in (jnp.bfloat16, jnp.float16):
        for found, expected in zip(trajectory(EXAMPLES[name], dtype), exact, strict=True):
            assert_same(found[0], cast(expected[0], dtype), "update")
            assert_same(found[1], expected[1], "state")


def test_the_values_are_held_exactly():
    for tree in (PARAMS, *GRADS):
        for dtype in (jnp.bfloat16, jnp.float16):
            assert_same(cast(cast(tree, dtype), jnp.float32), tree, "value")
