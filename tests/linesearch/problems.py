"""Losses, and a loop around a search, for the tests of this room."""

import jax
import jax.numpy as jnp
import numpy as np

import gradtx


def rosenbrock(x):
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def bowl(x):
    scales = jnp.asarray(np.geomspace(1.0, 1e3, x.size), x.dtype)
    return 0.5 * jnp.sum(scales * (x - 1.0) ** 2)


def quartic(x):
    return jnp.sum(x**4 + 3.0 * x**2 * jnp.sin(x))


START = {
    rosenbrock: np.asarray([-1.2, 1.0]),
    bowl: np.zeros(6),
    quartic: np.asarray([2.5, -0.7, 0.1]),
}


def descend(tx, loss, x, steps, apply=gradtx.apply_updates):
    """The parameters and the state of the search (the last of a chain) after each step."""

    @jax.jit
    def step(x, state):
        value, grad = jax.value_and_grad(loss)(x)
        uphill = jax.tree.map(jnp.conj, grad)
        extra = {"value": value, "grad": uphill, "value_fn": loss}
        updates, state = tx.update(uphill, state, x, **extra)
        return apply(x, updates), state

    xs, states, state = [], [], tx.init(x)
    for _ in range(steps):
        x, state = step(x, state)
        xs.append(np.asarray(x))
        states.append(jax.tree.map(np.asarray, state[-1]))
    return np.stack(xs), states
