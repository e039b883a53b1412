import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.memory.rounding import rounded
from tests.memory.common import (
    LOW,
    adamw,
    assert_same_bits,
    both_ways,
    run,
    sgd,
    share_of_movement,
)

DTYPES = [*LOW.values(), jnp.float8_e5m2]


def all_values(dtype):
    """Every finite value of a dtype, in order, as float64."""
    size = np.dtype(dtype).itemsize
    bits = np.arange(2 ** (8 * size), dtype=f"uint{8 * size}")
    with np.errstate(invalid="ignore"):
        values = bits.view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


def wide_values(dtype, seed=0):
    """Float32 values of every kind: between two neighbours, random bits, not finite."""
    values = all_values(dtype)
    halves = (values[1:] + values[:-1]) / 2
    patterns = np.random.default_rng(seed).integers(0, 2**32, 20_000, dtype=np.uint32)
    patterns[:3] = 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF  # NaNs that carry or lose their bits
    edge = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32)
    with np.errstate(over="ignore"):
        x = np.concatenate([values, halves, np.nextafter(halves, np.inf)]).astype(np.float32)
    return np.concatenate([x, edge, patterns.view(np.float32)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_nearest_is_a_cast(dtype):
    x = wide_values(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype)
    for round_ in (rounded, jax.jit(rounded, static_argnums=1)):
        found = np.asarray(round_(jnp.asarray(x), dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = found.astype(dtype)
        same = narrow.view(f"u{narrow.itemsize}") == expected.view(f"u{narrow.itemsize}")
        assert np.all(same | np.isnan(x)), x[~same][:5]
        assert np.all(np.isnan(found) == np.isnan(x))
        kept = np.isfinite(narrow)
        np.testing.assert_array_equal(narrow[kept].astype(np.float32), found[kept])


def neighbours(x, dtype):
    """The values of a dtype at or below x, and at or above."""
    values = all_values(dtype)
    low = values[np.searchsorted(values, x, "right") - 1]
    return low, np.where(low == x, x, values[np.searchsorted(values, x)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_stochastic_goes_down_or_up_in_proportion(dtype):
    """Over a million draws, for normal and subnormal values, negative ones, and the largest."""
    rng = np.random.default_rng(0)
    info = jnp.finfo(dtype)
    scales = np.array([1.0, 3e-3, float(info.tiny), float(info.smallest_subnormal) * 3])
    scales = np.maximum(scales, 2.0**-120)  # XLA's CPU backend has no float32 below 2^-126
    x = (rng.normal(size=(32, 4)) * scales).ravel().astype(np.float32)
    values = all_values(dtype)
    x = np.concatenate([x, values[[0, -1]], values[-2:].mean(keepdims=True)]).astype(np.float32)
    draws = 8192
    bits = rng.integers(0, 2**32, (draws, x.size), dtype=np.uint32)
    found = np.asarray(jax.jit(jax.vmap(lambda b: rounded(jnp.asarray(x), dtype, b)))(bits))
    exact = x.astype(np.float64)
    low, high = neighbours(exact, dtype)
    assert np.all((found == low) | (found == high))
    span = np.where(high > low, high - low, 1.0)
    share = (exact - low) / span
    went_up = np.mean((found != low) & (high > low), axis=0)
    deviation = np.sqrt(np.maximum(share * (1 - share), 1e-9) / draws)
    # Of 13 bits and more, one value in 2^13 of the random bits may fall on either side.
    assert np.all(np.abs(went_up - share) < 5 * deviation + 2.0**-13)
    mean = np.mean((found - exact) / span, axis=0)
    assert abs(np.mean(mean)) < 5 * 0.5 / np.sqrt(draws * x.size)


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_stochastic_keeps_what_is_exact_and_what_is_not_finite(dtype):
    bits = jnp.full((), 2**32 - 1, jnp.uint32)
    x = all_values(dtype).astype(np.float32)
    x = np.concatenate([x, [-0.0, np.inf, -np.inf, np.nan, np.float32(jnp.finfo(dtype).max)]])
    for edge in (0, 2**32 - 1):
        bits = jnp.full(x.shape, edge, jnp.uint32)
        found = np.asarray(rounded(jnp.asarray(x, jnp.float32), dtype, bits))
        assert_same_bits(found, x.astype(np.float32))


def test_rounding_is_the_identity_to_differentiation():
    slope = jax.grad(lambda x: jnp.sum(3 * rounded(x, jnp.bfloat16)))(jnp.ones(2))
    assert slope.tolist() == [3.0, 3.0]


def spread(dtype, n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    p = jnp.asarray(rng.normal(size=n), dtype)
    size = 10.0 ** rng.uniform(-6, 0, size=n)
    return p, jnp.asarray(rng.normal(size=n) * size * np.asarray(p, np.float64), jnp.float32)


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_parameters_go_to_a_neighbour_of_the_sum(dtype):
    p, u = spread(dtype)
    tx = gradtx.stochastic_rounding(gradtx.scale(1.0), seed=3)
    params, _ = tx.step(u, tx.init(p), p)
    new, x = np.asarray(params, np.float64), np.asarray(p, np.float64)
    total = (np.asarray(p, np.float32) + np.asarray(u)).astype(np.float64)
    low, high = neighbours(total, dtype)
    small = np.abs(np.asarray(u)) < np.abs(x) / 2
    assert 0.9 < np.mean(small) < 1.0
    at_neighbour = (new == low) | (new == high)
    assert np.all(at_neighbour[small])
    beside = np.maximum(low - new, new - high)
    assert np.all(beside[~small] <= float(jnp.finfo(dtype).eps) * np.abs(np.asarray(u))[~small])
    z = (new - total)[small] / np.where(high > low, high - low, 1)[small]
    assert abs(np.mean(z)) < 5 * 0.5 / np.sqrt(z.size)
    assert np.std(z) > 0.2  # and not to nearest, whose mean error here is 0 as well


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_mean_over_seeds_is_the_sum(dtype):
    p = jnp.asarray([1.0, -1.5, 0.007, 0.0], dtype)
    u = jnp.asarray([1e-4, 2e-3, -3e-6, 1.2345e-3], jnp.float32)

    def moved(seed):
        tx = gradtx.stochastic_rounding(gradtx.scale(1.0), seed=seed)
        return tx.step(u, tx.init(p), p)[0].astype(jnp.float32)

    seeds = 20_000
    found = np.asarray(jax.jit(jax.vmap(moved))(jnp.arange(seeds)), np.float64)
    total = np.asarray(p, np.float64) + np.asarray(u, np.float64)
    low, high = neighbours(total, dtype)
    assert np.all((found == low) | (found == high))
    deviation = np.sqrt((total - low) * (high - total) / seeds)
    assert np.all(np.abs(found.mean(0) - total) < 5 * deviation + 1e-7 * np.abs(total))


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_step_and_update_are_the_same_bits(dtype):
    p, u = spread(dtype, 2000)
    tx = gradtx.stochastic_rounding(gradtx.scale(1.0))
    first, *others = both_ways(tx, {"w": p}, {"w": u.astype(dtype)}, 3)
    for other in others:
        assert_same_bits(first, other)


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_a_thousand_small_steps_add_up(dtype, rate):
    expected = sgd(rate, -1.0)
    tx = gradtx.sgd(rate)
    stuck, _ = run(tx, dtype, -1.0)
    assert share_of_movement(stuck, expected) > 0.02
    for applied in (False, True):
        x, _ = run(gradtx.stochastic_rounding(tx), dtype, -1.0, applied=applied)
        # 1 %, and five deviations of the mean of 64 x 64 walks.
        walk = np.sqrt(abs(expected - 1) * float(jnp.finfo(dtype).eps) / x.size)
        assert share_of_movement(x, expected) < 0.01 + 5 * walk / abs(expected - 1)


def test_adamw_and_decay_before_rounding():
    tx = gradtx.stochastic_rounding(gradtx.adamw(1e-4, weight_decay=0.5))
    x, _ = run(tx, jnp.bfloat16, 0.01)
    assert share_of_movement(x, adamw(1e-4, 0.01, 0.5)) < 0.01
    x, _ = run(gradtx.stochastic_rounding(gradtx.sgd(1e-3, weight_decay=0.1)), jnp.bfloat16, 0.0)
    assert share_of_movement(x, sgd(1e-3, 0.0, decay=0.1)) < 0.01


def test_bits_depend_on_seed_step_path_and_place_alone():
    p, u = jnp.ones((16, 8), jnp.bfloat16), jnp.full((16, 8), 0.003, jnp.float32)

    def one(seed=0, steps=1, names=("w",)):
        tx = gradtx.stochastic_rounding(gradtx.scale(1.0), seed=seed)
        params, state = dict.fromkeys(names, p), tx.init(dict.fromkeys(names, p))
        for _ in range(steps - 1):
            _, state = tx.step(dict.fromkeys(names, u), state, params)
        return tx.step(dict.fromkeys(names, u), state, params)[0]

    base = np.asarray(one()["w"], np.float32)
    assert len(np.unique(base)) == 2
    np.testing.assert_array_equal(base, np.asarray(one(names=("a", "w", "z"))["w"], np.float32))
    for other in (one(seed=1)["w"], one(steps=2)["w"], one(names=("v",))["v"]):
        assert np.mean(base != np.asarray(other, np.float32)) > 0.3
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    tx = gradtx.stochastic_rounding(gradtx.scale(1.0))
    sharded = {"w": jax.device_put(p, split)}
    new, _ = jax.jit(tx.step)({"w": u}, tx.init(sharded), sharded)
    np.testing.assert_array_equal(base, np.asarray(new["w"], np.float32))


@pytest.mark.parametrize("wrap", [gradtx.stochastic_rounding, gradtx.kahan, gradtx.master_weights])
def test_wide_parameters_are_left_to_the_inner_transformation(wrap):
    params = {"w": jnp.linspace(-1, 1, 6), "c": jnp.asarray([1.0 + 1.0j]), "none": None}
    grads = {"w": jnp.ones(6), "c": jnp.asarray([0.5j]), "none": None}
    inner = gradtx.adamw(0.1)
    found, state = wrap(inner).step(grads, wrap(inner).init(params), params)
    assert_same_bits((found, state.inner_state), inner.step(grads, inner.init(params), params))


@pytest.mark.parametrize("wrap", [gradtx.stochastic_rounding, gradtx.kahan, gradtx.master_weights])
def test_frozen_leaves_keep_every_bit(wrap):
    params = {"w": jnp.ones(3, jnp.bfloat16), "b": jnp.asarray([0.0, -0.0, 3.0], jnp.bfloat16)}
    tx = wrap(gradtx.freeze(gradtx.adamw(0.1), "b"))
    moved, state = params, tx.init(params)
    for _ in range(3):
        moved, state = jax.jit(tx.step)(params, state, moved)
    assert_same_bits(moved["b"], params["b"])
    assert not np.array_equal(moved["w"], params["w"])


@pytest.mark.parametrize("wrap", [gradtx.stochastic_rounding, gradtx.kahan, gradtx.master_weights])
def test_stands_inside_other_wrappers(wrap):
    """Two micro-batches, a step that is skipped and a group of its own give the plain steps."""
    params = {"w": jnp.linspace(0.5, 2, 64).astype(jnp.bfloat16), "b": jnp.ones(2)}
    grads = {"w": jnp.full(64, 0.37, jnp.bfloat16), "b": jnp.ones(2)}
    bad = {**grads, "w": grads["w"].at[3].set(jnp.nan)}
    tx = wrap(gradtx.sgd(1e-3, momentum=0.9))
    expected, state = params, tx.init(params)
    for _ in range(3):
        expected, state = jax.jit(tx.step)(grads, state, expected)

    def after(tx, sequence):
        x, state = params, tx.init(params)
        for g in sequence:
            x, state = jax.jit(tx.step)(g, state, x)
        return x

    assert_same_bits(after(gradtx.accumulate(tx, 2), [grads] * 6), expected)
    assert_same_bits(after(gradtx.skip_nonfinite(tx), [grads, bad, grads, bad, grads]), expected)
    grouped = gradtx.groups([("w", tx)], default=gradtx.sgd(0.1))
    assert_same_bits(after(grouped, [grads] * 3)["w"], expected["w"])
    assert_same_bits(after(gradtx.chain(gradtx.scale(1.0), tx), [grads] * 3), expected)


@pytest.mark.parametrize(
    "wrap, temporaries, state",
    [
        (gradtx.stochastic_rounding, 0.01, 8),
        (gradtx.master_weights, 0.01, 12),
        (gradtx.kahan, 4.01, 10),
    ],
)
def test_memory_of_a_step(wrap, temporaries, state):
    params = [jax.ShapeDtypeStruct((512, 512), jnp.bfloat16)] * 3
    report = gradtx.compile_report(wrap(gradtx.adamw(1e-3)), params)
    assert report.temporary_bytes <= temporaries * report.parameters
    assert report.state_bytes <= state * report.parameters + 100


def test_a_slot_of_integers_has_the_shape_of_its_parameter():
    tx, params = gradtx.kahan(gradtx.sgd(0.1)), {"w": jnp.ones(2, jnp.bfloat16)}
    state = tx.init({"w": params["w"][:1]})
    with pytest.raises(ValueError, match=r"params\['w'\] has shape \(2,\), but in the state it"):
        tx.step(params, state, params)


def test_validation():
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.stochastic_rounding(0.1)
    for seed in (-1, 2**32, 0.5):
        with pytest.raises(ValueError, match="seed must be"):
            gradtx.stochastic_rounding(gradtx.sgd(0.1), seed=seed)
    tx = gradtx.stochastic_rounding(gradtx.sgd(0.1))
    p = jnp.ones(2, jnp.bfloat16)
    with pytest.raises(ValueError, match="stochastic_rounding needs params"):
        tx.update(p, tx.init(p))
