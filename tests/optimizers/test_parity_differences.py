"""Where gradtx differs from Optax 0.2.8 or PyTorch 2.13 on purpose: that it does, and is right."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import gradtx
from tests.optimizers.test_parity import (
    FACTOR,
    GRADS,
    MASK,
    PARAMS,
    SCHEDULED,
    build,
    description,
    falling,
    optax_trajectory,
)
from tests.optimizers.test_parity_torch import torch_double  # noqa: F401
from tests.oracles import assert_close, descend


@pytest.mark.usefixtures("x64")
def test_nadam_and_amsgrad_of_optax_and_torch_are_different_algorithms():
    for ours, other in (
        (gradtx.nadam(1e-2), gradtx.nadam(1e-2, momentum_decay=4e-3)),
        (gradtx.amsgrad(1e-2), gradtx.amsgrad(1e-2, max_before_correction=True)),
    ):
        one, two = (np.asarray(descend(tx, PARAMS["w"], GRADS["w"])) for tx in (ours, other))
        assert np.abs(one - two).max() > 0.1 * np.abs(one - PARAMS["w"]).max()


def updates_of(tx, grads):
    update = jax.jit(tx.update)
    with jax.numpy_dtype_promotion("standard"):
        state, updates = tx.init(jnp.zeros_like(grads[0])), []
        for g in grads:
            u, state = update(jnp.asarray(g), state)
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
        assert description(ours.init(PARAMS)) == description(theirs.init(PARAMS))


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
