import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.memory.common import (
    LOW,
    SHAPE,
    STEPS,
    adamw,
    assert_same_bits,
    both_ways,
    run,
    sgd,
    share_of_movement,
)

DTYPES = [jnp.int16, jnp.int8, jnp.float16, jnp.float32]
BITS = {"bfloat16": 7, "float16": 10}  # of the mantissa, behind the leading one
LOWEST = {"bfloat16": -100, "float16": -14}  # exponents below count as this one


def spacing(x, dtype):
    """Between the values of a dtype around x, in float64."""
    name = np.dtype(dtype).name
    size = np.maximum(np.abs(np.asarray(x, np.float64)), 2.0 ** LOWEST[name])
    return np.ldexp(1.0, np.frexp(size)[1] - 1 - BITS[name])


def steps_of(kept):
    """Into how many steps a dtype of the compensation divides a spacing."""
    return {"int16": 2**16, "int8": 2**8}.get(np.dtype(kept).name, 1)


def stored(fraction, kept):
    """A number of spacings, as the compensation holds it."""
    kept = np.dtype(kept)
    if kept.kind != "i":
        largest = float(np.finfo(kept).max)
        return np.clip(fraction, -largest, largest).astype(np.float32).astype(kept)
    info = np.iinfo(kept)
    return np.clip(np.rint(fraction * steps_of(kept)), info.min, info.max).astype(kept)


def whole(params, compensation):
    """What parameter and compensation are together."""
    c = np.asarray(compensation, np.float64) / steps_of(compensation.dtype)
    return np.asarray(params, np.float64) + c * spacing(params, params.dtype)


