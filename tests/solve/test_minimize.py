"""`minimize` against SciPy's L-BFGS-B on a small suite, and in what is awkward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import gradtx
from gradtx import Status
from tests.linesearch.problems import rosenbrock


def beale(x):
    rows = jnp.asarray([1.5, 2.25, 2.625], x.dtype)
    powers = jnp.stack([x[1], x[1] ** 2, x[1] ** 3])
    return jnp.sum((rows - x[0] * (1.0 - powers)) ** 2)


def booth(x):
    return (x[0] + 2.0 * x[1] - 7.0) ** 2 + (2.0 * x[0] + x[1] - 5.0) ** 2


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11.0) ** 2 + (x[0] + x[1] ** 2 - 7.0) ** 2


def quadratic(x):
    scales = jnp.asarray(np.geomspace(1.0, 1e6, x.size), x.dtype)
    return 0.5 * jnp.sum(scales * (x - 1.0) ** 2)


RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(50, 4))
LABELS = np.sign(INPUTS @ [1.0, -2.0, 0.5, 0.0] + RNG.normal(size=50))


def logistic(x):
    margins = jnp.asarray(LABELS, x.dtype) * jnp.sum(jnp.asarray(INPUTS, x.dtype) * x[None], 1)
    return jnp.mean(jnp.logaddexp(0.0, -margins)) + 0.01 * jnp.sum(x**2)


FREE = [
    (rosenbrock, [-1.2, 1.0], None),
    (rosenbrock, [-1.2, 1.0] * 10, None),
    (beale, [1.0, 1.0], None),
    (booth, [0.0, 0.0], None),
    (himmelblau, [0.0, 0.0], None),
    (quadratic, [0.0] * 8, None),
    (logistic, [0.0] * 4, None),
    (rosenbrock, [-1.2, 1.0], (-2.0, 2.0)),
    (rosenbrock, [-1.2, 1.0], (-2.0, [0.5, 2.0])),
    (rosenbrock, [0.0] * 20, ([-1.0] * 20, [2.0, 0.3] * 10)),
    (quadratic, [3.0] * 8, (2.0, None)),
    (booth, [0.0, 0.0], (None, [0.5, 2.0])),
    (logistic, [0.0] * 4, (0.0, 0.4)),
]


def evaluations_of(fn, x, bounds, tol):
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return fn(x)

    result = gradtx.minimize(counted, x, bounds=bounds, tol=tol)
    jax.effects_barrier()
    return result, len(calls)


@pytest.mark.parametrize("fn, x, bounds", FREE)
def test_scipy(fn, x, bounds, x64):
    """The same values; at most 3 times SciPy's evaluations, and 20 more."""
    x = np.asarray(x)
    value_and_grad = jax.jit(jax.value_and_grad(fn))
    ends = None
    if bounds is not None:
        sides = (np.broadcast_to(s, x.shape) for s, o in zip(bounds, (-np.inf, np.inf), strict=True)
                 for s in [o if s is None else s])  # fmt: skip
        ends = scipy.optimize.Bounds(*sides)
        bounds = tuple(None if b is None else jnp.asarray(b) for b in bounds)
    theirs = scipy.optimize.minimize(
        lambda x: tuple(np.asarray(y, float) for y in value_and_grad(x)),
        x, jac=True, method="L-BFGS-B", bounds=ends,
        options={"gtol": 1e-6, "ftol": 0.0, "maxiter": 1000},
    )  # fmt: skip
    ours, count = evaluations_of(fn, jnp.asarray(x), bounds, 1e-6)
    assert ours.status is Status.CONVERGED and ours.grad_norm <= 1e-6
    np.testing.assert_allclose(ours.value, theirs.fun, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.value, fn(ours.params), rtol=1e-12, atol=1e-15)
    gradient = value_and_grad(ours.params)[1]
    if ends is not None:
        assert np.all(ours.params >= ends.lb) and np.all(ours.params <= ends.ub)
        gradient = ours.params - jnp.clip(ours.params - gradient, ends.lb, ends.ub)
    np.testing.assert_allclose(ours.grad_norm, jnp.max(jnp.abs(gradient)), rtol=1e-6, atol=1e-9)
    assert count <= 3 * theirs.nfev + 20


