"""Adam as in Kingma & Ba's Algorithm 1, the lecture's almost Adam, and AdamW."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import (
    STEPS,
    Problem,
    check_double,
    check_forms,
    constant,
    decays,
    epsilons,
    falling,
    few,
    never,
    problems,
    rates,
)


def adam(
    problem, lr, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, corrected=True, nesterov=False,
    decay=never, decays_at=1.0,
):  # fmt: skip
    x, mu, nu, xs = problem.x0, 0.0, 0.0, []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs(g) ** 2
        mu_hat, nu_hat = mu, nu
        if corrected:
            mu_hat, nu_hat = mu / (1 - b1**t), nu / (1 - b2**t)
        if nesterov:
            mu_hat = b1 * mu / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        u = mu_hat / (np.sqrt(nu_hat + eps_root) + eps)
        x = x - lr(t - 1) * (u + decay(t - 1) * decays_at * x)
        xs.append(x)
    return xs


@pytest.mark.parametrize("corrected", [True, False])
def test_adam_and_almost_adam(corrected):
    @few
    @given(
        problem=problems, lr=rates, b1=decays, b2=decays, eps=epsilons,
        eps_root=st.sampled_from([0.0, 1e-2]),
    )  # fmt: skip
    def check(problem, lr, b1, b2, eps, eps_root):
        xs = adam(problem, constant(lr), b1, b2, eps, eps_root, corrected)
        tx = gradtx.adam(lr, b1, b2, eps, eps_root, bias_correction=corrected)
        check_double(tx, problem, xs)

    check()


def test_defaults():
    problem = Problem()
    check_double(gradtx.adam(), problem, adam(problem, constant(1e-3)))
    problem = Problem()
    xs = adam(problem, constant(5e-4), corrected=False)
    check_double(gradtx.adam(5e-4, bias_correction=False), problem, xs)


@few
@given(problem=problems, lr=rates, b1=decays, b2=decays)
def test_nesterov(problem, lr, b1, b2):
    xs = adam(problem, constant(lr), b1, b2, 1e-3, 1e-3, nesterov=True)
    check_double(gradtx.adam(lr, b1, b2, 1e-3, 1e-3, nesterov=True), problem, xs)


@few
@given(problem=problems, lr=rates, decay=st.floats(0.0, 0.5))
def test_adamw(problem, lr, decay):
    xs = adam(problem, constant(lr), decay=constant(decay))
    check_double(gradtx.adamw(lr, weight_decay=decay), problem, xs)


def test_adamw_defaults():
    problem = Problem()
    xs = adam(problem, constant(1e-2), decay=constant(1e-4))
    check_double(gradtx.adamw(1e-2), problem, xs)


def test_adamw_nesterov_and_epsilons():
    problem = Problem()
    xs = adam(problem, constant(1e-2), 0.8, 0.95, 1e-3, 1e-2, nesterov=True, decay=constant(0.1))
    tx = gradtx.adamw(1e-2, 0.8, 0.95, 1e-3, 1e-2, weight_decay=0.1, nesterov=True)
    check_double(tx, problem, xs)


def test_adamw_scheduled_rate_and_decay():
    problem = Problem()
    xs = adam(problem, falling(0.05), decay=lambda t: 0.2 * t / STEPS)
    tx = gradtx.adamw(
        gradtx.linear_schedule(0.05, 0.0, STEPS),
        weight_decay=gradtx.linear_schedule(0.0, 0.2, STEPS),
    )
    check_double(tx, problem, xs)


def half_of(tree):
    return {"w": True, "b": False}


@pytest.mark.parametrize("mask", [{"w": True, "b": False}, half_of])
@pytest.mark.parametrize("scheduled", [False, True])
def test_adamw_mask(mask, scheduled):
    problem = Problem()
    on = np.array([1.0, 1.0, 0.0, 0.0])
    decay = falling(0.3) if scheduled else constant(0.3)
    xs = adam(problem, constant(0.05), decay=decay, decays_at=on)
    rate = gradtx.linear_schedule(0.3, 0.0, STEPS) if scheduled else 0.3
    tx = gradtx.adamw(0.05, weight_decay=rate, mask=mask)

    def split(x):
        return {"w": x[:2], "b": x[2:]}

    def one(carry, g):
        x, state = tx.step(split(g), carry[1], carry[0])
        return (x, state), jnp.concatenate([x["w"], x["b"]])

    with jax.enable_x64(True):
        x0 = split(jnp.asarray(problem.x0))
        actual = jax.lax.scan(one, (x0, tx.init(x0)), np.stack(problem.grads))[1]
    np.testing.assert_allclose(actual, xs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["adam", "almost", "nesterov"])
def test_single_precision_and_complex(form):
    corrected, nesterov = form != "almost", form == "nesterov"
    tx = gradtx.adam(0.01, eps=1e-2, bias_correction=corrected, nesterov=nesterov)
    check_forms(
        tx,
        lambda p: adam(p, constant(0.01), eps=1e-2, corrected=corrected, nesterov=nesterov),
    )


def test_first_step_is_the_sign_of_the_gradient():
    """The lecture's picture: corrected, the first step is lr; almost Adam's is 3.2 times that."""
    g = jnp.asarray([1e-3, -2.0, 50.0])
    for corrected, size in ((True, 1.0), (False, 0.1 / 0.001**0.5)):
        tx = gradtx.scale_by_adam(eps=0.0, bias_correction=corrected)
        u, _ = tx.update(g, tx.init(g))
        np.testing.assert_allclose(u, size * np.sign(g), rtol=1e-5)


def test_mu_dtype_is_mu_alone():
    for make in (gradtx.adam, gradtx.adamw):
        state = make(0.1, mu_dtype="bfloat16").init(jnp.zeros(2))[0]
        assert (state.mu.dtype, state.nu.dtype) == (jnp.bfloat16, jnp.float32)


def test_nesterov_needs_bias_correction():
    with pytest.raises(ValueError, match="nesterov"):
        gradtx.scale_by_adam(nesterov=True, bias_correction=False)
