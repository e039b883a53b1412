"""The same numbers, states and signatures as Optax 0.2.8; the same numbers as PyTorch 2.13."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import gradtx
from tests.oracles import assert_close, descend

rng = np.random.default_rng(0)
PARAMS = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
GRADS = {"w": rng.normal(size=(40, 3, 4)), "b": rng.normal(size=(40, 4))}


def falling(count):
    return 0.1 / (1.0 + jnp.asarray(count, float))


def matrices(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


MASK = {"w": True, "b": False}
ADAM = {"b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-3}

CASES = [
    ("sgd", {}),
    ("sgd", {"learning_rate": falling}),
    ("sgd", {"momentum": 0.0}),
    ("sgd", {"momentum": 0.9, "learning_rate": falling}),
    ("sgd", {"momentum": 0.7, "nesterov": True}),
    ("adagrad", {}),
    ("adagrad", {"initial_accumulator_value": 0.0, "eps": 0.1}),
    ("rmsprop", {}),
    ("rmsprop", {"decay": 0.8, "eps": 0.1, "initial_scale": 0.5}),
    ("rmsprop", {"eps": 0.1, "eps_in_sqrt": False}),
    ("rmsprop", {"eps": 0.1, "eps_in_sqrt": False, "bias_correction": True}),
    ("rmsprop", {"eps": 0.1, "bias_correction": True, "momentum": 0.9}),
    ("rmsprop", {"centered": True, "eps": 0.1}),
    ("rmsprop", {"centered": True, "eps_in_sqrt": False, "eps": 0.1, "initial_scale": 0.3}),
    ("rmsprop", {"centered": True, "bias_correction": True, "eps": 1.0, "nesterov": True}),
    ("rmsprop", {"momentum": 0.8, "nesterov": True, "learning_rate": falling}),
    ("adam", {}),
    ("adam", ADAM),
    ("adam", {"nesterov": True, "learning_rate": falling}),
    ("adamw", {}),
    ("adamw", dict(**ADAM, weight_decay=0.3, nesterov=True)),
    ("adamw", {"weight_decay": 0.3, "mask": MASK}),
    ("adamw", {"weight_decay": falling, "mask": matrices, "learning_rate": falling}),
    ("nadam", {}),
    ("nadam", dict(**ADAM, nesterov=False)),
    ("nadamw", {}),
    ("nadamw", dict(**ADAM, weight_decay=falling, mask=MASK)),
    ("adamax", {}),
    ("adamax", {"b1": 0.8, "b2": 0.9, "eps": 0.1}),
    ("adamaxw", {}),
    ("adamaxw", {"b1": 0.8, "b2": 0.9, "eps": 0.1, "weight_decay": 0.3, "mask": matrices}),
    ("amsgrad", {}),
    ("amsgrad", ADAM),
    ("amsgrad", {"bias_correction_mu": False}),
    ("amsgrad", {"bias_correction_nu": False, "learning_rate": falling}),
    ("identity", {}),
    ("set_to_zero", {}),
    ("scale", {"step_size": -0.1}),
    ("scale_by_schedule", {"step_size_fn": falling}),
    ("scale_by_learning_rate", {"learning_rate": falling, "flip_sign": False}),
    ("scale_by_learning_rate", {"learning_rate": 0.1}),
    ("add_decayed_weights", {}),
    ("add_decayed_weights", {"weight_decay": 0.1, "mask": MASK}),
    ("add_decayed_weights", {"weight_decay": falling}),
    ("clip", {"max_delta": 0.5}),
    ("clip_by_global_norm", {"max_norm": 2.0}),
    ("trace", {"decay": 0.9}),
    ("trace", {"decay": 0.9, "nesterov": True}),
    ("ema", {"decay": 0.9}),
    ("ema", {"decay": 0.9, "debias": False}),
    ("scale_by_rss", {}),
    ("scale_by_rms", {}),
    ("scale_by_rms", {"bias_correction": True}),
    ("scale_by_stddev", {"eps": 0.1}),
    ("scale_by_stddev", {"eps": 1.0, "bias_correction": True}),
    ("scale_by_adam", {}),
    ("scale_by_adam", {"nesterov": True}),
    ("scale_by_adamax", {}),
    ("scale_by_amsgrad", {}),
]
IDS = [f"{name}-{'-'.join(kwargs)}" for name, kwargs in CASES]


def build(library, name, kwargs):
    make = getattr(library, name)
    if "learning_rate" in inspect.signature(getattr(optax, name)).parameters:
        kwargs = {"learning_rate": 0.05, **kwargs}
    return make(**kwargs)


def optax_trajectory(tx):
    def one(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    @jax.jit
    def run(params, grads):
        return jax.lax.scan(one, (params, tx.init(params)), grads)[1]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return run(PARAMS, GRADS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name, kwargs", CASES, ids=IDS)
def test_optax_trajectory(name, kwargs):
    actual = descend(build(gradtx, name, kwargs), PARAMS, GRADS)
    expected = optax_trajectory(build(optax, name, kwargs))
    for key in PARAMS:
        assert_close(actual[key], expected[key])


def description(state):
    """Type names, fields, containers, shapes and dtypes."""
    if hasattr(state, "_fields"):
        fields = {name: description(getattr(state, name)) for name in state._fields}
        return type(state).__name__, fields
    if isinstance(state, tuple):
        return tuple(map(description, state))
    if isinstance(state, dict):
        return {key: description(value) for key, value in state.items()}
    return state.shape, state.dtype.name


STATES = [
    *CASES,
    ("sgd", {"momentum": 0.9, "accumulator_dtype": "bfloat16"}),
    ("trace", {"decay": 0.9, "accumulator_dtype": "bfloat16"}),
    ("ema", {"decay": 0.9, "accumulator_dtype": "bfloat16"}),
    *((name, {"mu_dtype": "bfloat16"}) for name in ("adam", "adamw", "nadam", "nadamw", "amsgrad")),
    ("scale_by_adam", {"mu_dtype": "bfloat16"}),
    ("scale_by_amsgrad", {"mu_dtype": "bfloat16"}),
]


@pytest.mark.parametrize(
    "name, kwargs", STATES, ids=[f"{name}-{'-'.join(kwargs)}" for name, kwargs in STATES]
)
def test_optax_state(name, kwargs):
    params = jax.tree.map(jnp.float32, PARAMS)
    grads = jax.tree.map(lambda g: jnp.float32(g[0]), GRADS)
    ours, theirs = (build(library, name, kwargs) for library in (gradtx, optax))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = jax.eval_shape(theirs.init, params)
    assert description(jax.eval_shape(ours.init, params)) == description(expected)
    after = jax.eval_shape(ours.update, grads, ours.init(params), params)[1]
    assert description(after) == description(expected)


SIGNATURES = sorted(
    name
    for name in gradtx.__all__
    if name[0].islower() and hasattr(optax, name) and name not in ("chain", "named_chain")
)


# Optax warns, and takes 0, where no key is given.
DELIBERATE = {
    ("adam", "learning_rate"): 1e-3,
    ("noisy_sgd", "key"): 0,
    ("add_noise", "key"): inspect.Parameter.empty,
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_optax_signature(name):
    ours = list(inspect.signature(getattr(gradtx, name)).parameters.values())
    theirs = list(inspect.signature(getattr(optax, name)).parameters.values())
    positional = [p for p in ours if p.kind is not p.KEYWORD_ONLY]
    expected = [p.name for p in theirs if p.kind is not p.KEYWORD_ONLY]
    assert [p.name for p in positional][: len(expected)] == expected
    by_name = {p.name: p for p in ours}
    theirs = [p for p in theirs if p.name != "seed"]  # deprecated there
    assert by_name.keys() >= {p.name for p in theirs}
    for other in theirs:
        mine = by_name[other.name]
        assert mine.kind == other.kind
        if other.name == "decay_rate_fn":
            continue  # a function of ours and one of theirs
        assert mine.default == DELIBERATE.get((name, other.name), other.default)
    extra = [p for p in ours if p.name not in {q.name for q in theirs}]
    assert all(p.default is not p.empty for p in extra)


TORCH = [
    (gradtx.sgd(0.1), torch.optim.SGD, {"lr": 0.1}),
    (gradtx.sgd(0.1, 0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (
        gradtx.sgd(0.1, 0.9, nesterov=True),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    (
        gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(0.1, 0.9)),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    ),
    (
        gradtx.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False),
        torch.optim.Adagrad,
        {"lr": 0.1},
    ),
    (
        gradtx.adagrad(0.1, 0.5, 0.1, eps_in_sqrt=False),
        torch.optim.Adagrad,
        {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 0.1},
    ),
    (
        gradtx.rmsprop(0.01, 0.99, 1e-8, eps_in_sqrt=False),
        torch.optim.RMSprop,
        {"lr": 0.01},
    ),
    (
        gradtx.rmsprop(0.01, 0.9, 1e-3, eps_in_sqrt=False, momentum=0.8),
        torch.optim.RMSprop,
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.8},
    ),
    (
        gradtx.rmsprop(0.01, 0.99, 1e-3, eps_in_sqrt=False, centered=True),
        torch.optim.RMSprop,
        {"lr": 0.01, "eps": 1e-3, "centered": True},
    ),
    (gradtx.adam(), torch.optim.Adam, {}),
    (
        gradtx.adam(0.1, 0.8, 0.95, 0.1),
        torch.optim.Adam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1},
    ),
    (gradtx.adamw(1e-3, weight_decay=1e-2), torch.optim.AdamW, {}),
    (
        gradtx.adamw(0.1, weight_decay=0.3, eps=0.1),
        torch.optim.AdamW,
        {"lr": 0.1, "weight_decay": 0.3, "eps": 0.1},
    ),
    (gradtx.adamax(2e-3), torch.optim.Adamax, {}),
    (
        gradtx.adamax(0.1, 0.8, 0.9, 0.1),
        torch.optim.Adamax,
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.1},
    ),
    (gradtx.nadam(2e-3, momentum_decay=4e-3), torch.optim.NAdam, {}),
    (
        gradtx.nadam(0.1, 0.8, 0.95, 0.1, momentum_decay=0.5),
        torch.optim.NAdam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1, "momentum_decay": 0.5},
    ),
    (
        gradtx.nadamw(0.1, weight_decay=0.3, momentum_decay=4e-3),
        torch.optim.NAdam,
        {"lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True},
    ),
    (gradtx.amsgrad(1e-3, max_before_correction=True), torch.optim.Adam, {"amsgrad": True}),
    (
        gradtx.amsgrad(0.1, 0.8, 0.95, 0.1, max_before_correction=True),
        torch.optim.Adam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1, "amsgrad": True},
    ),
]


@pytest.fixture
def torch_double():
    """PyTorch keeps NAdam's product of momenta in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("x64", "torch_double")
@pytest.mark.parametrize("tx, make, kwargs", TORCH, ids=[repr(case[0]) for case in TORCH])
def test_torch_trajectory(tx, make, kwargs):
    x = torch.tensor(PARAMS["w"], requires_grad=True)
    optimizer = make([x], **kwargs)
    expected = []
    for g in GRADS["w"]:
        x.grad = torch.tensor(g)
        optimizer.step()
        expected.append(x.detach().numpy().copy())
    assert_close(descend(tx, PARAMS["w"], GRADS["w"]), np.stack(expected))


@pytest.mark.usefixtures("x64")
def test_nadam_and_amsgrad_of_optax_and_torch_are_different_algorithms():
    for ours, other in (
        (gradtx.nadam(1e-2), gradtx.nadam(1e-2, momentum_decay=4e-3)),
        (gradtx.amsgrad(1e-2), gradtx.amsgrad(1e-2, max_before_correction=True)),
    ):
        one, two = (np.asarray(descend(tx, PARAMS["w"], GRADS["w"])) for tx in (ours, other))
        assert np.abs(one - two).max() > 0.1 * np.abs(one - PARAMS["w"]).max()