@pytest.mark.parametrize("fn, x", [(rosenbrock, [-1.2, 1.0]), (logistic, [0.0] * 4)])
@pytest.mark.parametrize("dtype, tol", [("float32", 1e-4), ("bfloat16", 0.05)])
def test_low_precision(fn, x, dtype, tol):
    result = gradtx.minimize(fn, jnp.asarray(x, dtype), tol=tol)
    assert result.params.dtype == dtype
    with jax.enable_x64(True):
        best = float(gradtx.minimize(fn, jnp.asarray(x, float)).value)
    assert result.value <= best + (1e-6 if dtype == "float32" else 0.2)


def test_complex_parameters_are_their_real_split(x64):
    loss = lambda z: rosenbrock(jnp.stack([z["z"].real, z["z"].imag]))  # noqa: E731
    ours = gradtx.minimize(loss, {"z": jnp.asarray(-1.2 + 1.0j)})
    split = gradtx.minimize(rosenbrock, jnp.asarray([-1.2, 1.0]))
    assert ours.steps == split.steps and ours.status == split.status == Status.CONVERGED
    np.testing.assert_allclose(ours.params["z"], 1 + 1j, atol=1e-6)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adam(0.1),
        gradtx.nesterov_momentum(0.05, 0.5, lookahead=True),
        gradtx.polyak_sgd(),
        gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(20, store_grad=True)),
        gradtx.lbfgs(linesearch=gradtx.scale_by_backtracking_linesearch(30)),
        gradtx.chain(gradtx.lbfgs(), gradtx.scale(0.5)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("bounds, expected", [(None, [1.0, 3.0]), ((0.0, 2.0), [1.5, 2.0])])
def test_any_transformation(tx, bounds, expected):
    result = gradtx.minimize(booth, jnp.zeros(2), tx, bounds=bounds, tol=1e-3)
    assert result.status is Status.CONVERGED
    if bounds is None:
        np.testing.assert_allclose(result.params, expected, atol=1e-3)
    np.testing.assert_allclose(result.value, booth(result.params), rtol=1e-4, atol=1e-5)


def test_other_leaves_and_arguments():
    def loss(p, target, scale):
        return scale * jnp.sum((p["w"] - target) ** 2) + 0.0 * p["f"](p["k"][0])

    x0 = {"w": jnp.zeros(2), "k": jnp.arange(2.0).astype(int), "f": jnp.sin, "n": None}
    result = gradtx.minimize(loss, x0, args=(jnp.asarray([1.0, 2.0]), 3.0))
    np.testing.assert_allclose(result.params["w"], [1.0, 2.0], atol=1e-5)
    assert all(result.params[name] is x0[name] for name in ("k", "f", "n"))
    assert gradtx.minimize(lambda p: 0.0, {}).status is Status.CONVERGED


def test_compiles_once_for_each_function():
    traced, counts = [], []

    def loss(x, data):
        traced.append(x)
        return jnp.sum((x - data) ** 2)

    for k in range(3):
        gradtx.minimize(loss, jnp.zeros(2), args=(jnp.full(2, float(k)),), tol=10.0**-k)
        counts.append(len(traced))
    assert counts == [counts[0]] * 3


def test_jit_and_vmap():
    starts = jnp.asarray([[0.0, 0.0], [2.0, -1.0], [jnp.nan, 1.0]])
    many = jax.jit(jax.vmap(lambda x: gradtx.minimize(rosenbrock, x, tol=1e-3)))(starts)
    assert many.status.tolist() == [Status.CONVERGED, Status.CONVERGED, Status.NON_FINITE]
    np.testing.assert_allclose(many.params[:2], 1.0, atol=1e-2)
    rates = jnp.asarray([0.1, 0.02])
    run = lambda r: gradtx.minimize(booth, jnp.zeros(2), gradtx.sgd(r), max_steps=5)  # noqa: E731
    values = jax.vmap(run)(rates).value
    np.testing.assert_allclose(values, [run(0.1).value, run(0.02).value], rtol=1e-5)


def test_the_ways_to_end():
    result = gradtx.minimize(rosenbrock, jnp.zeros(2), max_steps=3)
    assert result.status is Status.MAX_STEPS and result.steps == 3
    assert gradtx.minimize(booth, jnp.zeros(2), max_steps=0).steps == 0
    result = gradtx.minimize(booth, jnp.zeros(2), gradtx.sgd(0.0), patience=4)
    assert result.status is Status.STALLED and result.steps == 4
    diverging = gradtx.minimize(quadratic, jnp.full(2, 3.0), gradtx.sgd(1e3))
    assert diverging.status is Status.NON_FINITE
    assert diverging.value == quadratic(jnp.full(2, 3.0)) and (diverging.params == 3.0).all()
    assert gradtx.minimize(booth, jnp.full(2, jnp.inf)).status is Status.NON_FINITE
    assert repr(Status.STALLED) == "<Status.STALLED: 2>"


def test_the_best_point_is_kept():
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.trace(0.95))
    result = gradtx.minimize(booth, jnp.zeros(2), tx, max_steps=4)
    x, state, values = jnp.zeros(2), tx.init(jnp.zeros(2)), [booth(jnp.zeros(2))]
    for _ in range(4):
        x, state = tx.step(jax.grad(booth)(x), state, x)
        values.append(booth(x))
    assert values[-1] > min(values)
    np.testing.assert_allclose(result.value, min(values), rtol=1e-4)


