"""A Flax Linen loop with TrainState: adaptive clipping, momentum, a piecewise schedule."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

x = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
y = jnp.sin(x.sum(axis=1, keepdims=True))


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.Dense(8)(x)))


model = Network()
tx = optax.chain(
    optax.adaptive_grad_clip(0.1),
    optax.sgd(optax.piecewise_constant_schedule(0.1, {10: 0.5}), momentum=0.9, nesterov=True),
)
params = model.init(jax.random.key(0), x)
state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)


@jax.jit
def train_step(state, x, y):
    def loss_fn(params):
        return jnp.mean((state.apply_fn(params, x) - y) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


losses = []
for _ in range(20):
    state, loss = train_step(state, x, y)
    losses.append(loss)
result = state.params
