"""What every schedule must satisfy, and the driver that compares one with a loop in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx


@jax.jit
def over(schedule, counts):
    return jax.vmap(schedule)(counts)


def check_values(schedule, oracle, steps=60):
    """The oracle's value at every step: under jit in double precision, without in single."""
    expected = np.array([oracle(t) for t in range(steps)])
    scale = np.abs(expected).max()
    with jax.enable_x64(True):
        actual = over(schedule, jnp.arange(steps))
        assert actual.dtype == jnp.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14 * scale)
    actual = jax.vmap(schedule)(jnp.arange(steps))
    assert (actual.dtype, actual.aval.weak_type) == (jnp.float32, False)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * scale)
    for t in (0, 1, steps - 1):
        value = schedule(t)
        assert (value.shape, value.dtype) == ((), jnp.float32)
        np.testing.assert_allclose(value, expected[t], rtol=0, atol=1e-6 * scale)


def check_optax(schedule, theirs, steps=60):
    with jax.enable_x64(True):
        ours = [float(v) for v in jax.vmap(schedule)(jnp.arange(steps))]
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            counts = jnp.arange(steps)
            expected = np.broadcast_to(jax.vmap(lambda t: jnp.asarray(theirs(t)))(counts), steps)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-14 * np.abs(expected).max())


def check_value(schedule, other, leaves):
    """`repr` rebuilds it; equal content is equal and hashes alike; numbers are its leaves."""
    again = eval(repr(schedule), vars(gradtx))
    assert again == schedule and hash(again) == hash(schedule)
    assert other != schedule
    assert jax.tree.leaves(schedule) == leaves
    flat, treedef = jax.tree.flatten(schedule)
    assert jax.tree.unflatten(treedef, flat) == schedule
    assert float(again(7)) == float(schedule(7))


def check_falling_per_step(schedule, start):
    """Late steps are still told apart as far as the values' own precision goes."""
    counts = start + jnp.arange(2000)
    values = np.asarray(jax.vmap(schedule)(counts))
    assert (np.diff(values) <= 0).all()
    assert values[-1] < values[0]
    return values