def test_trials_outside_the_domain():
    loss = lambda x: jnp.sum(x - jnp.log(x))  # noqa: E731  NaN below 0, least at 1
    result = gradtx.minimize(loss, jnp.asarray([5.0, 0.01]), tol=1e-3)
    assert result.status is Status.CONVERGED
    np.testing.assert_allclose(result.params, 1.0, atol=1e-2)


def test_bounds_are_never_left():
    loss = lambda x: jnp.sum(jnp.sqrt(x) + 0.1 * (x - 2.0) ** 2 * jnp.sqrt(1.0 - x))  # noqa: E731
    with jax.enable_x64(True):
        low = jnp.asarray([0.01, 0.2])
        result = gradtx.minimize(loss, jnp.asarray([0.9, 5.0]), bounds=(low, 0.9))
    np.testing.assert_allclose(result.params, [0.01, 0.2])
    assert np.isfinite(result.value)


def test_bounds_as_trees():
    loss = lambda p: jnp.sum((p["a"] - 3.0) ** 2) + jnp.sum((p["b"] + 3.0) ** 2)  # noqa: E731
    x0 = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    bounds = ({"a": None, "b": -1.0}, {"a": jnp.asarray([1.0, 5.0]), "b": None})
    result = gradtx.minimize(loss, x0, bounds=bounds)
    np.testing.assert_allclose(result.params["a"], [1.0, 3.0], atol=1e-5)
    assert result.params["b"] == -1.0


@pytest.mark.parametrize(
    "kwargs, error, words",
    [
        ({"fn": 3}, TypeError, "fn must be a function"),
        ({"fn": lambda x: x}, ValueError, "fn must return a single real number"),
        ({"args": 3}, TypeError, "args must be a tuple"),
        ({"tx": 3}, TypeError, "expected a gradient transformation"),
        ({"tol": -1.0}, ValueError, "tol must be"),
        ({"max_steps": -1}, ValueError, "max_steps must be"),
        ({"patience": 0}, ValueError, "patience must be"),
        ({"bounds": 3.0}, TypeError, "bounds must be a pair"),
        ({"bounds": (1.0, 0.0)}, ValueError, "lower must be at most upper"),
        ({"bounds": (jnp.nan, 0.0)}, ValueError, "lower must be at most upper"),
        ({"bounds": (jnp.zeros(3), None)}, ValueError, "have shape"),
        ({"bounds": ({"a": 0.0}, None)}, ValueError, "the lower bounds must be"),
        ({"x0": jnp.zeros(2, complex), "bounds": (0.0, None)}, ValueError, "complex"),
    ],
)
def test_what_is_refused(kwargs, error, words):
    with pytest.raises(error, match=words):
        gradtx.minimize(**({"fn": booth, "x0": jnp.zeros(2)} | kwargs))
