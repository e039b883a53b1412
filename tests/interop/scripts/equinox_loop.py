"""An Equinox loop: filtered gradients, optax.apply_updates on the filtered model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

x = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
y = jnp.sin(x.sum(axis=1, keepdims=True))

model = eqx.nn.MLP(3, 1, 8, 2, key=jax.random.key(0))
optim = optax.chain(optax.clip(0.5), optax.rmsprop(0.01, momentum=0.5))
opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_value_and_grad
def compute_loss(model, x, y):
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


@eqx.filter_jit
def make_step(model, opt_state, x, y):
    loss, grads = compute_loss(model, x, y)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    updates, opt_state = optim.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return eqx.combine(params, static), opt_state, loss


losses = []
for _ in range(20):
    model, opt_state, loss = make_step(model, opt_state, x, y)
    losses.append(loss)
result = eqx.filter(model, eqx.is_inexact_array)
