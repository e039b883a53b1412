"""Numbers that must be right where the naive formula is not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.numerics import abs_sq, all_finite, bias_correction


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.999, 0.9999, 1 - 1e-6])
@pytest.mark.parametrize("t", [1, 2, 1000, 10**6])
def test_bias_correction_is_accurate_in_single_precision(b, t):
    exact = -np.expm1(t * np.log(b)) if b else 1.0
    np.testing.assert_allclose(bias_correction(b, jnp.float32(t)), exact, rtol=1e-6)
    b = np.float32(b)
    exact = -np.expm1(t * np.log(np.float64(b))) if b else 1.0
    traced = jax.jit(bias_correction)(b, jnp.float32(t))
    np.testing.assert_allclose(traced, exact, rtol=1e-6)


@pytest.mark.parametrize("b1, b2", [(0.9, 0.9999), (0.9999, 0.9)])
@pytest.mark.parametrize(
    "make",
    [
        gradtx.scale_by_adam,
        gradtx.scale_by_amsgrad,
        lambda b1, b2: gradtx.scale_by_amsgrad(b1, b2, max_before_correction=True),
    ],
)
def test_first_corrected_step_is_the_sign(make, b1, b2):
    g = jnp.asarray([0.5, -3.0])
    tx = make(b1, b2)
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u, np.sign(g), rtol=1e-6)


def test_first_debiased_steps():
    g = jnp.asarray([0.5, -3.0])
    for tx, expected in (
        (gradtx.ema(0.9999), g),
        (gradtx.scale_by_rms(0.9999, eps=0.0, bias_correction=True), np.sign(g)),
        (gradtx.scale_by_adamax(0.9999), np.sign(g)),
    ):
        u, _ = tx.update(g, tx.init(g))
        np.testing.assert_allclose(u, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32, jnp.uint32])
def test_safe_increment_saturates(dtype):
    largest = jnp.iinfo(dtype).max
    for start, end in ((0, 1), (largest - 1, largest), (largest, largest)):
        count = gradtx.safe_increment(jnp.asarray(start, dtype))
        assert (int(count), count.dtype) == (end, dtype)


def test_safe_increment_of_floats():
    assert gradtx.safe_increment(jnp.float32(1.0)) == 2.0
    largest = jnp.float32(np.finfo(np.float32).max)
    assert gradtx.safe_increment(largest) == largest


def test_abs_sq():
    np.testing.assert_array_equal(abs_sq(jnp.asarray([-2.0, 3.0])), [4.0, 9.0])
    out = abs_sq(jnp.asarray([3.0 - 4.0j]))
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, [25.0])


@pytest.mark.parametrize("dtype, shape", [("float16", (300, 4096)), ("bfloat16", (10**6,))])
def test_global_norm_of_low_precision_leaves(dtype, shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape, scale=3.0), dtype)
    norm = gradtx.global_norm({"a": x, "b": jnp.ones(2)})
    exact = np.sqrt(np.sum(np.float64(x) ** 2) + 2.0)
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, exact, rtol=1e-5)


def test_global_norm():
    assert gradtx.global_norm({}) == 0.0
    assert gradtx.global_norm({}).dtype == jnp.float32
    tree = {"a": jnp.asarray([3.0 + 4.0j]), "b": (jnp.asarray(12.0), None, 7, jnp.arange(3))}
    assert gradtx.global_norm(tree) == 13.0
    with jax.enable_x64(True):
        mixed = {"a": jnp.asarray([3.0], jnp.float32), "b": jnp.asarray([4.0], jnp.float64)}
        assert gradtx.global_norm(mixed) == 5.0
        assert gradtx.global_norm(mixed).dtype == jnp.float64


MAKE = {
    "sgd": lambda: gradtx.sgd(0.1),
    "momentum": lambda: gradtx.sgd(0.1, 0.9),
    "nesterov": lambda: gradtx.nesterov_momentum(0.1),
    "adagrad": lambda: gradtx.adagrad(0.1),
    "lecture's adagrad": lambda: gradtx.adagrad(0.1, 0.0, eps_in_sqrt=False),
    "adagrad from zero": lambda: gradtx.adagrad(0.1, 0.0),
    "rmsprop": lambda: gradtx.rmsprop(0.1),
    "lecture's rmsprop": lambda: gradtx.rmsprop(0.1, eps_in_sqrt=False, momentum=0.9),
    "corrected rmsprop": lambda: gradtx.rmsprop(0.1, bias_correction=True),
    "centered rmsprop": lambda: gradtx.rmsprop(0.1, centered=True),
    "adam": lambda: gradtx.adam(0.1),
    "almost adam": lambda: gradtx.adam(0.1, bias_correction=False),
    "adamw": lambda: gradtx.adamw(0.1, weight_decay=0.0),
    "nadam": lambda: gradtx.nadam(0.1),
    "dozat's nadam": lambda: gradtx.nadam(0.1, momentum_decay=4e-3),
    "adamax": lambda: gradtx.adamax(0.1),
    "amsgrad": lambda: gradtx.amsgrad(0.1),
    "torch's amsgrad": lambda: gradtx.amsgrad(0.1, max_before_correction=True),
}
every = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())


def updates_of(tx, g, params, steps):
    def one(state, _):
        u, state = tx.update(g, state, params)
        return state, u

    return jax.jit(lambda: jax.lax.scan(one, tx.init(params), length=steps)[1])()


@every
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_zero_gradients_give_zero_updates(make, dtype):
    u = updates_of(make(), jnp.zeros(3, dtype), jnp.ones(3, dtype), 100)
    np.testing.assert_array_equal(np.float32(u), 0.0)


@every
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e18, 1e30])
def test_extreme_gradients_give_finite_updates(make, size):
    if make is MAKE["centered rmsprop"]:
        size = min(size, 1e18)  # beyond, the variance is inf - inf in float32
    g = jnp.asarray([size, -size, 0.0], jnp.float32)
    u = updates_of(make(), g, jnp.ones(3), 20)
    assert np.isfinite(u).all()
    np.testing.assert_array_equal(u[:, 2], 0.0)
    np.testing.assert_array_equal(u[:, 0], -u[:, 1])


@every
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_small_low_precision_gradients_are_as_in_single_precision(make, dtype):
    """In float16, 1e-4 squared is 0 and eps=1e-8 is 0."""
    g = jnp.asarray([1e-4, -2e-4, 3e-3], dtype)
    low = updates_of(make(), g, jnp.ones(3, dtype), 20)
    single = updates_of(make(), g.astype(jnp.float32), jnp.ones(3), 20)
    assert low.dtype == dtype
    np.testing.assert_array_equal(low, single.astype(dtype))
    assert np.abs(np.float32(low)).min() > 0


NORMS = [{}, {"ord": 1}, {"ord": jnp.inf}, {"ord": 2, "axis": 0}, {"axis": (0, 1)}]
NORMS += [{"axis": 1, "keepdims": True}, {"ord": "fro", "keepdims": True}, {"ord": "nuc"}]


@pytest.mark.parametrize("kwargs", NORMS)
@pytest.mark.parametrize("min_norm", [0.0, 1e-6, 3.0])
def test_safe_norm(kwargs, min_norm):
    x = jnp.asarray([[3.0, 0.5, 0.0], [-4.0, 0.0, 1e-3]])
    ours = gradtx.safe_norm(x, min_norm, **kwargs)
    exact = np.linalg.norm(np.float64(x), **kwargs)
    np.testing.assert_allclose(ours, np.maximum(exact, min_norm), rtol=1e-6)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = optax.safe_norm(x, min_norm, **kwargs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def gradient(f, x, *args, **kwargs):
    return np.asarray(jax.grad(lambda x: jnp.sum(f(x, *args, **kwargs)))(x))


def test_safe_gradients():
    for x in (jnp.zeros((2, 2)), jnp.asarray([[3.0, 0.0], [4.0, 0.0]])):
        for min_norm in (0.0, 1e-6, 10.0):
            found = gradient(gradtx.safe_norm, x, min_norm, axis=0)
            below = min_norm == 10.0 or not x.any()
            np.testing.assert_allclose(found, np.zeros((2, 2)) if below else x / 5, rtol=1e-6)
            found = gradient(gradtx.safe_root_mean_squares, x, min_norm)
            np.testing.assert_allclose(found, np.zeros((2, 2)) if below else x / 10, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64])
def test_safe_norms_do_not_overflow(dtype):
    x = jnp.full(4, 3e4, dtype)
    for norm, exact in ((gradtx.safe_norm, 6e4), (gradtx.safe_root_mean_squares, 3e4)):
        assert norm(x, 0.0).dtype == jnp.float32
        np.testing.assert_allclose(norm(x, 0.0), exact, rtol=3e-3)
        assert norm(x, 1e6) == 1e6
        assert np.isnan(norm(x * jnp.asarray(np.nan, dtype), 1.0))


def test_safe_root_mean_squares():
    x = jnp.asarray([3.0, -3.0, 0.0])
    np.testing.assert_allclose(gradtx.safe_root_mean_squares(x, 0.1), 6**0.5, rtol=1e-6)
    np.testing.assert_allclose(
        gradtx.safe_root_mean_squares(x, 0.1), optax.safe_root_mean_squares(x, 0.1), rtol=1e-6
    )
    assert gradtx.safe_root_mean_squares(jnp.asarray([3.0 + 4.0j]), 0.1) == 5.0
    assert gradtx.safe_root_mean_squares(jnp.zeros((0,)), 0.1) == np.float32(0.1)
    assert gradtx.safe_root_mean_squares(jnp.asarray([3, 3]), 0.1) == 3.0


def test_safe_norms_with_x64(x64):
    for norm in (gradtx.safe_norm, gradtx.safe_root_mean_squares):
        assert norm(jnp.full(4, 1e200) * 1e-100, 0.0).dtype == jnp.float64
        assert norm(jnp.ones(4, jnp.float32), jnp.float64(0.1)).dtype == jnp.float32


def test_older_name():
    assert gradtx.safe_int32_increment is gradtx.safe_increment


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_all_finite(dtype, value):
    good = {"a": jnp.full((3, 2), jnp.finfo(dtype).max, dtype), "e": jnp.zeros((0, 2), dtype)}
    for wrap in (lambda f: f, jax.jit):
        assert wrap(all_finite)(good)
        assert not wrap(all_finite)({**good, "a": good["a"].at[1, 1].set(value)})
    if dtype == "complex64":
        assert not all_finite({**good, "a": good["a"].at[1, 1].set(complex(1.0, value))})
    assert all_finite({"step": 3, "flag": True, "none": None, "f": jnp.sin, "number": 1.5})
    assert not all_finite({"number": value}) and all_finite({})


def test_small_leaves_are_reduced_together_and_sharded_ones_apart():
    small = [jnp.full((2, 3), 2.0), jnp.full(5, 1.0), jnp.full((), 3.0)]
    tree = {"small": small, "large": jnp.ones((80, 80)), "half": jnp.ones(4, jnp.float16)}
    assert gradtx.global_norm(tree) == pytest.approx((4 * 6 + 5 + 9 + 6400 + 4) ** 0.5)

    program = jax.jit(gradtx.global_norm).lower(small).compile().as_text()
    assert program.count(" reduce(") == 1

    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(jnp.arange(4.0), jax.P("x"))
        norm = jax.jit(gradtx.global_norm)([sharded, jnp.ones(2), *small[:1]])
    assert norm == pytest.approx((14 + 2 + 24) ** 0.5)
    assert not all_finite([*small, jnp.asarray([1.0, jnp.nan])])


def test_joined_leaves_inside_shard_map():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    def norm(split, whole):
        return gradtx.global_norm([split, whole])[None]

    specs = (jax.P("x"), jax.P())
    norms = jax.shard_map(norm, mesh=mesh, in_specs=specs, out_specs=jax.P("x"))
    found = jax.jit(norms)(jnp.asarray([1.0, 2.0]), jnp.asarray([2.0]))
    np.testing.assert_allclose(found, [5**0.5, 8**0.5], rtol=1e-6)
