"""Bad hyperparameters are refused at construction, and the message names the argument."""

import re

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

NOVOGRAD = ADAM | DECAY
POLYAK = {"f_min": FINITE, "max_learning_rate": POSITIVE, "eps": NONNEGATIVE}
TRUST = {"trust_coefficient": NONNEGATIVE, "eps": NONNEGATIVE}
NOISE = {"eta": NONNEGATIVE, "gamma": NONNEGATIVE}
FACTORED = {"decay_rate": NONNEGATIVE, "min_dim_size_to_factor": (0, *STEPS)}

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
    "optimistic_adam": ({}, RATE | ADAM | {"optimism": FINITE}),
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
    "warmup_linear_decay_schedule": (
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "decay_steps": 9},
        {"init_value": FINITE, "peak_value": FINITE, "end_value": FINITE}
        | {"warmup_steps": STEPS, "decay_steps": (4, 9.5, NAN)},
    ),
    "warmup_stable_decay_schedule": (
        {"init_value": 0.0, "peak_value": 1.0}
        | {"warmup_steps": 5, "stable_steps": 5, "decay_steps": 5},
        {"init_value": FINITE, "peak_value": FINITE, "end_value": FINITE}
        | {"warmup_steps": STEPS, "stable_steps": STEPS, "decay_steps": STEPS},
    ),
    "inverse_sqrt_schedule": (
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5},
        {"init_value": FINITE, "peak_value": FINITE, "warmup_steps": STEPS}
        | {"timescale": (0, *STEPS)},
    ),
    "linear_onecycle_schedule": (
        {"transition_steps": 10, "peak_value": 1.0},
        {"transition_steps": (0, *STEPS), "peak_value": FINITE, "div_factor": POSITIVE}
        | {"pct_start": FROM_0_TO_1, "pct_final": (*FROM_0_TO_1, 0.2)}
        | {"final_div_factor": POSITIVE},
    ),
    "cosine_onecycle_schedule": (
        {"transition_steps": 10, "peak_value": 1.0},
        {"transition_steps": (0, *STEPS), "peak_value": FINITE, "div_factor": POSITIVE}
        | {"pct_start": FROM_0_TO_1, "final_div_factor": POSITIVE},
    ),
    "warmup_exponential_decay_schedule": (
        {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 5, "transition_steps": 5}
        | {"decay_rate": 0.5},
        {"init_value": FINITE, "peak_value": FINITE, "warmup_steps": STEPS}
        | {"transition_steps": (0, *STEPS), "decay_rate": POSITIVE, "transition_begin": STEPS},
    ),
    "lion": ({}, RATE | LION | DECAY),
    "adabelief": ({}, RATE | BELIEF),
    "adadelta": ({}, RATE | ADADELTA | DECAY),
    "adan": ({}, RATE | ADAN | DECAY),
    "yogi": ({}, RATE | YOGI),
    "radam": ({}, RATE | RADAM),
    "rprop": ({}, RPROP),
    "sign_sgd": ({}, RATE),
    "signum": ({}, RATE | {"beta": FRACTION}),
    "optimistic_gradient_descent": ({}, RATE | OPTIMISTIC),
    "optimistic_adam_v2": ({}, RATE | OPTIMISTIC | BELIEF),
    "scale_by_lion": ({}, LION | {"smooth_beta": POSITIVE}),
    "scale_by_belief": ({}, BELIEF),
    "scale_by_adadelta": ({}, ADADELTA),
    "scale_by_adan": ({}, ADAN),
    "scale_by_yogi": (
        {},
        YOGI | {"eps_root": NONNEGATIVE, "initial_accumulator_value": NONNEGATIVE},
    ),
    "scale_by_radam": ({}, RADAM),
    "scale_by_rprop": ({}, RPROP),
    "scale_by_optimistic_gradient": ({}, OPTIMISTIC),
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
    "adaptive_grad_clip": ({"clipping": 0.1}, {"clipping": NONNEGATIVE, "eps": NONNEGATIVE}),
    "scale_by_distance_over_gradients": (
        {},
        {"reps_rel": POSITIVE, "eps": POSITIVE, "global_scale": FINITE},
    ),
    "clip_by_block_rms": ({}, {"threshold": POSITIVE}),
}
CASES = [(name, argument) for name, (_, bad) in TABLE.items() for argument in bad]


def build(name, argument, value):
    needed, bad = TABLE[name]
    rate = {"learning_rate": 0.1} if "learning_rate" in bad else {}
    return getattr(gradtx, name)(**(rate | needed | {argument: value}))


