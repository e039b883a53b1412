"""Weight decay of every optimizer: applied exactly once, however it is coupled."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.composed import Composed
from tests.examples import public_transformations
from tests.oracles import STEPS, Problem, check_double, constant, falling, never

DECOUPLED = ("learning_rate", "schedule", "corrected", "independent")
OPTIMIZERS = [
    name
    for name, make in public_transformations().items()
    if isinstance(make, type) and issubclass(make, Composed) and ".optimizers." in make.__module__
]
# A line search minimises the loss that it is given; optimistic_adam is the first version.
WITHOUT = {"fromage", "lbfgs", "optimistic_adam"}
DECAYING = [name for name in OPTIMIZERS if name not in WITHOUT]
# What keeps a step without a gradient from moving anything: Yogi's momentum begins at 1e-6.
STILL = {"noisy_sgd": {"eta": 0.0}, "yogi": {"eps": 1e30}}
RATE = {"polyak_sgd": "scaling"}
# Those whose step sizes are not a learning rate.
COUPLINGS = {"rprop": ("l2", "independent")}

PARAMS = {"w": np.linspace(-1.0, 2.0, 6).reshape(2, 3), "b": np.asarray([0.5, -3.0])}
PEAK = 0.2


def rate_at(count):
    """0.2, 0.16, 0.12, ..."""
    return PEAK * (1 - 0.2 * count)


def decay_at(count):
    """0.1, 0.15, 0.2, ..."""
    return 0.1 + 0.05 * count


def schedule_of(rate):
    return gradtx.linear_schedule(rate(0), rate(4), 4)


def build(name, coupling, decay=None, *, rate=None, **kwargs):
    if name == "rprop":
        rate = 0.1
    else:
        rate = schedule_of(rate_at) if rate is None else rate
        kwargs = {"peak_learning_rate": PEAK, **kwargs}
    if decay is not None:
        kwargs["weight_decay"] = decay
    rate = {RATE.get(name, "learning_rate"): rate}
    return getattr(gradtx, name)(**rate, coupling=coupling, **STILL.get(name, {}), **kwargs)


def run(tx, grads, params=PARAMS):
    """The parameters after each step, eagerly: rules are compiled once, whatever the coupling."""
    state, found = tx.init(params), []
    for g in grads:
        params, state = tx.step(g, state, params, value=1.0)
        found.append(params)
    return found


def test_every_optimizer_takes_the_same_keywords():
    keywords = {"weight_decay", "mask", "coupling", "peak_learning_rate"}
    for name in OPTIMIZERS:
        taken = keywords & inspect.signature(getattr(gradtx, name)).parameters.keys()
        absent = {"rprop": {"peak_learning_rate"}, **dict.fromkeys(WITHOUT, keywords)}
        assert taken == keywords - absent.get(name, set()), name
    assert len(DECAYING) > 25


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DECAYING)
def test_decay_is_applied_exactly_once(name):
    """Without a gradient nothing but the decay moves, by the same factor at every optimizer."""
    zeros = [jax.tree.map(np.zeros_like, PARAMS)] * 3
    for coupling, scheduled in itertools.product(DECOUPLED, (True, False)):
        if coupling not in COUPLINGS.get(name, DECOUPLED):
            continue
        decay = schedule_of(decay_at) if scheduled else decay_at(0)
        tx = build(name, coupling, decay, mask={"w": True, "b": False})
        w = PARAMS["w"]
        for count, found in enumerate(run(tx, zeros)):
            rate = rate_at(count)
            factor = {
                "learning_rate": rate,
                "schedule": rate / PEAK,
                "corrected": rate**2 / PEAK,
                "independent": 1.0,
            }[coupling]
            w = w - factor * decay_at(count if scheduled else 0) * w
            np.testing.assert_allclose(found["w"], w, rtol=1e-12, err_msg=coupling)
            np.testing.assert_array_equal(found["b"], PARAMS["b"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DECAYING)
def test_l2_is_decay_of_the_gradient(name):
    rng = np.random.default_rng(0)
    grads = [jax.tree.map(lambda x: rng.normal(size=x.shape), PARAMS) for _ in range(3)]
    found = run(build(name, "l2", schedule_of(decay_at), mask=gradtx.matrices()), grads)
    plain = build(name, "l2", 0.0)
    params, state = PARAMS, plain.init(PARAMS)
    for count, (g, x) in enumerate(zip(grads, found, strict=True)):
        g = {"w": g["w"] + decay_at(count) * params["w"], "b": g["b"]}
        params, state = plain.step(g, state, params, value=1.0)
        for key in params:
            np.testing.assert_allclose(x[key], params[key], rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", sorted(set(DECAYING) - {"rprop"}))
def test_a_constant_rate_is_its_own_peak(name):
    zeros = [jax.tree.map(np.zeros_like, PARAMS)]
    for coupling, factor in zip(DECOUPLED, (0.3, 1.0, 0.3, 1.0), strict=True):
        tx = build(name, coupling, 0.1, rate=0.3, peak_learning_rate=None)
        found = run(tx, zeros)[0]
        for key, x in PARAMS.items():
            np.testing.assert_allclose(found[key], (1 - factor * 0.1) * x, rtol=1e-12)


@pytest.mark.parametrize("name", DECAYING)
def test_types_of_low_precision_parameters(name):
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(2, jnp.float16)}
    for coupling in COUPLINGS.get(name, ("l2", *DECOUPLED)):
        tx = build(name, coupling, schedule_of(decay_at), mask=gradtx.matrices())
        state = tx.init(params)
        moved, after = jax.eval_shape(tx.step, params, state, params, value=1.0)
        assert jax.tree.map(lambda x: x.dtype, moved) == jax.tree.map(lambda x: x.dtype, params)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_a_count_only_where_a_schedule_needs_it():
    rate, x = schedule_of(rate_at), jnp.ones(2)
    for coupling, found in (("independent", False), ("schedule", True), ("corrected", True)):
        for make in (gradtx.sgd, gradtx.lamb):
            tx = make(rate, weight_decay=0.1, coupling=coupling, peak_learning_rate=PEAK)
            assert isinstance(tx.init(x)[-1], gradtx.WeightDecaySchedule) == found
    assert gradtx.sgd(0.1, weight_decay=0.1, coupling="corrected").init(x)[-1] == ()


@pytest.mark.parametrize("name", DECAYING)
def test_without_decay_there_is_no_stage_for_it(name):
    """Where Optax's default is a number there is one, also for 0, as in Optax."""
    default = inspect.signature(getattr(gradtx, name)).parameters["weight_decay"].default
    tx = getattr(gradtx, name)(0.1)
    assert ("weight_decay" in repr(tx.compose())) == (default is not None)
    own = {"adamw": 1e-4, "nadamw": 1e-4, "adamaxw": 1e-4, "lion": 1e-3}
    zero = ("adan", "lamb", "lars", "novograd", "adadelta")
    assert default == own.get(name, 0.0 if name in zero else None)


