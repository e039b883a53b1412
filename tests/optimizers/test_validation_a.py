"""Bad hyperparameters of the elementwise optimizers, as in test_validation."""

import jax
import pytest

import gradtx
from tests.optimizers.test_validation import (
    DECAY,
    FINITE,
    FRACTION,
    INF,
    NAN,
    NONNEGATIVE,
    NOT_A_NUMBER,
    POSITIVE,
    RATE,
)

ABOVE_60_PERCENT = (0.6, 0.1, *FRACTION)
ABOVE_4 = (4.0, 3.9, -5.0, INF, NAN)
ABOVE_1 = (1.0, 0.5, -1.2, INF, NAN)
OPEN_FRACTION = (0.0, *FRACTION)

LION = {"b1": FRACTION, "b2": FRACTION}
BELIEF = {"b1": FRACTION, "b2": FRACTION, "eps": NONNEGATIVE, "eps_root": NONNEGATIVE}
ADADELTA = {"rho": FRACTION, "eps": POSITIVE}
ADAN = BELIEF | {"b3": FRACTION}
YOGI = {"b1": FRACTION, "b2": FRACTION, "eps": NONNEGATIVE}
RADAM = BELIEF | {"b2": ABOVE_60_PERCENT, "threshold": ABOVE_4}
RPROP = {
    "learning_rate": NONNEGATIVE,
    "eta_minus": OPEN_FRACTION,
    "eta_plus": ABOVE_1,
    "min_step_size": NONNEGATIVE,
    "max_step_size": POSITIVE,
}
OPTIMISTIC = {"alpha": FINITE, "beta": FINITE}

# Constructor: the values that each of the checked arguments refuses.
TABLE = {
    "lion": RATE | LION | DECAY,
    "adabelief": RATE | BELIEF,
    "adadelta": RATE | ADADELTA | DECAY,
    "adan": RATE | ADAN | DECAY,
    "yogi": RATE | YOGI,
    "radam": RATE | RADAM,
    "rprop": RPROP,
    "sign_sgd": RATE,
    "signum": RATE | {"beta": FRACTION},
    "optimistic_gradient_descent": RATE | OPTIMISTIC,
    "optimistic_adam_v2": RATE | OPTIMISTIC | BELIEF,
    "scale_by_lion": LION | {"smooth_beta": POSITIVE},
    "scale_by_belief": BELIEF,
    "scale_by_adadelta": ADADELTA,
    "scale_by_adan": ADAN,
    "scale_by_yogi": YOGI | {"eps_root": NONNEGATIVE, "initial_accumulator_value": NONNEGATIVE},
    "scale_by_radam": RADAM,
    "scale_by_rprop": RPROP,
    "scale_by_optimistic_gradient": OPTIMISTIC,
}
CASES = [(name, argument) for name, bad in TABLE.items() for argument in bad]


def build(name, argument, value):
    rate = {"learning_rate": 0.1} if "learning_rate" in TABLE[name] else {}
    return getattr(gradtx, name)(**(rate | {argument: value}))


@pytest.mark.parametrize("name, argument", CASES)
def test_values_out_of_range(name, argument):
    for value in TABLE[name][argument]:
        with pytest.raises(ValueError, match=rf"\b{argument}\b"):
            build(name, argument, value)


@pytest.mark.parametrize("name, argument", CASES)
def test_values_that_are_not_numbers(name, argument):
    for value in NOT_A_NUMBER:
        if value is None and (name, argument) == ("adadelta", "learning_rate"):
            continue
        with pytest.raises(TypeError, match=rf"\b{argument}\b"):
            build(name, argument, value)


@pytest.mark.parametrize("name, argument", CASES)
def test_tracers_are_let_pass(name, argument):
    def traced(value):
        build(name, argument, value)
        return value

    jax.eval_shape(traced, 0.5)


# The ends that are allowed.
EDGES = {
    **{(name, b): 0.0 for name in ("lion", "adan", "adabelief", "yogi") for b in ("b1", "b2")},
    **{(name, "eps"): 0.0 for name in ("adan", "adabelief", "yogi", "radam")},
    ("adan", "b3"): 0.0,
    ("adadelta", "rho"): 0.0,
    ("radam", "b2"): 0.61,
    ("radam", "threshold"): 4.01,
    ("rprop", "learning_rate"): 0.0,
    ("rprop", "eta_minus"): 0.01,
    ("rprop", "eta_plus"): 1.01,
    ("rprop", "min_step_size"): 0.0,
    ("scale_by_yogi", "initial_accumulator_value"): 0.0,
    ("scale_by_optimistic_gradient", "alpha"): -1.0,
    ("scale_by_optimistic_gradient", "beta"): -1.0,
    ("signum", "beta"): 0.0,
}


@pytest.mark.parametrize("name, argument", EDGES)
def test_ends_that_are_allowed(name, argument):
    value = EDGES[name, argument]
    assert getattr(build(name, argument, value), argument) == value


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda d: gradtx.lion(0.1, mu_dtype=d), "mu_dtype"),
        (lambda d: gradtx.scale_by_lion(mu_dtype=d), "mu_dtype"),
        (lambda d: gradtx.signum(0.1, accumulator_dtype=d), "accumulator_dtype"),
        (lambda d: gradtx.optimistic_adam_v2(0.1, mu_dtype=d), "mu_dtype"),
    ],
)
def test_dtypes(make, argument):
    for dtype in ("int32", "float17", "complex64", bool, 3.5):
        with pytest.raises(TypeError, match=argument):
            make(dtype)


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda: gradtx.scale_by_lion(mode="soft"), ValueError, "mode must be one of"),
        (lambda: gradtx.lion(0.1, mask={"w": "yes"}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.adan(0.1, mask={"w": 1.0}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.adadelta(0.1, weight_decay_mask={"w": 1}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.radam(0.1).replace(b2=0.5), ValueError, "b2"),
    ],
)
def test_other_errors(make, error, said):
    with pytest.raises(error, match=said):
        make()


@pytest.mark.parametrize("name", ["lion", "adan", "adadelta"])
def test_decay_needs_params(name):
    tx = getattr(gradtx, name)(0.1, weight_decay=0.1)
    g = jax.numpy.ones(2)
    with pytest.raises(ValueError, match="params"):
        tx.update(g, tx.init(g))
