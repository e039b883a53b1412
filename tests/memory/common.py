"""A thousand small steps of narrow parameters, and what they come to in float64."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

LOW = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}
STEPS = 1000
SHAPE = (64, 64)


def run(tx, dtype, gradient, steps=STEPS, applied=False):
    """Parameters of 1.0 and the state after these steps of one gradient."""
    params = {"w": jnp.ones(SHAPE, dtype)}
    grads = {"w": jnp.full(SHAPE, gradient, dtype)}

    def body(carry, _):
        if not applied:
            return tx.step(grads, carry[1], carry[0]), None
        updates, state = tx.update(grads, carry[1], carry[0])
        return (gradtx.apply_updates(carry[0], updates), state), None

    whole = jax.jit(lambda *carry: jax.lax.scan(body, carry, length=steps)[0])
    params, state = whole(params, tx.init(params))
    return np.asarray(params["w"], np.float64), state


def sgd(rate, gradient, steps=STEPS, decay=0.0):
    """Where 1.0 ends, in float64."""
    x = 1.0
    for _ in range(steps):
        x -= rate * (gradient + decay * x)
    return x


def adamw(rate, gradient, decay, steps=STEPS, b1=0.9, b2=0.999, eps=1e-8):
    x, m, v = 1.0, 0.0, 0.0
    for t in range(1, steps + 1):
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        direction = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        x -= rate * (direction + decay * x)
    return x


def share_of_movement(x, expected):
    """How far the mean is from where it should be, as a part of the way from 1.0."""
    return abs(np.mean(x) - expected) / abs(expected - 1.0)


def both_ways(tx, params, grads, steps):
    """Parameters and state by `step` and by `update` with `apply_updates`, eager and compiled."""

    def applied(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    found = []
    for make in (tx.step, applied, jax.jit(tx.step), jax.jit(applied)):
        x, state = params, tx.init(params)
        for _ in range(steps):
            x, state = make(grads, state, x)
        found.append((x, state))
    return found


def assert_same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes(), (a, b)
