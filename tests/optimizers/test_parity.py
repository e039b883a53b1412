"""The same numbers, states and signatures as Optax 0.2.8."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
SCHEDULED = {"learning_rate": falling}
FACTOR = {"min_dim_size_to_factor": 3}

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
    ("lion", {}),
    ("lion", {"b1": 0.7, "b2": 0.8, "weight_decay": 0.3, "mask": MASK}),
    ("lion", {"weight_decay": falling, "mask": matrices, **SCHEDULED}),
    ("adabelief", {}),
    ("adabelief", ADAM),
    ("adabelief", {"nesterov": True, **SCHEDULED}),
    ("adadelta", {}),
    ("adadelta", {"learning_rate": None}),
    ("adadelta", {"rho": 0.8, "eps": 1e-3, "weight_decay": 0.3, "weight_decay_mask": MASK}),
    ("adadelta", {"weight_decay": falling, "weight_decay_mask": matrices, **SCHEDULED}),
    ("yogi", {}),
    ("yogi", {"b1": 0.8, "b2": 0.9, "eps": 0.1, **SCHEDULED}),
    ("radam", {}),
    ("radam", dict(**ADAM, threshold=4.5)),
    ("radam", {"b2": 0.9, "nesterov": True, **SCHEDULED}),
    ("sign_sgd", {}),
    ("sign_sgd", SCHEDULED),
    ("signum", {}),
    ("signum", {"beta": 0.5, **SCHEDULED}),
    ("optimistic_gradient_descent", {}),
    ("optimistic_gradient_descent", {"alpha": 0.7, "beta": 1.3, **SCHEDULED}),
    ("optimistic_adam_v2", {}),
    ("optimistic_adam_v2", dict(**ADAM, nesterov=False, alpha=0.7, beta=1.3, **SCHEDULED)),
    ("scale_by_lion", {}),
    ("scale_by_lion", {"mode": "smooth", "smooth_beta": 3.0}),
    ("scale_by_lion", {"mode": "refined", "b1": 0.3}),
    ("scale_by_belief", {}),
    ("scale_by_belief", dict(**ADAM, nesterov=True)),
    ("scale_by_adadelta", {}),
    ("scale_by_adadelta", {"rho": 0.8, "eps": 1e-3}),
    ("scale_by_yogi", {}),
    ("scale_by_yogi", dict(**ADAM, initial_accumulator_value=0.1)),
    ("scale_by_radam", {}),
    ("scale_by_radam", dict(**ADAM, nesterov=True)),
    ("scale_by_sign", {}),
    ("scale_by_optimistic_gradient", {}),
    ("scale_by_optimistic_gradient", {"alpha": 0.7, "beta": 1.3}),
    ("lamb", {}),
    ("lamb", {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-3, "weight_decay": 0.3}),
    ("lamb", {"weight_decay": falling, "mask": matrices, "learning_rate": falling}),
    ("lars", {}),
    ("lars", {"weight_decay": 0.3, "weight_decay_mask": MASK, "trust_coefficient": 0.1}),
    ("lars", {"trust_ratio_mask": matrices, "eps": 0.1, "momentum": 0.5, "nesterov": True}),
    ("lars", {"weight_decay": falling, "learning_rate": falling}),
    ("fromage", {}),
    ("fromage", {"min_norm": 3.0}),
    ("fromage", {"learning_rate": falling}),
    ("novograd", {}),
    ("novograd", {"b1": 0.8, "b2": 0.5, "eps": 0.1, "eps_root": 0.1, "weight_decay": 0.1}),
    ("sm3", {}),
    ("sm3", {"momentum": 0.5}),
    ("adafactor", {}),
    ("adafactor", FACTOR),
    ("adafactor", FACTOR | {"factored": False, "decay_rate": 0.5}),
    ("adafactor", FACTOR | {"multiply_by_parameter_scale": False, "clipping_threshold": None}),
    ("adafactor", FACTOR | {"clipping_threshold": 0.5, "eps": 0.1, "learning_rate": None}),
    ("adafactor", FACTOR | {"momentum": 0.9, "dtype_momentum": jnp.float32}),
    ("adafactor", {"weight_decay_rate": 0.01, "weight_decay_mask": MASK}),
    ("adafactor", {"weight_decay_rate": falling, "learning_rate": falling}),
    ("scale_by_novograd", {}),
    ("scale_by_sm3", {}),
    ("scale_by_sm3", {"b1": 0.5, "b2": 0.9, "eps": 0.1}),
    ("scale_by_factored_rms", {}),
    ("scale_by_factored_rms", FACTOR | {"decay_rate": 0.5, "epsilon": 0.1}),
    ("scale_by_trust_ratio", {}),
    ("scale_by_trust_ratio", {"min_norm": 2.0, "trust_coefficient": 0.1, "eps": 0.5}),
    ("scale_by_param_block_norm", {}),
    ("scale_by_param_block_rms", {"min_scale": 2.0}),
    ("normalize_by_update_norm", {}),
    ("normalize_by_update_norm", {"scale_factor": -0.1, "eps": 0.5}),
    ("centralize", {}),
    ("clip_by_block_rms", {"threshold": 0.5}),
    ("keep_params_nonnegative", {}),
    ("zero_nans", {}),
]


def ids(cases):
    return [f"{name}-{'-'.join(kwargs)}" for name, kwargs in cases]


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
@pytest.mark.parametrize("name, kwargs", CASES, ids=ids(CASES))
def test_optax_trajectory(name, kwargs):
    actual = descend(build(gradtx, name, kwargs), PARAMS, GRADS)
    expected = optax_trajectory(build(optax, name, kwargs))
    # Optax computes Adafactor's decay, and its momentum, in float32 also under x64.
    tolerance = 1e-6 if name in ("adafactor", "scale_by_factored_rms") else 1e-12
    for key in PARAMS:
        assert_close(actual[key], expected[key], tolerance)


def description(state):
    """Type names, fields, containers, shapes and dtypes."""
    if hasattr(state, "_fields"):
        fields = {name: description(getattr(state, name)) for name in state._fields}
        return type(state).__name__, fields
    if isinstance(state, tuple | list):
        return type(state)(map(description, state))
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
    ("adan", {}),
    ("adan", {"weight_decay": falling, "mask": MASK, **SCHEDULED}),
    ("rprop", {}),
    ("scale_by_adan", {}),
    ("scale_by_rprop", {"learning_rate": 0.1}),
    ("lion", {"mu_dtype": "bfloat16"}),
    ("scale_by_lion", {"mu_dtype": "bfloat16"}),
    ("signum", {"accumulator_dtype": "bfloat16"}),
    ("optimistic_adam_v2", {"mu_dtype": "bfloat16"}),
    ("scale_by_novograd", {"mu_dtype": "bfloat16"}),
]


@pytest.mark.parametrize("name, kwargs", STATES, ids=ids(STATES))
def test_optax_state(name, kwargs):
    params = jax.tree.map(jnp.float32, PARAMS)
    grads = jax.tree.map(lambda g: jnp.float32(g[0]), GRADS)
    ours, theirs = (build(library, name, kwargs) for library in (gradtx, optax))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = jax.eval_shape(theirs.init, params)
    assert description(jax.eval_shape(ours.init, params)) == description(expected)
    after = jax.eval_shape(ours.update, grads, ours.init(params), params)[1]
    assert description(after) == description(expected)


def test_starts_are_equal():
    params = jax.tree.map(jnp.float32, PARAMS)
    for name, kwargs in STATES:
        ours, theirs = (build(library, name, kwargs).init(params) for library in (gradtx, optax))
        leaves = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
        assert all(np.array_equal(one, other) for one, other in leaves), name
