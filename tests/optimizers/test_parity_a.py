"""Parity with Optax 0.2.8 and PyTorch 2.13, as in test_parity: elementwise optimizers.

Where they differ on purpose, the difference is asserted, and so is the right value.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import gradtx
from tests.optimizers import test_parity as parity
from tests.optimizers.test_parity import (
    GRADS,
    MASK,
    PARAMS,
    build,
    description,
    falling,
    matrices,
    optax_trajectory,
    torch_double,  # noqa: F401
)
from tests.oracles import assert_close, descend

ADAM = {"b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-3}
SCHEDULED = {"learning_rate": falling}

CASES = [
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
]


def ids(cases):
    return [f"{name}-{'-'.join(kwargs)}" for name, kwargs in cases]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name, kwargs", CASES, ids=ids(CASES))
def test_trajectory(name, kwargs):
    actual = descend(build(gradtx, name, kwargs), PARAMS, GRADS)
    expected = optax_trajectory(build(optax, name, kwargs))
    for key in PARAMS:
        assert_close(actual[key], expected[key])


STATES = [
    *CASES,
    ("adan", {}),
    ("adan", {"weight_decay": falling, "mask": MASK, **SCHEDULED}),
    ("rprop", {}),
    ("scale_by_adan", {}),
    ("scale_by_rprop", {"learning_rate": 0.1}),
    ("lion", {"mu_dtype": "bfloat16"}),
    ("scale_by_lion", {"mu_dtype": "bfloat16"}),
    ("signum", {"accumulator_dtype": "bfloat16"}),
    ("optimistic_adam_v2", {"mu_dtype": "bfloat16"}),
]


@pytest.mark.parametrize("name, kwargs", STATES, ids=ids(STATES))
def test_state(name, kwargs):
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


@pytest.mark.parametrize("name", sorted({name for name, _ in STATES}))
def test_signature(name):
    parity.test_optax_signature(name)


TORCH = [
    (gradtx.adadelta(1.0), torch.optim.Adadelta, {}),
    (
        gradtx.adadelta(0.5, 0.8, 1e-3, weight_decay=0.3),
        torch.optim.Adadelta,
        {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.3},
    ),
    (gradtx.rprop(1e-2), torch.optim.Rprop, {}),
    (
        gradtx.rprop(0.1, 0.3, 2.0, 1e-2, 0.5),
        torch.optim.Rprop,
        {"lr": 0.1, "etas": (0.3, 2.0), "step_sizes": (1e-2, 0.5)},
    ),
    (gradtx.radam(1e-3, eps=0.0), torch.optim.RAdam, {"eps": 0.0}),
    (
        gradtx.radam(0.1, 0.8, 0.95, eps=0.0),
        torch.optim.RAdam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.0},
    ),
]


@pytest.mark.usefixtures("x64", "torch_double")
@pytest.mark.parametrize("tx, make, kwargs", TORCH, ids=[repr(case[0]) for case in TORCH])
def test_torch(tx, make, kwargs):
    parity.test_torch_trajectory(tx, make, kwargs)


def updates_of(tx, grads):
    with jax.numpy_dtype_promotion("standard"):
        state, updates = tx.init(jnp.zeros_like(grads[0])), []
        for g in grads:
            u, state = tx.update(jnp.asarray(g), state)
            updates.append(u)
        return np.stack(updates), state


@pytest.mark.usefixtures("x64")
def test_adan_weighs_the_difference_by_b2():
    """optax#1715: there it is 1 - b2, so the two agree at b2 = 1/2 and nowhere else."""
    ours, theirs = gradtx.adan(0.05), optax.adan(0.05)
    actual, other = descend(ours, PARAMS, GRADS)["w"], optax_trajectory(theirs)["w"]
    moved = np.abs(np.asarray(actual) - PARAMS["w"]).max()
    assert np.abs(np.asarray(actual) - np.asarray(other)).max() > 0.05 * moved
    for kwargs in ({"b2": 0.5}, {"b2": 0.5, "weight_decay": falling, "mask": MASK, **SCHEDULED}):
        expected = optax_trajectory(build(optax, "adan", kwargs))
        assert_close(descend(build(gradtx, "adan", kwargs), PARAMS, GRADS)["w"], expected["w"])

    # One step after a start at rest: g = 1, d = 1, so n_hat is what is left of (1 + w)^2.
    grads = jnp.asarray([0.0, 1.0])
    for library, weight in ((gradtx, 0.75), (optax, 0.25)):
        updates, _ = updates_of(library.scale_by_adan(0.0, 0.75, 0.0, 0.0), grads)
        v_hat = 0.25 / (1 - 0.75**2)
        np.testing.assert_allclose(updates[1], (1 + weight * v_hat) / (1 + weight), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_rprop_is_not_one_step_late():
    """optax#1725: its update at t is ours at t - 1, except where the sign then changes."""
    grads = jnp.asarray(GRADS["w"])
    kwargs = {"learning_rate": 0.01, "eta_minus": 0.4, "eta_plus": 1.3, "min_step_size": 1e-3}
    ours, mine = updates_of(gradtx.scale_by_rprop(**kwargs), grads)
    theirs, other = updates_of(optax.scale_by_rprop(**kwargs), grads)
    assert (ours[0] != 0).all()
    assert (theirs[0] == 0).all()
    changed = np.asarray(grads[1:]) * ours[:-1] < 0
    assert 0.1 < changed.mean() < 0.9
    np.testing.assert_allclose(theirs[1:], np.where(changed, 0, ours[:-1]), rtol=1e-12)
    assert_close(mine.step_sizes, other.step_sizes)
    assert_close(mine.prev_updates, other.prev_updates)
    assert_close(other.prev_updates, ours[-1])


@pytest.mark.usefixtures("x64", "torch_double")
def test_radam_adds_eps_after_the_correction():
    """As the paper and Optax; PyTorch adds it before, and rectifies from rho_t > 5 on."""
    grads = GRADS["w"]
    right, _ = updates_of(gradtx.radam(1.0, 0.9, 0.95, 0.1), grads)
    assert_close(right, updates_of(optax.radam(1.0, 0.9, 0.95, 0.1), grads)[0])
    betas = {"lr": 1.0, "betas": (0.9, 0.95)}
    for eps, differ in ((0.0, False), (0.1, True)):
        ours, _ = updates_of(gradtx.radam(1.0, 0.9, 0.95, eps), grads)
        x = torch.zeros(grads.shape[1:], requires_grad=True)
        optimizer, xs = torch.optim.RAdam([x], eps=eps, **betas), [np.zeros(grads.shape[1:])]
        for g in grads:
            x.grad = torch.tensor(g)
            optimizer.step()
            xs.append(x.detach().numpy().copy())
        distance = np.abs(np.diff(np.stack(xs), axis=0) - ours).max()
        assert (distance > 1e-3 * np.abs(ours).max()) == differ


@pytest.mark.usefixtures("x64")
def test_radam_rectifies_at_the_threshold_as_optax():
    """At last rho_t is rho_inf, the threshold here; PyTorch's inequality is strict."""
    grads, threshold = np.full((200, 1), 2.0), 2 / (1 - 0.8) - 1
    for library in gradtx, optax:
        tx = library.scale_by_radam(0.9, 0.8, 0.0, threshold=threshold)
        updates, _ = updates_of(tx, grads)
        np.testing.assert_allclose(updates[[0, -1], 0], [2.0, 1.0])


@pytest.mark.usefixtures("x64")
def test_smooth_lion_of_complex_gradients_keeps_the_phase():
    """Optax takes the complex tanh, which has poles on the imaginary axis."""
    c = np.asarray([1.57j, 0.5 + 0.0j, -3.0 + 4.0j])
    ours, theirs = (
        updates_of(library.scale_by_lion(0.0, mode="smooth"), jnp.asarray(c[None]))[0][0]
        for library in (gradtx, optax)
    )
    np.testing.assert_allclose(ours, np.tanh(abs(c)) * c / abs(c), rtol=1e-12)
    assert abs(theirs[0]) > 1000
