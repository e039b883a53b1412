"""A Flax NNX loop with nnx.Optimizer: decay of matrices alone, clipping, a schedule."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

x = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
y = jnp.sin(x.sum(axis=1, keepdims=True))


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 8, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.tanh(self.hidden(x)))


def matrices(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=5, decay_steps=20)
model = Network(nnx.Rngs(0))
optimizer = nnx.Optimizer(
    model,
    optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, weight_decay=1e-2, mask=matrices),
    ),
    wrt=nnx.Param,
)


@nnx.jit
def train_step(model, optimizer, x, y):
    def loss_fn(model):
        return jnp.mean((model(x) - y) ** 2)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


losses = [train_step(model, optimizer, x, y) for _ in range(20)]
result = nnx.state(model, nnx.Param)
