"""What the tests of the wrappers share."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

SHAPES = {"b": (3,), "w": (2, 4)}


def tree(seed, dtype=jnp.float32, scale=1.0):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(scale * rng.normal(size=s), dtype) for k, s in SHAPES.items()}


def spoilt(grads, value=jnp.nan):
    """The gradients with one bad value."""
    return {**grads, "w": grads["w"].at[1, 2].set(value)}


def plain_run(tx, params, steps):
    """Parameters and state after each (gradients, extra arguments), by a jitted `step`."""
    step = jax.jit(tx.step)
    state, seen = tx.init(params), []
    for grads, extra_args in steps:
        params, state = step(grads, state, params, **extra_args)
        seen.append((params, state))
    return seen


def run(tx, params, steps):
    """The same, after a check that `update` and `apply_updates` give it too."""
    seen = plain_run(tx, params, steps)
    update, before = jax.jit(tx.update), (params, tx.init(params))
    for (grads, extra_args), after in zip(steps, seen, strict=True):
        updates, updated = update(grads, before[1], before[0], **extra_args)
        # Two programs: their last bits may differ.
        assert_close(after, (gradtx.apply_updates(before[0], updates), updated))
        before = after
    return seen


def assert_close(actual, expected, rtol=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        a, e = (np.asarray(x.astype(jnp.float32)) for x in (a, e))
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, e)


def temporaries(tx):
    """Bytes of temporaries per parameter of a compiled `step`, all else donated."""
    params = {name: jax.ShapeDtypeStruct((256, 256), jnp.float32) for name in "abcd"}
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(
        lambda params, state, grads: tx.step(grads, state, params), donate_argnums=(0, 1)
    )
    compiled = step.lower(params, state, params).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (4 * 256 * 256)
