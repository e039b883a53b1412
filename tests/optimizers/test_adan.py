"""Adan as in Xie et al.'s Algorithm 1, with the bias corrections of the authors' code."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
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


def adan(problem, lr, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=1e-8, decay=never):
    """The paper's betas are 1 - b. Formed, and taken from 1 again, they would lose a small b."""
    x, m, v, n, old, xs = problem.x0, 0.0, 0.0, 0.0, None, []
    for k in range(1, STEPS + 1):
        g = problem.grad(x)
        difference = 0.0 if old is None else g - old
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * difference
        n = b3 * n + (1 - b3) * abs(g + b2 * difference) ** 2
        m_hat, v_hat, n_hat = m / (1 - b1**k), v / (1 - b2**k), n / (1 - b3**k)
        step = lr(k - 1) / (np.sqrt(n_hat + eps_root) + eps)
        x = x - step * (m_hat + b2 * v_hat) - lr(k - 1) * decay(k - 1) * x
        old = g
        xs.append(x)
    return xs


# b3 may be 0. Then the denominator is |g + b2 d| alone, which cancels, by factors of thousands,
# but the rounding that this amplifies is small: against this loop in np.longdouble, gradtx and
# the loop in float64 were within 1e-13 on 750 random problems with b3 below 1e-6.
@few
@given(
    problem=problems, lr=rates, b1=decays, b2=decays, b3=decays, eps=epsilons,
    eps_root=st.sampled_from([0.0, 1e-8, 1e-2]), decay=st.floats(0.0, 0.5),
)  # fmt: skip
def test_adan(problem, lr, b1, b2, b3, eps, eps_root, decay):
    xs = adan(problem, constant(lr), b1, b2, b3, eps, eps_root, constant(decay))
    check_double(gradtx.adan(lr, b1, b2, b3, eps, eps_root, decay), problem, xs)


def test_defaults():
    problem = Problem()
    check_double(gradtx.adan(1e-2), problem, adan(problem, constant(1e-2)))
    problem = Problem()
    tx = gradtx.chain(gradtx.scale_by_adan(), gradtx.scale_by_learning_rate(1e-2))
    check_double(tx, problem, adan(problem, constant(1e-2), eps_root=0.0))


def test_the_default_epsilons():
    stage = gradtx.scale_by_adan()
    assert (stage.eps, stage.eps_root) == (1e-8, 0.0)
    whole = gradtx.adan(1.0)
    assert (whole.eps, whole.eps_root) == (1e-8, 1e-8)


def test_scheduled_and_masked():
    problem = Problem()
    schedule = gradtx.linear_schedule
    tx = gradtx.adan(schedule(0.05, 0.0, STEPS), weight_decay=schedule(0.3, 0.0, STEPS))
    check_double(tx, problem, adan(problem, falling(0.05), decay=falling(0.3)))
    problem = Problem()
    tx = gradtx.adan(0.05, weight_decay=0.3, mask=False)
    check_double(tx, problem, adan(problem, constant(0.05)))


def test_single_precision_and_complex():
    check_forms(gradtx.adan(0.01), lambda p: adan(p, constant(0.01)))


def test_the_second_step_by_hand():
    tx = gradtx.scale_by_adan(0.0, 0.5, 0.0, 0.0, 0.0)
    state = tx.init(jnp.zeros(1))
    _, state = tx.update(jnp.asarray([1.0]), state)
    updates, _ = tx.update(jnp.asarray([3.0]), state)
    # d = 2, m = 3, v_hat = (0.5 * 2) / (1 - 0.25), n = (3 + 0.5 * 2)^2
    np.testing.assert_allclose(updates, [(3 + 0.5 * (1 / 0.75)) / 4], rtol=1e-6)
