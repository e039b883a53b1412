"""Bad arguments of the searches and of L-BFGS are refused at construction."""

import math

import jax
import jax.numpy as jnp
import pytest

import gradtx
from tests.optimizers.test_validation import FINITE, NAN, NONNEGATIVE, NOT_A_NUMBER, POSITIVE, STEPS

OPEN_UNIT = (0.0, 1.0, -0.1, 1.5, NAN)
COUNT = (0, *STEPS)

# Constructor: arguments that it needs, and the values that each of the checked ones refuses.
TABLE = {
    "scale_by_backtracking_linesearch": (
        {"max_backtracking_steps": 5},
        {
            "max_backtracking_steps": COUNT,
            "slope_rtol": OPEN_UNIT,
            "decrease_factor": OPEN_UNIT,
            "increase_factor": (0.9, -math.inf, NAN),
            "max_learning_rate": POSITIVE,
            "atol": NONNEGATIVE,
            "rtol": NONNEGATIVE,
        },
    ),
    "scale_by_zoom_linesearch": (
        {"max_linesearch_steps": 5},
        {
            "max_linesearch_steps": COUNT,
            "max_learning_rate": POSITIVE,
            "tol": NONNEGATIVE,
            "increase_factor": (1.0, 0.5, *FINITE),
            "slope_rtol": OPEN_UNIT,
            "curv_rtol": (0.0, -0.1, NAN),
            "approx_dec_rtol": NONNEGATIVE,
            "stepsize_precision": NONNEGATIVE,
        },
    ),
    "scale_by_lbfgs": ({}, {"memory_size": COUNT}),
    "lbfgs": ({}, {"learning_rate": NONNEGATIVE, "memory_size": COUNT}),
}
CASES = [(name, argument) for name, (_, bad) in TABLE.items() for argument in bad]
OPTIONAL = {"max_learning_rate", "approx_dec_rtol", "learning_rate"}


def build(name, argument, value):
    return getattr(gradtx, name)(**(TABLE[name][0] | {argument: value}))


@pytest.mark.parametrize("name, argument", CASES)
def test_values_out_of_range(name, argument):
    for value in TABLE[name][1][argument]:
        with pytest.raises(ValueError, match=rf"^{argument} must be"):
            build(name, argument, value)


@pytest.mark.parametrize("name, argument", CASES)
def test_values_that_are_not_numbers(name, argument):
    for value in NOT_A_NUMBER:
        if value is None and argument in OPTIONAL and "backtracking" not in name:
            build(name, argument, value)
            continue
        with pytest.raises(TypeError, match=rf"^{argument} must be"):
            build(name, argument, value)


@pytest.mark.parametrize("name, argument", [c for c in CASES if c[1] != "memory_size"])
def test_tracers_are_let_pass(name, argument):
    jax.eval_shape(lambda value: build(name, argument, value) and value, 0.5)


def test_the_ends_of_ranges_are_allowed():
    tx = gradtx.scale_by_backtracking_linesearch(1, increase_factor=math.inf, atol=0)
    assert tx.increase_factor == math.inf
    assert gradtx.scale_by_backtracking_linesearch(1, increase_factor=1).increase_factor == 1
    tx = gradtx.scale_by_zoom_linesearch(1, curv_rtol=math.inf, approx_dec_rtol=0, tol=0)
    assert tx.curv_rtol == math.inf
    assert gradtx.lbfgs(0.0, memory_size=1.0).memory_size == 1.0


def test_other_errors():
    with pytest.raises(ValueError, match="initial_guess_strategy must be 'one' or 'keep'"):
        gradtx.scale_by_zoom_linesearch(5, initial_guess_strategy="two")
    with pytest.raises(TypeError, match="store_grad must be True or False"):
        gradtx.scale_by_backtracking_linesearch(5, store_grad=1)
    with pytest.raises(TypeError, match="verbose must be True or False"):
        gradtx.scale_by_zoom_linesearch(5, verbose=1)
    with pytest.raises(TypeError, match="scale_init_precond must be True or False"):
        gradtx.scale_by_lbfgs(scale_init_precond=1)
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.lbfgs(linesearch=3)
    with pytest.raises(TypeError, match="value_fn must be a function"):
        gradtx.value_and_grad_from_state(3)


@pytest.mark.parametrize(
    "tx, name",
    [
        (gradtx.scale_by_backtracking_linesearch(5), "scale_by_backtracking_linesearch"),
        (gradtx.lbfgs(), "scale_by_zoom_linesearch"),
    ],
)
def test_what_update_needs(tx, name):
    x = jnp.ones(2)
    extra = {"value": 1.0, "grad": x, "value_fn": jnp.sum}
    for missing in extra:
        given = {k: v for k, v in extra.items() if k != missing}
        with pytest.raises(TypeError, match=f"{name} needs the extra argument '{missing}'"):
            tx.update(x, tx.init(x), x, **given)
    with pytest.raises(ValueError, match="needs params"):
        tx.update(x, tx.init(x), **extra)
    for value_fn in (lambda x: x, lambda x: jnp.sum(x).astype(complex)):
        with pytest.raises(ValueError, match="value_fn must return a single real number"):
            tx.update(x, tx.init(x), x, **(extra | {"value_fn": value_fn}))
    with pytest.raises(ValueError, match="differ in structure"):
        tx.update(x, tx.init(x), x, **(extra | {"grad": {"w": x}}))
