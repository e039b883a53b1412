"""Adafactor as in Shazeer & Stern's Algorithms 4 and 5, with the largest two axes factored."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from gradtx.optimizers.adafactor import factored_axes, power_decay
from tests.oracles import STEPS, assert_close, constant, falling, few, never, rates
from tests.trees import TreeProblem, check_tree, check_tree_forms, loop

one = constant(1.0)
SHAPES = {"a": (), "b": (4,), "c": (4, 3), "d": (3, 4), "e": (3, 2, 5), "f": (3, 3), "g": (2, 5, 3)}


def rms(x):
    return np.sqrt(np.mean(abs(x) ** 2))


def second_moment(t, square, s, rate, least, offset):
    """V of the paper: row sums times column sums over the sum of all, for each matrix."""
    d = 1 - max(t - offset, 1) ** -rate
    s["v"] = d * s.get("v", 0.0) + (1 - d) * square  # sums of this are the paper's R and C
    order = sorted(range(square.ndim), key=lambda axis: square.shape[axis])
    if square.ndim < 2 or square.shape[order[-2]] < least:
        return s["v"]
    two = tuple(order[-2:])
    row, column = (s["v"].sum(axis, keepdims=True) for axis in two)
    return row * column / s["v"].sum(two, keepdims=True)


def adafactor(
    lr=one, *, least=2, rate=0.8, offset=0, scaled=True, clip=1.0, momentum=None,
    decay=never, eps=1e-30,
):  # fmt: skip
    def rule(t, g, x, s):
        u = g / np.sqrt(second_moment(t, abs(g) ** 2 + eps, s, rate, least, offset))
        if clip is not None:
            u = u / max(1.0, rms(u) / clip)
        u = lr(t - 1) * u * (max(rms(x), 1e-3) if scaled else 1.0)
        if momentum is not None:
            u = s["m"] = momentum * s.get("m", 0.0) + (1 - momentum) * u
        return x - u - decay(t - 1) * x

    return rule


few_trees = st.builds(TreeProblem, seed=st.integers(0, 10**6), shapes=st.just(SHAPES))


@few
@given(
    problem=few_trees,
    lr=rates,
    rate=st.floats(0.1, 1.0),
    clip=st.floats(0.1, 2.0),
    eps=st.sampled_from([1e-30, 1e-3]),
    offset=st.integers(0, 20),
    decay=st.floats(0.0, 0.1),
    momentum=st.floats(0.0, 0.99),
)
def test_adafactor(problem, lr, rate, clip, eps, offset, decay, momentum):
    expected = loop(
        problem,
        adafactor(
            constant(lr), rate=rate, clip=clip, eps=eps, offset=offset,
            decay=constant(decay), momentum=momentum,
        ),
    )  # fmt: skip
    tx = gradtx.adafactor(lr, 2, rate, offset, True, clip, momentum, "float64", decay, eps)
    check_tree(tx, problem, expected)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ({}, {"least": 128}),
        ({"learning_rate": 0.1}, {"lr": constant(0.1), "least": 128}),
        ({"min_dim_size_to_factor": 3}, {"least": 3}),
        ({"min_dim_size_to_factor": 3, "factored": False}, {"least": 128}),
        ({"min_dim_size_to_factor": 2, "multiply_by_parameter_scale": False}, {"scaled": False}),
        (
            {"learning_rate": 0.01, "min_dim_size_to_factor": 2, "clipping_threshold": None},
            {"lr": constant(0.01), "clip": None},
        ),
        ({"min_dim_size_to_factor": 2, "decay_offset": 5}, {"offset": 5}),
        (
            {"learning_rate": gradtx.linear_schedule(0.1, 0.0, STEPS)}
            | {"weight_decay_rate": gradtx.linear_schedule(0.1, 0.0, STEPS)},
            {"lr": falling(0.1), "decay": falling(0.1), "least": 128},
        ),
    ],
    ids=lambda options: "-".join(options),
)
def test_options(ours, theirs):
    problem = TreeProblem(shapes=SHAPES)
    check_tree(gradtx.adafactor(**ours), problem, loop(problem, adafactor(**theirs)))


def test_stage():
    for kwargs, rule in [
        ({}, adafactor(least=128, scaled=False, clip=None)),
        ({"min_dim_size_to_factor": 2}, adafactor(scaled=False, clip=None)),
        (
            {"decay_rate_fn": lambda step, rate: jnp.minimum(power_decay(step, rate), 0.0)},
            lambda t, g, x, s: x - g / np.sqrt(abs(g) ** 2 + 1e-30),
        ),
    ]:
        problem = TreeProblem(shapes=SHAPES)
        tx = gradtx.chain(gradtx.scale_by_factored_rms(**kwargs), gradtx.scale(-1.0))
        check_tree(tx, problem, loop(problem, rule))


def test_mask():
    problem = TreeProblem()
    decayed, plain = adafactor(decay=constant(0.1)), adafactor()
    expected = loop(
        problem, lambda t, g, x, s: decayed(t, g, x, s) if x.ndim > 1 else plain(t, g, x, s)
    )
    tx = gradtx.adafactor(1.0, 2, weight_decay_rate=0.1, weight_decay_mask={"w": True, "b": False})
    check_tree(tx, problem, expected)


@pytest.mark.parametrize(
    "shape, least, axes",
    [
        ((), 1, None),
        ((9,), 1, None),
        ((4, 3), 3, (1, 0)),
        ((4, 3), 4, None),
        ((3, 4), 3, (0, 1)),
        ((3, 3), 3, (0, 1)),
        ((5, 2, 7), 5, (0, 2)),
        ((7, 2, 5), 2, (2, 0)),
        ((0, 3), 1, None),
    ],
)
def test_the_largest_two_axes_are_factored(shape, least, axes):
    assert factored_axes(shape, least) == axes


def test_state():
    params = {
        "w": jnp.ones((7, 2, 5), jnp.bfloat16),
        "c": jnp.ones((2, 2), jnp.complex64),
        "b": jnp.ones(300),
        "none": None,
    }
    state = gradtx.scale_by_factored_rms(min_dim_size_to_factor=5).init(params)
    shapes = {k: [v[k].shape for v in state[1:]] for k in ("w", "c", "b")}
    assert shapes == {
        "w": [(2, 5), (7, 2), (1,)],
        "c": [(1,), (1,), (2, 2)],
        "b": [(1,), (1,), (300,)],
    }
    assert {v.dtype for v in jax.tree.leaves(state[1:])} == {np.dtype("float32")}
    assert [v["none"] for v in state[1:]] == [None] * 3
    tx = gradtx.adafactor(0.1, momentum=0.9)
    momenta = [s for s in tx.init(params) if hasattr(s, "ema")]
    assert momenta[0].ema["w"].dtype == jnp.float32
    tx = gradtx.adafactor(0.1, momentum=0.9, dtype_momentum="bfloat16")
    momenta = [s for s in tx.init(params) if hasattr(s, "ema")]
    assert momenta[0].ema["b"].dtype == jnp.bfloat16


def test_a_step_count_that_is_full_stays_finite():
    tx, g = gradtx.scale_by_factored_rms(), jnp.ones(2)
    state = tx.init(g)._replace(count=jnp.int32(2**31 - 1), v=jnp.ones(2))
    u, state = tx.update(g, state)
    assert_close(u, [1.0, 1.0], 1e-6)
    assert int(state.count) == 2**31 - 1


@pytest.mark.parametrize("least", [2, 128])
def test_no_gradient_no_step(least):
    tx, g = gradtx.scale_by_factored_rms(min_dim_size_to_factor=least), jnp.zeros((2, 2))
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_array_equal(u, 0.0)


def test_params_are_needed_for_their_scale():
    tx, g = gradtx.adafactor(0.1), jnp.ones(2)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(g, tx.init(g))


def test_single_precision_and_complex():
    check_tree_forms(
        gradtx.adafactor(0.1, 2, weight_decay_rate=0.01),
        lambda: adafactor(constant(0.1), decay=constant(0.01)),
    )
    problem = TreeProblem()
    expected = loop(problem, adafactor(constant(0.1), momentum=0.9))
    tx = gradtx.adafactor(0.1, 2, momentum=0.9)
    with pytest.raises(AssertionError):  # the momentum is kept in float32
        check_tree(tx, problem, expected)
    check_tree(tx.replace(dtype_momentum="float64"), problem, expected)
