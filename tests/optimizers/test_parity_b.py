"""The same numbers and states as Optax 0.2.8, for the layer-wise and factored algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import gradtx
from tests.optimizers.test_parity import (
    GRADS,
    MASK,
    PARAMS,
    build,
    description,
    falling,
    matrices,
    optax_trajectory,
)
from tests.oracles import assert_close, descend

FACTOR = {"min_dim_size_to_factor": 3}

CASES = [
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
IDS = [f"{name}-{'-'.join(kwargs)}" for name, kwargs in CASES]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name, kwargs", CASES, ids=IDS)
def test_optax_trajectory(name, kwargs):
    actual = descend(build(gradtx, name, kwargs), PARAMS, GRADS)
    expected = optax_trajectory(build(optax, name, kwargs))
    # Optax computes Adafactor's decay, and its momentum, in float32 also under x64.
    tolerance = 1e-6 if name in ("adafactor", "scale_by_factored_rms") else 1e-12
    for key in PARAMS:
        assert_close(actual[key], expected[key], tolerance)


STATES = [*CASES, ("scale_by_novograd", {"mu_dtype": "bfloat16"})]


def listed(state):
    """As `description`, with lists."""
    if isinstance(state, list):
        return list(map(listed, state))
    if hasattr(state, "_fields"):
        return type(state).__name__, {k: listed(getattr(state, k)) for k in state._fields}
    if isinstance(state, tuple):
        return tuple(map(listed, state))
    if isinstance(state, dict):
        return {key: listed(value) for key, value in state.items()}
    return description(state)


@pytest.mark.parametrize(
    "name, kwargs", STATES, ids=[f"{name}-{'-'.join(kwargs)}" for name, kwargs in STATES]
)
def test_optax_state(name, kwargs):
    params = jax.tree.map(jnp.float32, PARAMS)
    grads = jax.tree.map(lambda g: jnp.float32(g[0]), GRADS)
    ours, theirs = (build(library, name, kwargs) for library in (gradtx, optax))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = jax.eval_shape(theirs.init, params)
    assert listed(jax.eval_shape(ours.init, params)) == listed(expected)
    after = jax.eval_shape(ours.update, grads, ours.init(params), params)[1]
    assert listed(after) == listed(expected)


def one_update(tx, params, grads, **extra_args):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return tx.update(grads, tx.init(params), params, **extra_args)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"f_min": 0.5, "max_learning_rate": 0.1},
        {"eps": 0.5, "variant": "sps+"},
        {"f_min": 5.0, "variant": "sps+"},
    ],
)
@pytest.mark.parametrize("name", ["polyak_sgd", "scale_by_polyak"])
def test_polyak(name, kwargs):
    grads = jax.tree.map(lambda g: g[0], GRADS)
    ours, theirs = (getattr(library, name)(**kwargs) for library in (gradtx, optax))
    for value in (1.0, 1e3):
        actual = one_update(ours, PARAMS, grads, value=value)
        expected = one_update(theirs, PARAMS, grads, value=value)
        for key in PARAMS:
            np.testing.assert_allclose(actual[key], expected[key], rtol=1e-12)
    if name == "scale_by_polyak":
        assert listed(ours.init(PARAMS)) == listed(theirs.init(PARAMS))


def test_polyak_scaling_is_not_squared():
    """Optax scales the gradient before it takes its norm: half the scaling, twice the step."""
    x, g = jnp.asarray([1.0]), jnp.asarray([2.0])
    kwargs = {"max_learning_rate": 100.0, "scaling": 0.5}
    assert one_update(gradtx.polyak_sgd(**kwargs), x, g, value=1.0)[0] == -0.25
    assert one_update(optax.polyak_sgd(**kwargs), x, g, value=1.0)[0] == -1.0


def test_polyak_threshold_is_optaxs_in_single_precision():
    for g in (2.0**-25, 2.0**-26):
        x, g = jnp.asarray([1.0]), jnp.asarray([g])
        ours, theirs = (
            one_update(library.scale_by_polyak(), x, g, value=1.0) for library in (gradtx, optax)
        )
        assert ours == theirs


def test_adafactor_with_an_offset_is_finite():
    grads = jax.tree.map(lambda g: jnp.float32(g[0]), GRADS)
    params = jax.tree.map(jnp.float32, PARAMS)
    kwargs = {"decay_offset": 5, **FACTOR}
    ours = one_update(gradtx.adafactor(0.1, **kwargs), params, grads)
    theirs = one_update(optax.adafactor(0.1, **kwargs), params, grads)
    for key in params:
        assert np.isfinite(ours[key]).all() and np.isnan(theirs[key]).all()


def test_adafactor_keeps_its_means_of_half_precision_in_single():
    params = jnp.ones((4, 4), jnp.bfloat16)
    ours, theirs = (library.scale_by_factored_rms(**FACTOR) for library in (gradtx, optax))
    assert ours.init(params).v_row.dtype == jnp.float32
    assert theirs.init(params).v_row.dtype == jnp.bfloat16


def test_noise_has_optaxs_variance_and_other_values():
    x = {"w": jnp.zeros(20_000)}
    ours, theirs = (
        one_update(library.add_noise(4.0, 0.5, key=3), x, x)["w"] for library in (gradtx, optax)
    )
    assert not np.allclose(ours, theirs, atol=0.1)
    for noise in (ours, theirs):
        assert abs(np.var(noise) / 4.0 - 1) < 5 * (2 / 20_000) ** 0.5
    params, tx = {"w": jnp.zeros(3)}, gradtx.noisy_sgd(0.1)
    expected = optax.noisy_sgd(0.1, key=0).init(params)
    state = tx.init(params)
    assert [type(s).__name__ for s in state] == [type(s).__name__ for s in expected]
    assert state[0]._fields == expected[0]._fields


def test_novograd_with_half_precision_parameters():
    """Optax's raises where the gradients are wider than the parameters."""
    params, grads = jnp.ones(4, jnp.bfloat16), jnp.ones(4)
    update = one_update(gradtx.novograd(0.1), params, grads)
    assert_close(np.float32(update), np.full(4, -0.05), 1e-2)
    with pytest.raises(TypeError):
        one_update(optax.novograd(0.1), params, grads)