@pytest.mark.parametrize("name", DECAYING)
def test_bad_arguments(name):
    for coupling in ("L2", "", None, 1.0):
        with pytest.raises(ValueError, match="coupling must be one of"):
            build(name, coupling)
    for decay, error in ((-0.1, ValueError), (float("nan"), ValueError), ("0.1", TypeError)):
        with pytest.raises(error, match="weight_decay"):
            build(name, "l2", decay)
    with pytest.raises(TypeError, match=r"mask\['w'\] must be a boolean"):
        build(name, "l2", 0.1, mask={"w": 1.0})
    if name == "rprop":
        return
    for coupling in ("schedule", "corrected"):
        with pytest.raises(ValueError, match=r"largest learning rate.*peak_learning_rate"):
            build(name, coupling, 0.1, peak_learning_rate=None)
    for peak in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="peak_learning_rate"):
            build(name, "corrected", 0.1, peak_learning_rate=peak)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: gradtx.adam(0.1, mask=gradtx.matrices()), "weight_decay is None"),
        (lambda: gradtx.polyak_sgd(coupling="l2", mask=True), "weight_decay is None"),
        (lambda: gradtx.rprop(0.1, mask=True), "weight_decay is None"),
        (lambda: gradtx.adafactor(0.1, mask=True), "weight_decay is None"),
        (lambda: gradtx.rprop(0.1, coupling="learning_rate"), "step sizes of rprop"),
        (lambda: gradtx.adadelta(coupling="independent"), "must be 'l2'"),
        (lambda: gradtx.adadelta(coupling="learning_rate"), "needs a learning_rate"),
        (lambda: gradtx.adafactor(coupling="corrected"), "needs a learning_rate"),
        (lambda: gradtx.lars(0.1, mask=True, weight_decay_mask=False), "one argument"),
        (lambda: gradtx.adadelta(mask=True, weight_decay_mask=True), "one argument"),
        (lambda: gradtx.adafactor(weight_decay=0.1, weight_decay_rate=0.1), "one argument"),
        (
            lambda: gradtx.adafactor(weight_decay=0.1, mask=True, weight_decay_mask=True),
            "one argument",
        ),
    ],
)
def test_other_bad_arguments(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_two_names_for_one_argument():
    mask = {"w": True, "b": False}
    for one, other in (
        (
            gradtx.lars(0.1, weight_decay=0.3, mask=mask),
            gradtx.lars(0.1, weight_decay=0.3, weight_decay_mask=mask),
        ),
        (
            gradtx.adadelta(0.1, weight_decay=0.3, mask=mask),
            gradtx.adadelta(0.1, weight_decay=0.3, weight_decay_mask=mask),
        ),
        (
            gradtx.adafactor(0.1, weight_decay=0.3, mask=mask),
            gradtx.adafactor(0.1, weight_decay_rate=0.3, weight_decay_mask=mask),
        ),
    ):
        assert one.compose() == other.compose()
        assert one.compose() != one.replace(mask=None).compose()


def adamw(problem, lr, coupling, peak, decay):
    x, mu, nu, xs = problem.x0, 0.0, 0.0, []
    for t in range(1, STEPS + 1):
        rate, weight = lr(t - 1), decay(t - 1)
        g = problem.grad(x)
        if coupling == "l2":
            g = g + weight * x
        mu = 0.9 * mu + 0.1 * g
        nu = 0.999 * nu + 0.001 * abs(g) ** 2
        u = mu / (1 - 0.9**t) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8)
        share = {
            "l2": 0.0,
            "learning_rate": rate,
            "schedule": rate / peak,
            "corrected": rate * rate / peak,
            "independent": 1.0,
        }[coupling]
        x = x - rate * u - share * weight * x
        xs.append(x)
    return xs