@pytest.mark.parametrize("name, argument", CASES)
def test_values_out_of_range(name, argument):
    for value in TABLE[name][1][argument]:
        with pytest.raises(ValueError, match=rf"^{argument} must be"):
            build(name, argument, value)


OPTIONAL = {
    ("exponential_decay", "end_value"),
    ("sgd", "momentum"),
    ("rmsprop", "momentum"),
    ("nadamw", "momentum_decay"),
    ("optimistic_adam", "optimism"),
    ("inverse_sqrt_schedule", "timescale"),
    ("scale_by_learning_rate", "learning_rate"),
    ("adadelta", "learning_rate"),
    *(("adafactor", name) for name in ("learning_rate", "clipping_threshold", "momentum")),
    ("adafactor", "weight_decay_rate"),
}


@pytest.mark.parametrize("name, argument", CASES)
def test_values_that_are_not_numbers(name, argument):
    for value in NOT_A_NUMBER:
        if value is None and (name, argument) in OPTIONAL:
            build(name, argument, value)
            continue
        with pytest.raises(TypeError, match=rf"^{argument} must be"):
            build(name, argument, value)


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
    ("lamb", "weight_decay"): 0,
    ("lars", "momentum"): 1.0,
    ("lars", "weight_decay_mask"): {"w": True},
    ("lars", "trust_ratio_mask"): {"w": False},
    ("fromage", "min_norm"): 0,
    ("novograd", "eps"): 0.0,
    ("scale_by_sm3", "b2"): 1,
    ("polyak_sgd", "scaling"): 0.0,
    ("scale_by_polyak", "f_min"): -3.0,
    ("adafactor", "decay_rate"): 0.0,
    ("adafactor", "decay_offset"): 3,
    ("scale_by_factored_rms", "min_dim_size_to_factor"): 1,
    ("normalize_by_update_norm", "scale_factor"): -1.0,
    ("add_noise", "eta"): 0.0,
}


@pytest.mark.parametrize("name, argument", EDGES)
def test_ends_that_are_allowed(name, argument):
    value = EDGES[name, argument]
    assert getattr(build(name, argument, value), argument) == value


def test_every_public_constructor_is_in_a_table():
    from tests.linesearch import test_validation as searches

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
    elsewhere |= {"sgdr_schedule", "stateless_with_tree_map"}
    elsewhere |= {"centralize", "keep_params_nonnegative", "zero_nans", "scale_by_sign"}
    # Their own tests hold what they refuse.
    elsewhere |= {"lookahead", "ema_params", "flatten", "snapshot", "monitor"}
    elsewhere |= {"accumulate", "skip_nonfinite", "apply_if_finite", "apply_every"}
    elsewhere |= {"conditionally_mask", "conditionally_transform"}
    elsewhere |= {"freeze", "selective_transform", "MultiSteps"}
    elsewhere |= {"quantize_state", "stochastic_rounding", "kahan", "master_weights"}
    elsewhere |= {"slot_dtypes", "offload_state"}
    assert public & set(vars(gradtx)) <= TABLE.keys() | searches.TABLE.keys() | elsewhere


@pytest.mark.parametrize(
    "name, argument", [case for case in CASES if not re.search("steps|pct", case[1])]
)
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
    "make, error, words",
    [
        (lambda: gradtx.scale_by_schedule(0.1), TypeError, "step_size_fn"),
        (lambda: gradtx.stateless(0.1), TypeError, "f must"),
        (lambda: gradtx.stateless_with_tree_map(0.1), TypeError, "f must"),
        (lambda: gradtx.optimistic_adam(max), TypeError, "learning_rate must be a number"),
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
        (lambda: gradtx.scale_by_lion(mode="soft"), ValueError, "mode must be one of"),
        (lambda: gradtx.lion(0.1, mask={"w": "yes"}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.adan(0.1, mask={"w": 1.0}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.adadelta(0.1, weight_decay_mask={"w": 1}), TypeError, r"mask\['w'\]"),
        (lambda: gradtx.radam(0.1).replace(b2=0.5), ValueError, "b2"),
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


@pytest.mark.parametrize("name", ["lion", "adan", "adadelta"])
def test_decay_needs_params(name):
    tx = getattr(gradtx, name)(0.1, weight_decay=0.1)
    g = jax.numpy.ones(2)
    with pytest.raises(ValueError, match="params"):
        tx.update(g, tx.init(g))
