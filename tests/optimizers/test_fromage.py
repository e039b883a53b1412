"""Fromage as in Bernstein et al.'s Algorithm 1."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, assert_close, constant, descend, falling, few, rates
from tests.trees import TreeProblem, check_tree, check_tree_forms, loop, trees


def fromage(lr, min_norm=0.0):
    def rule(t, g, x, s):
        eta = lr(t - 1)
        sizes = [max(np.linalg.norm(a), min_norm) for a in (x, g)]
        ratio = sizes[0] / sizes[1] if all(sizes) else 1.0
        return (x - eta * ratio * g) / np.sqrt(1 + eta**2)

    return rule


@few
@given(problem=trees, lr=rates)
def test_fromage(problem, lr):
    check_tree(gradtx.fromage(lr), problem, loop(problem, fromage(constant(lr))))


def test_scheduled():
    problem = TreeProblem()
    tx = gradtx.fromage(gradtx.linear_schedule(0.3, 0.0, STEPS))
    check_tree(tx, problem, loop(problem, fromage(falling(0.3))))
    problem = TreeProblem()
    tx = gradtx.fromage(lambda count: 0.3 * (1 - jnp.asarray(count, float) / STEPS))
    check_tree(tx, problem, loop(problem, fromage(falling(0.3))))


@pytest.mark.parametrize("min_norm", [0.0, 5.0])
def test_min_norm(min_norm):
    problem = TreeProblem()
    tx = gradtx.fromage(0.1, min_norm)
    check_tree(tx, problem, loop(problem, fromage(constant(0.1), min_norm)))


def test_default_min_norm_lets_a_leaf_of_zeros_grow_slowly():
    x = descend(gradtx.fromage(1.0), np.zeros(1, np.float32), np.ones((1, 1), np.float32))
    assert_close(x, [[-1e-6 / np.sqrt(2)]], 1e-6)


def test_a_small_rate_shrinks_in_single_precision_too():
    """1 / sqrt(1 + lr^2) - 1 on its own would lose its digits: -5e-9 is below float32's eps."""
    tx = gradtx.fromage(lambda count: jnp.float32(1e-4))
    for rate in (tx, gradtx.fromage(1e-4)):
        x = np.float32([1.0])
        update, _ = rate.update(np.float32([0.0]), rate.init(x), x)
        assert_close(update, [-1 + 1 / np.sqrt(1 + 1e-8)], 1e-5)


def test_single_precision_and_complex():
    check_tree_forms(gradtx.fromage(0.1), lambda: fromage(constant(0.1)))
