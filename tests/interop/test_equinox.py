"""gradtx in an Equinox training loop, with filtered and unfiltered modules."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import gradtx

X = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
Y = jnp.sin(X.sum(axis=1, keepdims=True))


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def loss_of(model):
    return jnp.mean((jax.vmap(model)(X) - Y) ** 2)


def test_loop():
    model = eqx.nn.MLP(3, 1, 8, 2, key=jax.random.key(0))
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2))
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(model, state):
        loss, grads = eqx.filter_value_and_grad(loss_of)(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, loss

    losses = []
    for _ in range(20):
        model, state, loss = train_step(model, state)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_unfiltered_module():
    model = eqx.nn.MLP(3, 1, 8, 2, key=jax.random.key(0))
    tx = gradtx.adam(1e-2)
    state = tx.init(model)
    grads = eqx.filter_grad(loss_of)(model)
    moved, state = tx.step(grads, state, model)
    assert moved.activation is model.activation
    assert not jnp.array_equal(moved.layers[0].weight, model.layers[0].weight)


def test_module_as_mask():
    model = eqx.nn.MLP(3, 1, 8, 2, key=jax.random.key(0))
    params = eqx.filter(model, eqx.is_inexact_array)
    mask = jax.tree.map(lambda x: x.ndim > 1, params)
    assert callable(mask)
    tx = gradtx.adamw(0.1, weight_decay=1.0, mask=mask)
    zeros = jax.tree.map(jnp.zeros_like, params)
    moved, _ = tx.step(zeros, tx.init(params), params)
    assert jnp.allclose(moved.layers[0].weight, 0.9 * params.layers[0].weight)
    assert jnp.array_equal(moved.layers[0].bias, params.layers[0].bias)


def test_transformation_inside_a_module():
    class Trainer(eqx.Module):
        tx: gradtx.GradientTransformation
        params: jax.Array

    trainer = Trainer(gradtx.adam(0.1), jnp.ones(3))
    assert trainer.tx == gradtx.adam(0.1)
    assert eqx.tree_equal(trainer, trainer)
    step = eqx.filter_jit(lambda t: t.tx.step(t.params, t.tx.init(t.params), t.params)[0])
    assert step(trainer).shape == (3,)