@pytest.mark.parametrize("coupling", ["l2", *DECOUPLED])
def test_adamw(coupling):
    problem = Problem()
    xs = adamw(problem, constant(0.02), coupling, 0.02, constant(0.01))
    check_double(gradtx.adamw(0.02, weight_decay=0.01, coupling=coupling), problem, xs)
    problem = Problem()
    xs = adamw(problem, falling(0.05), coupling, 0.05, falling(0.03))
    linear = gradtx.linear_schedule
    tx = gradtx.adamw(
        linear(0.05, 0.0, STEPS),
        weight_decay=linear(0.03, 0.0, STEPS),
        coupling=coupling,
        peak_learning_rate=0.05,
    )
    check_double(tx, problem, xs)


def rmsprop(problem, lr, decay):
    """The rate is inside the momentum, and the decay is not."""
    x, nu, v, xs = problem.x0, 0.0, 0.0, []
    for _ in range(STEPS):
        g = problem.grad(x)
        nu = 0.9 * nu + 0.1 * g**2
        v = 0.8 * v - lr * g / np.sqrt(nu + 0.1)
        x = x + v - lr * decay * x
        xs.append(x)
    return xs


def test_the_decay_is_outside_the_momentum():
    problem = Problem()
    tx = gradtx.rmsprop(0.01, eps=0.1, momentum=0.8, weight_decay=0.3)
    check_double(tx, problem, rmsprop(problem, 0.01, 0.3))
    problem = Problem()
    check_double(tx.replace(weight_decay=None), problem, rmsprop(problem, 0.01, 0.0))


@pytest.mark.usefixtures("x64")
def test_the_decays_of_the_papers():
    """NovoGrad's accumulates in the momentum; LAMB's is part of what the ratio scales."""
    zeros = [jax.tree.map(np.zeros_like, PARAMS)] * 2
    mask = {"w": True, "b": False}
    first, second = run(gradtx.novograd(0.1, b1=0.5, weight_decay=0.3, mask=mask), zeros)
    w = PARAMS["w"]
    np.testing.assert_allclose(first["w"], w - 0.03 * w, rtol=1e-12)
    momentum = 0.5 * 0.3 * w + 0.3 * first["w"]
    np.testing.assert_allclose(second["w"], first["w"] - 0.1 * momentum, rtol=1e-12)
    np.testing.assert_array_equal(second["b"], PARAMS["b"])
    for decay in (0.1, 0.3):
        found = run(gradtx.lamb(0.1, weight_decay=decay, mask=mask), zeros)[0]
        np.testing.assert_allclose(found["w"], 0.9 * w, rtol=1e-12)
        np.testing.assert_array_equal(found["b"], PARAMS["b"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "novograd", "adafactor"])
def test_vmap_over_weight_decay(name):
    zeros = [jax.tree.map(np.zeros_like, PARAMS)]
    decays = np.asarray([0.0, 0.1, 0.5])

    def one(decay):
        return run(build(name, "corrected", decay, rate=0.3), zeros)[0]["w"]

    found = jax.vmap(one)(decays)
    expected = (1 - 0.3 * 0.3 / PEAK * decays[:, None, None]) * PARAMS["w"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_bfloat16_parameters_are_rounded_once():
    x = jnp.asarray([1.0, 3.0], jnp.bfloat16)
    tx = gradtx.adamw(0.1, weight_decay=0.3, coupling="schedule")
    moved, _ = tx.step(jnp.zeros_like(x), tx.init(x), x)
    assert moved.dtype == jnp.bfloat16
    # The update is rounded, and then the sum.
    update = np.asarray([-0.3, -0.9], jnp.bfloat16)
    np.testing.assert_array_equal(moved, x + update)


def test_no_decay_is_never():
    problem = Problem()
    check_double(gradtx.adam(0.02), problem, adamw(problem, constant(0.02), "l2", 1.0, never))
