"""A program with gradtx as type checkers see it: `mypy --strict` and pyright's strict mode pass.

The tests run it; the checkers read it.
"""

# JAX's own types are partly unknown.
# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false

from typing import NamedTuple, assert_type

import jax
import jax.numpy as jnp

import gradtx


class Model(NamedTuple):
    """Parameters of a line."""

    slope: jax.Array
    offset: jax.Array


def loss(model: Model, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean squared error."""
    return jnp.mean((model.slope * x + model.offset - y) ** 2)


def train(tx: gradtx.GradientTransformation, steps: int) -> Model:
    """Fits y = 2 x + 1 and returns the parameters."""
    x = jnp.linspace(-1.0, 1.0, 16)
    y = 2.0 * x + 1.0
    model = Model(jnp.zeros(()), jnp.zeros(()))
    state = tx.init(model)
    for _ in range(steps):
        grads: Model = jax.grad(loss)(model, x, y)
        updates, state = tx.update(grads, state, model)
        assert_type(gradtx.apply_updates(model, updates), Model)
        model, state = tx.step(grads, state, model)
        assert_type(model, Model)
    return model


def main() -> Model:
    """Composes, trains and inspects."""
    schedule = gradtx.cosine_decay_schedule(0.1, 100)
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(schedule, weight_decay=1e-4))
    assert_type(gradtx.adamw(1e-3).replace(learning_rate=3e-4), gradtx.adamw)
    params = Model(jnp.ones(()), jnp.ones(()))
    assert_type(gradtx.scale_by_adam().init(params).count, jax.Array)
    assert_type(gradtx.scale_by_adam().init(params), gradtx.ScaleByAdamState)
    assert_type(gradtx.scale_by_yogi().init(params), gradtx.ScaleByAdamState)
    assert_type(gradtx.trace(0.9).init(params), gradtx.TraceState)
    assert_type(gradtx.identity().init(params), gradtx.EmptyState)
    assert_type(gradtx.masked(tx, True).init(params), gradtx.MaskedState)
    assert_type(gradtx.accumulate(tx, 2).init(params).mini_step, jax.Array)
    assert_type(tx.init(params), tuple[gradtx.OptState, ...])
    rates: dict[str, float | jax.Array] = gradtx.hyperparams(tx, tx.init(params))
    assert "learning_rate" in rates
    labels = {"slope": "fast", "offset": "slow"}
    parts = gradtx.partition({"fast": gradtx.sgd(0.1), "slow": tx}, labels)
    print(gradtx.describe(parts, {"slope": jnp.ones(()), "offset": jnp.ones(())}))
    norm = gradtx.global_norm(params)
    assert_type(norm, jax.Array)
    init, update = tx
    update(params, init(params), params)
    return train(gradtx.inject_hyperparams(tx), 100)