def end_of(tx, dtype, gradient, **how):
    """What 1.0 is, with its compensation, after `run`."""
    x, state = run(tx, dtype, gradient, **how)
    return whole(x.astype(dtype), state.compensation["w"])


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
@pytest.mark.parametrize("kept", DTYPES)
def test_trajectory_is_the_equations(dtype, kept):
    """In float64, the roundings made by NumPy; updates from below the spacing to ten times x."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=500).astype(dtype)
    x[:20] = 0
    grads = rng.normal(size=(20, 500)) * 10.0 ** rng.uniform(-6, 1, size=500)
    grads = (grads * np.maximum(np.abs(x.astype(np.float64)), 1e-3)).astype(dtype)
    tx = gradtx.kahan(gradtx.scale(-0.25), dtype=kept)
    params, state = jnp.asarray(x), tx.init(jnp.asarray(x))
    step, c = jax.jit(tx.step), np.zeros(500)

    def rounded(values, to):
        return np.asarray(values).astype(np.float32).astype(to).astype(np.float64)

    for g in grads:
        params, state = step(jnp.asarray(g), state, params)
        old = x.astype(np.float64)
        y = -0.25 * g.astype(np.float64) + c.astype(np.float64) / steps_of(kept) * spacing(x, dtype)
        y = rounded(y, np.float32)
        update = rounded(rounded(old + y, dtype) - old, dtype)
        x = (old + update).astype(np.float32).astype(dtype)
        new = x.astype(np.float64)
        c = stored((y - (new - old)) / spacing(new, dtype), kept)
        np.testing.assert_array_equal(np.asarray(params), x)
        np.testing.assert_array_equal(np.asarray(state.compensation), c)
    assert np.any(c != 0)


def test_nothing_is_lost_in_float32():
    """Parameter and compensation move as the sum of the updates, large ones too."""
    rng = np.random.default_rng(1)
    params = jnp.asarray(rng.normal(size=1000), jnp.bfloat16)
    tx = gradtx.kahan(gradtx.scale(1.0), dtype=jnp.float32)
    start, total, state = np.asarray(params, np.float64), 0.0, tx.init(params)
    for _ in range(50):
        u = rng.normal(size=1000) * 10.0 ** rng.uniform(-6, 0.5, size=1000)
        u = u.astype(np.float32)
        total = total + u.astype(np.float64)
        updates, state = tx.update(jnp.asarray(u), state, params)
        params = gradtx.apply_updates(params, updates)
    moved = whole(params, state.compensation) - start
    np.testing.assert_allclose(moved, total, atol=2e-5)


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
@pytest.mark.parametrize("kept", [jnp.int16, jnp.int8])
def test_what_a_step_loses_in_integers(dtype, kept):
    """As documented: a unit of the compensation, and of large updates a part."""
    rng = np.random.default_rng(2)
    n = 20_000
    p = jnp.asarray(rng.normal(size=n), dtype)
    p = p.at[: n // 10].set(0)
    old = np.asarray(p, np.float64)
    u = rng.normal(size=n) * 10.0 ** rng.uniform(-6, 1, size=n) * np.where(old == 0, 1, np.abs(old))
    u = u.astype(np.float32)
    tx = gradtx.kahan(gradtx.scale(1.0), dtype=kept)
    params, state = tx.step(jnp.asarray(u), tx.init(p), p)
    new, exact = np.asarray(params, np.float64), old + u.astype(np.float64)
    off = np.abs(whole(params, state.compensation) - exact)
    # Half a unit; a whole one where the lost part is +1/2, which integers just do not hold.
    unit = spacing(new, dtype) / steps_of(kept) + 2.0**-23 * np.abs(exact)
    ratio = new / np.where(old == 0, new, old)
    near = (ratio >= 0.5) & (ratio <= 2)
    assert 0.6 < np.mean(near) < 0.95
    assert np.all(off[near] <= unit[near])
    part = 2.0 ** -BITS[np.dtype(dtype).name]
    assert np.all(off[~near] <= unit[~near] + part * np.abs(u[~near]))


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
@pytest.mark.parametrize("kept", DTYPES)
def test_step_and_update_are_the_same_bits(dtype, kept):
    rng = np.random.default_rng(2)
    p = jnp.asarray(rng.normal(size=2000), dtype)
    g = jnp.asarray(rng.normal(size=2000) * 10.0 ** rng.uniform(-5, 1, size=2000), dtype)
    tx = gradtx.kahan(gradtx.sgd(0.125), dtype=kept)
    first, *others = both_ways(tx, {"w": p}, {"w": g}, 3)
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
        x, state = run(gradtx.kahan(tx), dtype, -1.0, applied=applied)
        together = whole(x.astype(dtype), state.compensation["w"])
        assert share_of_movement(together, expected) < 0.01
        assert np.max(np.abs(x - together)) <= 0.5 * spacing(expected, dtype)


@pytest.mark.parametrize("start", [100.0, 0.01, -1.9])
@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
def test_small_steps_add_up_at_any_scale(dtype, start):
    """As small a part of the parameter as above."""
    rates = np.float32(abs(start)) * np.array([1e-5, 1e-4, 1e-3], np.float32)
    tx = gradtx.kahan(gradtx.scale(1.0))
    params = jnp.full(3, start, dtype)
    first = np.asarray(params, np.float64)

    def body(carry, _):
        return tx.step(jnp.asarray(rates), carry[1], carry[0]), None

    steps = jax.jit(lambda *carry: jax.lax.scan(body, carry, length=STEPS)[0])
    params, state = steps(params, tx.init(params))
    total = STEPS * rates.astype(np.float64)
    moved = whole(params, state.compensation) - first
    np.testing.assert_allclose(moved, total, rtol=0.01)


@pytest.mark.parametrize(
    "dtype, kept, lost",
    [
        (jnp.bfloat16, jnp.int16, 24),
        (jnp.float16, jnp.int16, 27),
        (jnp.bfloat16, jnp.int8, 16),
        (jnp.float16, jnp.int8, 19),
        (jnp.bfloat16, jnp.float16, 20),
        (jnp.float16, jnp.float16, 23),
    ],
)
def test_the_smallest_updates_that_are_not_lost(dtype, kept, lost):
    """As documented: just below this power of two of the parameter, and just above."""
    p = jnp.ones(SHAPE, dtype)
    tx = gradtx.kahan(gradtx.scale(1.0), dtype=kept)
    held = 0.4 if np.dtype(kept).kind == "f" else 0
    state = tx.init({"w": p})
    state = state._replace(compensation={"w": jnp.full(SHAPE, held, kept)})
    for share, moves in ((0.99, False), (1.01, True)):
        u = jnp.full(SHAPE, share * 2.0**-lost, jnp.float32)
        params, new = tx.step({"w": u}, state, {"w": p})
        assert np.all(params["w"] == p)
        assert np.all((new.compensation["w"] != state.compensation["w"]) == moves)


def test_adamw_and_decay_before_rounding():
    tx = gradtx.kahan(gradtx.adamw(1e-3, weight_decay=0.5))
    found = end_of(tx, jnp.bfloat16, 0.01)
    assert share_of_movement(found, adamw(1e-3, 0.01, 0.5)) < 0.01
    tx = gradtx.kahan(gradtx.sgd(1e-3, weight_decay=0.1))
    found = end_of(tx, jnp.bfloat16, 0.0)
    assert share_of_movement(found, sgd(1e-3, 0.0, decay=0.1)) < 0.01
    stuck, _ = run(gradtx.sgd(1e-3, weight_decay=0.1), jnp.bfloat16, 0.0)
    assert np.all(stuck == 1.0)


@pytest.mark.parametrize("kept", [jnp.int16, jnp.float16])
def test_parameters_changed_from_outside_keep_their_values(kept):
    """The compensation is then as large a part of the new spacing: at most half of it."""
    tx = gradtx.kahan(gradtx.scale(1.0), dtype=kept)
    p = jnp.ones(7, jnp.bfloat16)
    _, state = tx.step(jnp.linspace(-3e-3, 3e-3, 7), tx.init(p), p)
    assert np.ptp(np.asarray(state.compensation, np.float64)) > 0
    others = jnp.asarray([1000.0, -0.003, 1.5, -77.0, 1e-8, 1e20, 0.0], jnp.bfloat16)
    moved, kept_state = tx.step(jnp.zeros(7), state, others)
    np.testing.assert_array_equal(moved[:-1], others[:-1])
    np.testing.assert_array_equal(kept_state.compensation[:-1], state.compensation[:-1])


@pytest.mark.parametrize("dtype", LOW.values(), ids=LOW)
@pytest.mark.parametrize("kept", [*DTYPES, jnp.bfloat16])
def test_all_stays_finite(dtype, kept):
    """Of parameters and updates of every size, what cancels too, for as long as the sum fits."""
    largest = float(jnp.finfo(dtype).max) / 8
    sizes = [0.0, 2e-45, 1e-38, 1e-30, 6e-8, 1e-4, 1.003, 30100.0, 1e30]
    sizes = np.array([s for s in sizes if s < largest] + [largest])
    values = np.concatenate([sizes, -sizes])
    p, u = (m.ravel().astype(np.float32) for m in np.meshgrid(values, values))
    tx = gradtx.kahan(gradtx.scale(1.0), dtype=kept)
    params = jnp.asarray(p, dtype)
    state = tx.init(params)
    for update in (u, -u, 0 * u, u):
        params, state = tx.step(jnp.asarray(update), state, params)
        for x in (params, state.compensation):
            assert np.all(np.isfinite(np.asarray(x, np.float64)))


@pytest.mark.parametrize("kept", DTYPES)
def test_derivatives_go_through_rounding(kept):
    """As through a cast: of lr * g by lr, the sum of g."""
    params, g = jnp.ones(3, jnp.bfloat16), jnp.asarray([1.0, -2.0, 4.0])

    def moved(rate):
        tx = gradtx.kahan(gradtx.scale(rate), dtype=kept)
        updates, _ = tx.update(g, tx.init(params), params)
        return jnp.sum(updates.astype(jnp.float32))

    assert jax.grad(moved)(0.5) == jax.jit(jax.grad(moved))(0.5) == 3.0


def test_the_compensation_is_a_slot_of_narrow_parameters():
    params = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    assert gradtx.kahan(gradtx.sgd(0.1)).init(params).compensation["w"].dtype == jnp.int16
    state = gradtx.kahan(gradtx.sgd(0.1), dtype=jnp.float32).init(params)
    assert state.compensation["w"].dtype == jnp.float32 and state.compensation["b"] is None


def test_bytes_per_parameter():
    params = jnp.ones(1000, jnp.bfloat16)
    for dtype, expected in ((jnp.int16, 2), (jnp.int8, 1), (jnp.float32, 4)):
        tx = gradtx.kahan(gradtx.scale(1.0), dtype=dtype)
        assert gradtx.state_bytes(tx, params) == expected * 1000


@pytest.mark.parametrize(
    "kept, how, rate, share",
    [
        (jnp.int16, {}, 1e-5, 1e-3),
        (jnp.float32, {"rounding": "stochastic"}, 1e-5, 5e-3),
        (jnp.float32, {"rounding": "stochastic"}, 1e-3, 1e-3),
        (jnp.float32, {}, 1e-3, 1e-3),
    ],
)
def test_quantised(kept, how, rate, share):
    """Many sizes of steps share a block: their sum is right; int16 stays as it is."""
    rng = np.random.default_rng(3)
    sign = rng.choice([-1, 1], SHAPE)
    u = (sign * 10.0 ** rng.uniform(-0.5, 0.5, SHAPE)).astype(np.float32)
    p = jnp.asarray(rng.uniform(1, 2, SHAPE), jnp.bfloat16)
    tx = gradtx.quantize_state(gradtx.kahan(gradtx.scale(rate), dtype=kept), min_size=1, **how)

    def body(carry, _):
        return tx.step(jnp.asarray(u), carry[1], carry[0]), None

    steps = jax.jit(lambda *carry: jax.lax.scan(body, carry, length=STEPS)[0])
    params, state = steps(p, tx.init(p))
    moved = whole(params, tx.decoded(state, params).compensation) - np.asarray(p, np.float64)
    assert abs(np.sum(moved * sign) / (STEPS * np.float32(rate) * np.sum(np.abs(u))) - 1) < share
    size = gradtx.state_bytes(tx, p) / p.size
    assert size < (1.03 if kept == jnp.float32 else 2.01)


def test_other_dtypes_may_store_it():
    """`slot_dtypes` keeps the same numbers of spacings, as floats."""
    p, g = jnp.ones(64, jnp.bfloat16), jnp.linspace(-1, 1, 64)
    inner = gradtx.kahan(gradtx.sgd(1e-3))
    tx = gradtx.slot_dtypes(inner, {"compensation": jnp.float16})
    found, state = tx.step(g, tx.init(p), p)
    expected, own = inner.step(g, inner.init(p), p)
    np.testing.assert_array_equal(found, expected)
    fractions = np.asarray(own.compensation, np.float64) / 2**16
    np.testing.assert_allclose(np.asarray(state.compensation, np.float64), fractions, atol=3e-4)


def test_validation():
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.kahan(0.1)
    for dtype, shown in ((jnp.int32, "int32"), (bool, "bool"), (None, "None"), ("some", "'some'")):
        message = f"dtype must be int16, int8 or a floating dtype, got {shown}"
        with pytest.raises(TypeError, match=message):
            gradtx.kahan(gradtx.sgd(0.1), dtype=dtype)
    assert gradtx.kahan(gradtx.sgd(0.1), dtype="int8") == gradtx.kahan(
        gradtx.sgd(0.1), dtype=jnp.int8
    )
    tx = gradtx.kahan(gradtx.sgd(0.1))
    p = jnp.ones(2, jnp.bfloat16)
    with pytest.raises(ValueError, match="kahan needs params"):
        tx.update(p, tx.init(p))
    with pytest.raises(ValueError, match=r"params\['w'\] has dtype bfloat16, but the state has"):
        tx.step({"w": p}, tx.init({"w": jnp.ones(2)}), {"w": p})
