"""Bad hyperparameters are refused at construction, and the message names the argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

INF, NAN = float("inf"), float("nan")
NOT_A_NUMBER = ("0.1", None, True, [0.1], {})

NONNEGATIVE = (-0.1, INF, NAN, np.float32(-1.0), jnp.asarray(-1.0), -1)
FRACTION = (-0.1, 1.0, 2, NAN, np.float64(1.5))
FROM_0_TO_1 = (-0.1, 1.1, NAN)
POSITIVE = (0.0, *NONNEGATIVE)
FINITE = (INF, -INF, NAN)
STEPS = (-1, 2.5, NAN, INF)

ADAM = {"b1": FRACTION, "b2": FRACTION, "eps": NONNEGATIVE, "eps_root": NONNEGATIVE}
RMS = {"decay": FRACTION, "eps": NONNEGATIVE, "initial_scale": NONNEGATIVE}
RSS = {"initial_accumulator_value": NONNEGATIVE, "eps": NONNEGATIVE}
ADAMAX = {"b1": FRACTION, "b2": FRACTION, "eps": POSITIVE}
DECAY = {"weight_decay": NONNEGATIVE}
RATE = {"learning_rate": NONNEGATIVE}

# Constructor: arguments that it needs, and the values that each of the checked ones refuses.
TABLE = {
    "sgd": ({"momentum": 0.9}, RATE | {"momentum": FROM_0_TO_1}),
    "classical_momentum": ({}, RATE | {"momentum": FROM_0_TO_1}),
    "nesterov_momentum": ({}, RATE | {"momentum": FROM_0_TO_1}),
    "adagrad": ({}, RATE | RSS),
    "rmsprop": ({"momentum": 0.9}, RATE | RMS | {"momentum": FROM_0_TO_1}),
    "adam": ({}, RATE | ADAM),
    "adamw": ({}, RATE | ADAM | DECAY),
    "nadam": ({}, RATE | ADAM),
    "nadamw": ({"momentum_decay": 4e-3}, RATE | ADAM | DECAY | {"momentum_decay": NONNEGATIVE}),
    "adamax": ({}, RATE | ADAMAX),
    "adamaxw": ({}, RATE | ADAMAX | DECAY),
    "amsgrad": ({}, RATE | ADAM),
    "scale_by_rss": ({}, RSS),
    "scale_by_rms": ({}, RMS),
    "scale_by_stddev": ({}, RMS),
    "scale_by_adam": ({}, ADAM),
    "scale_by_nadam": ({}, ADAM | {"momentum_decay": NONNEGATIVE}),
    "scale_by_adamax": ({}, ADAMAX),
    "scale_by_amsgrad": ({}, ADAM),
    "scale": ({}, {"step_size": FINITE}),
    "scale_by_learning_rate": ({}, RATE),
    "add_decayed_weights": ({}, DECAY),
    "clip": ({}, {"max_delta": NONNEGATIVE}),
    "clip_by_global_norm": ({}, {"max_norm": POSITIVE}),
    "trace": ({}, {"decay": FROM_0_TO_1}),
    "lookahead_trace": ({}, {"decay": FROM_0_TO_1}),
    "ema": ({}, {"decay": FRACTION}),
    "constant_schedule": ({}, {"value": FINITE}),
    "linear_schedule": (
        {"init_value": 1.0, "end_value": 0.0, "transition_steps": 5},
        {"init_value": FINITE, "end_value": FINITE}
        | {"transition_steps": STEPS, "transition_begin": STEPS},
    ),
    "polynomial_schedule": (
        {"init_value": 1.0, "end_value": 0.0, "power": 2.0, "transition_steps": 5},
        {"init_value": FINITE, "end_value": FINITE, "power": NONNEGATIVE}
        | {"transition_steps": STEPS, "transition_begin": STEPS},
    ),
    "exponential_decay": (
        {"init_value": 1.0, "transition_steps": 5, "decay_rate": 0.5, "end_value": 0.1},
        {"init_value": FINITE, "transition_steps": (0, *STEPS), "decay_rate": POSITIVE}
        | {"transition_begin": STEPS, "end_value": FINITE},
    ),
    "cosine_decay_schedule": (
        {"init_value": 1.0, "decay_steps": 5},
        {
            "init_value": FINITE,
            "decay_steps": (0, *STEPS),
            "alpha": FINITE,
            "exponent": NONNEGATIVE,
        },
    ),
    "piecewise_constant_schedule": ({}, {"init_value": FINITE}),
    "piecewise_interpolate_schedule": ({"interpolate_type": "linear"}, {"init_value": FINITE}),
    "warmup_constant_schedule": (
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5},
        {"init_value": FINITE, "peak_value": FINITE, "warmup_steps": STEPS},
    ),
    "warmup_cosine_decay_schedule": (
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "decay_steps": 9},
        {"init_value": FINITE, "peak_value": FINITE, "end_value": FINITE, "exponent": NONNEGATIVE}
        | {"warmup_steps": STEPS, "decay_steps": (0, 4, 5, 9.5)},
    ),
    "warmup_exponential_decay_schedule": (
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "transition_steps": 5}
        | {"decay_rate": 0.5},
        {"init_value": FINITE, "peak_value": FINITE, "warmup_steps": STEPS}
        | {"transition_steps": (0, *STEPS), "decay_rate": POSITIVE, "transition_begin": STEPS},
    ),
}
CASES = [(name, argument) for name, (_, bad) in TABLE.items() for argument in bad]


def build(name, argument, value):
    needed, bad = TABLE[name]
    rate = {"learning_rate": 0.1} if "learning_rate" in bad else {}
    return getattr(gradtx, name)(**(rate | needed | {argument: value}))


@pytest.mark.parametrize("name, argument", CASES)
def test_values_out_of_range(name, argument):
    for value in TABLE[name][1][argument]:
        with pytest.raises(ValueError, match=argument):
            build(name, argument, value)


OPTIONAL = {
    ("exponential_decay", "end_value"),
    ("sgd", "momentum"),
    ("rmsprop", "momentum"),
    ("nadamw", "momentum_decay"),
    ("scale_by_learning_rate", "learning_rate"),
}


@pytest.mark.parametrize("name, argument", CASES)
def test_values_that_are_not_numbers(name, argument):
    for value in NOT_A_NUMBER:
        if value is None and (name, argument) in OPTIONAL:
            continue
        with pytest.raises(TypeError, match=argument):
            build(name, argument, value)


def test_every_public_constructor_is_in_a_table():
    from tests.optimizers import test_validation_a, test_validation_b

    tables = TABLE | test_validation_a.TABLE | test_validation_b.TABLE
    values = gradtx.GradientTransformation, gradtx.Schedule
    public = {
        name
        for name in gradtx.__all__
        if name.islower()
        and isinstance(getattr(gradtx, name), type)
        and issubclass(getattr(gradtx, name), values)
        and getattr(gradtx, name).__module__.split(".")[1] != "core"
    }
    elsewhere = {"identity", "set_to_zero", "stateless", "scale_by_schedule", "join_schedules"}
    elsewhere |= {"centralize", "keep_params_nonnegative", "zero_nans", "scale_by_sign"}
    # tests/wrappers hold these, each beside what else it tests.
    elsewhere |= {"accumulate", "skip_nonfinite", "apply_if_finite", "apply_every"}
    elsewhere |= {"conditionally_mask", "conditionally_transform"}
    assert public & set(vars(gradtx)) <= tables.keys() | elsewhere


@pytest.mark.parametrize("name, argument", [case for case in CASES if "steps" not in case[1]])
def test_tracers_are_let_pass(name, argument):
    def traced(value):
        build(name, argument, value)
        return value

    jax.eval_shape(traced, 0.5)


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda d: gradtx.sgd(0.1, 0.9, accumulator_dtype=d), "accumulator_dtype"),
        (lambda d: gradtx.trace(0.9, accumulator_dtype=d), "accumulator_dtype"),
        (lambda d: gradtx.ema(0.9, accumulator_dtype=d), "accumulator_dtype"),
        (lambda d: gradtx.adam(mu_dtype=d), "mu_dtype"),
        (lambda d: gradtx.adamw(0.1, mu_dtype=d), "mu_dtype"),
        (lambda d: gradtx.nadam(0.1, mu_dtype=d), "mu_dtype"),
        (lambda d: gradtx.nadam(0.1, mu_dtype=d, momentum_decay=0.1), "mu_dtype"),
        (lambda d: gradtx.nadamw(0.1, mu_dtype=d), "mu_dtype"),
        (lambda d: gradtx.amsgrad(0.1, mu_dtype=d), "mu_dtype"),
    ],
)
def test_dtypes(make, argument):
    for dtype in ("int32", "float17", "complex64", bool, 3.5):
        with pytest.raises(TypeError, match=argument):
            make(dtype)


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: gradtx.scale_by_schedule(0.1), TypeError, "step_size_fn"),
        (lambda: gradtx.stateless(0.1), TypeError, "f must"),
        (lambda: gradtx.add_decayed_weights(0.1, {"w": 1.0}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.adamw(0.1, mask={"w": "yes"}), TypeError, r"mask\['w'\]"),
        (
            lambda: gradtx.piecewise_interpolate_schedule("cubic", 1.0),
            ValueError,
            "interpolate_type",
        ),
        (lambda: gradtx.sgd(0.1).replace(rate=0.2), TypeError, "rate"),
        (lambda: gradtx.sgd(0.1).replace(learning_rate=-0.2), ValueError, "learning_rate"),
        (lambda: gradtx.linear_schedule(1.0, 0.0, 5).replace(end_value=NAN), ValueError, "end"),
    ],
)
def test_other_errors(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("make", [gradtx.piecewise_constant_schedule, None])
def test_pieces(make):
    def build(pieces):
        if make is None:
            return gradtx.piecewise_interpolate_schedule("linear", 1.0, pieces)
        return make(1.0, pieces)

    for pieces in ({-1: 0.5}, {1.5: 0.5}, {5: -0.5}, {5: NAN}):
        with pytest.raises(ValueError, match=r"boundary|factor"):
            build(pieces)
    for pieces in ({"5": 0.5}, {5: "0.5"}):
        with pytest.raises(TypeError, match=r"boundary|factor"):
            build(pieces)
