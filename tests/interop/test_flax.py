"""gradtx in Flax: NNX's Optimizer and State, Linen's TrainState and FrozenDict."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from flax.core import freeze
from flax.training.train_state import TrainState

import gradtx
from gradtx.testing import check_transformation

X = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3)
Y = jnp.sin(X.sum(axis=1, keepdims=True))


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.hidden(x))))


def loss_of(model):
    return jnp.mean((model(X) - Y) ** 2)


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


OPTIMIZERS = {
    "sgd": (gradtx.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "adamw": (gradtx.adamw(jnp.float32(0.01)), optax.adamw(0.01)),
    "scheduled": (
        gradtx.chain(
            gradtx.clip_by_global_norm(1.0), gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 8))
        ),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(0.1, 0.0, 8))),
    ),
    "mixed": (
        gradtx.chain(optax.clip_by_global_norm(1.0), gradtx.rmsprop(0.01)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(0.01)),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nnx_optimizer(name):
    @nnx.jit
    def train_step(model, optimizer):
        loss, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        return loss

    losses = []
    for tx in OPTIMIZERS[name]:
        model = Network(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
        losses.append([train_step(model, optimizer) for _ in range(6)])
    chex.assert_trees_all_close(losses[0], losses[1], rtol=2e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.chain(gradtx.sgd(0.1), gradtx.ema_params(0.5, debias=False)),
        gradtx.lookahead(gradtx.sgd(0.1), sync_period=9, slow_step_size=0.5),
    ],
    ids=["ema_params", "lookahead"],
)
def test_nnx_evaluation_parameters(tx):
    model = Network(nnx.Rngs(0))
    start = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, nnx.grad(loss_of)(model))
    params = nnx.state(model, nnx.Param)
    evaluated = gradtx.eval_params(optimizer.opt_state, params)
    half = 0.5 if "ema" in repr(tx) else 0.0
    expected = jax.tree.map(lambda p, q: half * p + (1 - half) * q, params, start)
    chex.assert_trees_all_close(evaluated, expected, rtol=1e-5, atol=1e-7)
    nnx.update(model, evaluated)


def test_nnx_jit_compiles_once():
    traces = []

    @nnx.jit
    def train_step(model, optimizer):
        traces.append(None)
        optimizer.update(model, nnx.grad(loss_of)(model))

    for _ in range(2):
        model = Network(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, gradtx.adam(1e-2), wrt=nnx.Param)
        for _ in range(3):
            train_step(model, optimizer)
    assert len(traces) == 1


@pytest.mark.parametrize("tx", [gradtx.adamw(1e-2), gradtx.sgd(0.1, 0.9)], ids=["adamw", "sgd"])
def test_nnx_state_is_a_tree_like_any_other(tx):
    params = nnx.state(Network(nnx.Rngs(0)), nnx.Param)
    check_transformation(tx, params, laws=["scans", "is_the_same_under_jit", "never_aliases"])
    params, _ = tx.step(params, tx.init(params), params)
    assert isinstance(params, nnx.State)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_linen_train_state(name):
    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(nn.relu(nn.Dense(4)(x)))

    model = Linen()

    @jax.jit
    def train_step(state):
        def loss_fn(params):
            return jnp.mean((state.apply_fn(params, X) - Y) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    losses = []
    for tx in OPTIMIZERS[name]:
        params = model.init(jax.random.key(0), X)
        state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
        run = []
        for _ in range(6):
            state, loss = train_step(state)
            run.append(loss)
        losses.append(run)
    chex.assert_trees_all_close(losses[0], losses[1], rtol=2e-4)


def test_frozen_dict():
    params = freeze({"layer": {"w": jnp.ones((8, 2)), "b": jnp.ones(2)}})
    check_transformation(gradtx.adam(0.1), params)
    grads = {"layer": {"w": jnp.ones((8, 2)), "b": jnp.ones(2)}}
    tx = gradtx.adam(0.1)
    moved, _ = tx.step(grads, tx.init(params), params)
    assert type(moved) is type(params)


def test_nnx_groups_and_frozen_layers():
    model = Network(nnx.Rngs(0))
    rest = gradtx.groups([("bias|norm", gradtx.sgd(0.1))], default=gradtx.adamw(0.01))
    optimizer = nnx.Optimizer(model, gradtx.freeze(rest, "hidden"), wrt=nnx.Param)
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    for _ in range(2):
        optimizer.update(model, nnx.grad(loss_of)(model))
    after = nnx.state(model, nnx.Param)
    chex.assert_trees_all_equal(before["hidden"], after["hidden"])
    assert all(
        jnp.any(before["out"][name][...] != after["out"][name][...]) for name in ("kernel", "bias")
    )


def test_nnx_extra_args_reach_a_search():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    expected = gradtx.minimize(lambda p: loss_of(nnx.merge(graph, p)), params, max_steps=4)
    optimizer = nnx.Optimizer(model, gradtx.lbfgs(), wrt=nnx.Param)
    for _ in range(4):
        value, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(
            model, grads, value=value, grad=grads, value_fn=lambda p: loss_of(nnx.merge(graph, p))
        )
    chex.assert_trees_all_close(nnx.state(model), expected.params, rtol=1e-4)
