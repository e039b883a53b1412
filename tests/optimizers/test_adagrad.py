"""AdaGrad: the lecture's form, PyTorch's, and Optax's."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, Problem, check_double, check_forms, few, problems, rates


def adagrad(problem, lr, initial, eps, inside):
    x, s, xs = problem.x0, initial, []
    for _ in range(STEPS):
        g = problem.grad(x)
        s = s + abs(g) ** 2
        x = x - lr * g / (np.sqrt(s + eps) if inside else np.sqrt(s) + eps)
        xs.append(x)
    return xs


@few
@given(problem=problems, lr=rates)
def test_lecture(problem, lr):
    xs = adagrad(problem, lr, 0.0, 1e-7, inside=False)
    tx = gradtx.adagrad(lr, initial_accumulator_value=0.0, eps_in_sqrt=False)
    check_double(tx, problem, xs)


def test_defaults_are_optax():
    problem = Problem()
    check_double(gradtx.adagrad(0.1), problem, adagrad(problem, 0.1, 0.1, 1e-7, inside=True))


@pytest.mark.parametrize("inside", [True, False])
def test_forms(inside):
    @few
    @given(
        problem=problems,
        lr=rates,
        initial=st.sampled_from([0.0, 0.1, 1.0]),
        eps=st.sampled_from([1e-10, 1e-7, 0.1]),
    )
    def check(problem, lr, initial, eps):
        tx = gradtx.adagrad(lr, initial, eps, eps_in_sqrt=inside)
        check_double(tx, problem, adagrad(problem, lr, initial, eps, inside))

    check()


@pytest.mark.parametrize("inside", [True, False])
def test_single_precision_and_complex(inside):
    tx = gradtx.adagrad(0.1, eps=0.01, eps_in_sqrt=inside)
    check_forms(tx, lambda p: adagrad(p, 0.1, 0.1, 0.01, inside))


@pytest.mark.parametrize("inside", [True, False])
def test_zero_gradient_on_a_zero_accumulator(inside):
    tx = gradtx.scale_by_rss(0.0, eps_in_sqrt=inside)
    u, _ = tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))
    np.testing.assert_array_equal(u, 0.0)


def test_stage_keeps_the_sum():
    tx = gradtx.scale_by_rss(initial_accumulator_value=1.0, eps=0.0)
    u, state = tx.update(jnp.asarray([0.0, 3.0]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(state.sum_of_squares, [1.0, 10.0])
    np.testing.assert_allclose(u, [0.0, 3 / 10**0.5], rtol=1e-6)