def test_novograd_scheduled_decay_and_sm3_scheduled_rate():
    """Optax's signature of the first promises a schedule; its update then fails."""
    params, grads = jnp.ones(4), jnp.ones(4)
    ours, theirs = (library.novograd(0.1, weight_decay=falling) for library in (gradtx, optax))
    assert_close(one_update(ours, params, grads), np.full(4, -0.1 * (0.5 + 0.1)), 1e-6)
    with pytest.raises(TypeError):
        one_update(theirs, params, grads)
    assert np.isfinite(one_update(gradtx.sm3(falling), params, grads)).all()
    with pytest.raises(TypeError):
        one_update(optax.sm3(falling), params, grads)


def test_sm3_of_a_scalar():
    assert_close(one_update(gradtx.scale_by_sm3(b1=0.0), *[jnp.float32(2.0)] * 2), 1.0, 1e-6)
    with pytest.raises(IndexError):
        one_update(optax.scale_by_sm3(), *[jnp.float32(2.0)] * 2)


TORCH = [
    ({"lr": 0.01}, 0.01, {}),
    ({"lr": 0.01, "beta2_decay": -0.5, "d": 2.0}, 0.01, {"decay_rate": 0.5, "clip": 2.0}),
    ({"lr": 0.01, "weight_decay": 0.1}, 0.01, {"decay": 1e-3}),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("key", ["w", "b", "k"])
@pytest.mark.parametrize("theirs, rate, ours", TORCH)
def test_torch_adafactor(theirs, rate, ours, key):
    """Where the last two axes are the largest and the rate is below 1 / sqrt(t)."""
    rng = np.random.default_rng(1)
    shape = {"w": (3, 4), "b": (4,), "k": (2, 3, 4)}[key]
    x0, grads = rng.normal(size=shape), rng.normal(size=(40, *shape))
    x = torch.tensor(x0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adafactor([x], eps=(1e-30, 1e-3), **theirs)
    expected = []
    for g in grads:
        x.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        expected.append(x.detach().numpy().copy())
    tx = gradtx.adafactor(
        rate,
        2,
        ours.get("decay_rate", 0.8),
        clipping_threshold=ours.get("clip", 1.0),
        weight_decay_rate=ours.get("decay"),
    )
    # The scale of the parameters is taken before their decay.
    tolerance = 40 * 0.01 * ours.get("decay", 0.0) or 1e-12
    assert_close(descend(tx, x0, grads), np.stack(expected), tolerance)
