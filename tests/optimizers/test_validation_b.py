"""The table of refused hyperparameters, for the layer-wise and factored algorithms."""

import jax.numpy as jnp
import pytest

import gradtx
from tests.optimizers.test_validation import (
    ADAM,
    DECAY,
    FINITE,
    FRACTION,
    FROM_0_TO_1,
    NAN,
    NONNEGATIVE,
    NOT_A_NUMBER,
    POSITIVE,
    RATE,
    STEPS,
)

NOVOGRAD = ADAM | DECAY
POLYAK = {"f_min": FINITE, "max_learning_rate": POSITIVE, "eps": NONNEGATIVE}
TRUST = {"trust_coefficient": NONNEGATIVE, "eps": NONNEGATIVE}
NOISE = {"eta": NONNEGATIVE, "gamma": NONNEGATIVE}
FACTORED = {"decay_rate": NONNEGATIVE, "min_dim_size_to_factor": (0, *STEPS)}

# Constructor: arguments that it needs, and the values that each of the checked ones refuses.
TABLE = {
    "lamb": ({}, RATE | ADAM | DECAY),
    "lars": ({}, RATE | DECAY | TRUST | {"momentum": FROM_0_TO_1}),
    "fromage": ({}, RATE | {"min_norm": NONNEGATIVE}),
    "novograd": ({}, RATE | NOVOGRAD),
    "scale_by_novograd": ({}, NOVOGRAD),
    "sm3": ({}, RATE | {"momentum": FRACTION}),
    "scale_by_sm3": ({}, {"b1": FRACTION, "b2": FROM_0_TO_1, "eps": NONNEGATIVE}),
    "polyak_sgd": ({}, POLYAK | {"scaling": NONNEGATIVE}),
    "scale_by_polyak": ({}, POLYAK),
    "adafactor": (
        {"momentum": 0.9, "weight_decay_rate": 0.1},
        RATE
        | FACTORED
        | {"decay_offset": STEPS, "clipping_threshold": POSITIVE, "momentum": FRACTION}
        | {"weight_decay_rate": NONNEGATIVE, "eps": POSITIVE},
    ),
    "scale_by_factored_rms": ({}, FACTORED | {"step_offset": STEPS, "epsilon": POSITIVE}),
    "noisy_sgd": ({}, RATE | NOISE),
    "add_noise": ({"eta": 0.1, "gamma": 0.5, "key": 0}, NOISE),
    "scale_by_trust_ratio": ({}, TRUST | {"min_norm": NONNEGATIVE}),
    "scale_by_param_block_norm": ({}, {"min_scale": NONNEGATIVE}),
    "scale_by_param_block_rms": ({}, {"min_scale": NONNEGATIVE}),
    "normalize_by_update_norm": ({}, {"scale_factor": FINITE, "eps": POSITIVE}),
    "clip_by_block_rms": ({}, {"threshold": POSITIVE}),
    "adaptive_grad_clip": ({"clipping": 0.1}, {"clipping": NONNEGATIVE, "eps": NONNEGATIVE}),
    "scale_by_distance_over_gradients": (
        {},
        {"reps_rel": POSITIVE, "eps": POSITIVE, "global_scale": FINITE},
    ),
}
CASES = [(name, argument) for name, (_, bad) in TABLE.items() for argument in bad]
OPTIONAL = {"learning_rate", "clipping_threshold", "momentum", "weight_decay_rate"}


def build(name, argument, value):
    needed, bad = TABLE[name]
    rate = {"learning_rate": 0.1} if "learning_rate" in bad else {}
    return getattr(gradtx, name)(**(rate | needed | {argument: value}))


@pytest.mark.parametrize("name, argument", CASES)
def test_values_out_of_range(name, argument):
    for value in TABLE[name][1][argument]:
        with pytest.raises(ValueError, match=rf"^{argument} must be"):
            build(name, argument, value)


@pytest.mark.parametrize("name, argument", CASES)
def test_values_that_are_not_numbers(name, argument):
    for value in NOT_A_NUMBER:
        if value is None and name == "adafactor" and argument in OPTIONAL:
            build(name, argument, value)
            continue
        with pytest.raises(TypeError, match=rf"^{argument} must be"):
            build(name, argument, value)


@pytest.mark.parametrize(
    "name, argument, value",
    [
        ("lamb", "weight_decay", 0),
        ("lars", "momentum", 1.0),
        ("lars", "weight_decay_mask", {"w": True}),
        ("lars", "trust_ratio_mask", {"w": False}),
        ("fromage", "min_norm", 0),
        ("novograd", "eps", 0.0),
        ("scale_by_sm3", "b2", 1),
        ("polyak_sgd", "scaling", 0.0),
        ("scale_by_polyak", "f_min", -3.0),
        ("adafactor", "decay_rate", 0.0),
        ("adafactor", "decay_offset", 3),
        ("scale_by_factored_rms", "min_dim_size_to_factor", 1),
        ("normalize_by_update_norm", "scale_factor", -1.0),
        ("add_noise", "eta", 0.0),
    ],
)
def test_the_ends_of_ranges_are_allowed(name, argument, value):
    assert getattr(build(name, argument, value), argument) == value


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: gradtx.lars(0.1, weight_decay_mask={"w": 1}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.lars(0.1, trust_ratio_mask={"w": "no"}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.lars(0.1, nesterov=1), TypeError, "nesterov must be True or False"),
        (lambda: gradtx.lamb(0.1, mask={"w": 1}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.adafactor(factored=1), TypeError, "factored must be True or False"),
        (lambda: gradtx.adafactor(dtype_momentum="int8"), TypeError, "dtype_momentum"),
        (lambda: gradtx.scale_by_novograd(mu_dtype="int8"), TypeError, "mu_dtype"),
        (lambda: gradtx.fromage(0.1).replace(learning_rate=NAN), ValueError, "learning_rate"),
        (lambda: gradtx.fromage(jnp.float32(-1.0)), ValueError, "learning_rate"),
    ],
)
def test_other_errors(make, error, words):
    with pytest.raises(error, match=words):
        make()
