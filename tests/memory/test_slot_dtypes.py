import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.memory.common import assert_same_bits

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": jnp.ones(3, jnp.bfloat16)}
DTYPES = {"mu": jnp.bfloat16, "nu": jnp.float16}


def gradients(steps=5, shape=(40,)):
    return np.random.default_rng(0).normal(size=(steps, *shape)).astype(np.float32)


def test_computes_in_float32_and_stores_narrow():
    """Adam in float64, its slots rounded by NumPy after each step."""
    tx = gradtx.slot_dtypes(gradtx.adam(0.01), DTYPES)
    params = jnp.zeros(40)
    state = tx.init(params)
    x, m, v = np.zeros(40), np.zeros(40), np.zeros(40)
    for t, g in enumerate(gradients(), 1):
        params, state = jax.jit(tx.step)(jnp.asarray(g), state, params)
        m = 0.9 * m + 0.1 * g.astype(np.float64)
        v = 0.999 * v + 0.001 * g.astype(np.float64) ** 2
        x = x - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        m, v = (a.astype(d).astype(np.float64) for a, d in ((m, jnp.bfloat16), (v, np.float16)))
        assert state[0].mu.dtype == jnp.bfloat16 and state[0].nu.dtype == jnp.float16
        # A tie in float64 may fall to the other side in float32: one spacing, in few entries.
        for found, expected, eps in ((state[0].mu, m, 2.0**-7), (state[0].nu, v, 2.0**-10)):
            found = np.asarray(found, np.float64)
            np.testing.assert_allclose(found, expected, rtol=eps)
            assert np.mean(found == expected) > 0.9
        np.testing.assert_allclose(params, x, rtol=1e-4, atol=1e-5)
        x, m, v = (np.asarray(a, np.float64) for a in (params, state[0].mu, state[0].nu))


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
@pytest.mark.parametrize(
    "tx, names",
    [
        (gradtx.sgd(0.1, momentum=0.9), {"trace"}),
        (gradtx.lion(0.1), {"mu"}),
        (gradtx.adan(0.1), {"m", "v", "n", "g"}),
        (gradtx.accumulate(gradtx.adam(0.1), 2), {"acc_grads", "mu", "nu"}),
        (
            gradtx.groups([("w", gradtx.adam(0.1))], default=gradtx.sgd(0.1, 0.9)),
            {"mu", "nu", "trace"},
        ),
        (gradtx.chain(optax.scale_by_adam(), gradtx.scale(-0.1)), {"mu", "nu"}),
        (optax.adamw(0.1), {"mu", "nu"}),
    ],
)
def test_any_transformation(tx, names):
    with pytest.raises(ValueError, match="dtypes names the slot 'none', which") as raised:
        gradtx.slot_dtypes(tx, {"none": jnp.bfloat16}).init(PARAMS)
    assert all(repr(name) in str(raised.value) for name in names)
    wrapped = gradtx.slot_dtypes(tx, dict.fromkeys(names, jnp.bfloat16))
    state = wrapped.init(PARAMS)
    narrow = [x for x in jax.tree.leaves(state) if x.dtype == jnp.bfloat16]
    wide = [x for x in jax.tree.leaves(state) if x.dtype == jnp.float32 and x.ndim]
    assert len(narrow) >= len(names) and not wide
    step = jax.jit(wrapped.step)
    params = PARAMS
    for _ in range(2):
        params, new = step(PARAMS, state, params)
        assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
        state = new
    updates, new = wrapped.update(PARAMS, state, params)
    assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
    assert updates["b"].dtype == jnp.bfloat16
    assert not np.array_equal(params["w"], PARAMS["w"])


def test_without_names_it_is_the_inner_transformation():
    tx = gradtx.adamw(0.1)
    wrapped = gradtx.slot_dtypes(tx, {})
    one, other = (t.step(PARAMS, t.init(PARAMS), PARAMS) for t in (tx, wrapped))
    assert_same_bits(one, other)


def test_float32_slots_are_as_without():
    tx = gradtx.adam(0.1, mu_dtype=jnp.bfloat16)
    state = gradtx.slot_dtypes(tx, {"mu": jnp.float32}).init(PARAMS)
    assert state[0].mu["w"].dtype == jnp.float32
    assert_same_bits(state, gradtx.adam(0.1).init(PARAMS))


def test_what_is_inside_sees_float32():
    seen = []

    def update(updates, state, params=None):
        seen.append(state["x"].dtype)
        return updates, {"x": state["x"] + updates}

    inner = gradtx.GradientTransformation(lambda params: {"x": params}, update)
    tx = gradtx.slot_dtypes(inner, {"x": jnp.bfloat16})
    params = jnp.ones(2)
    tx.step(params, tx.init(params), params)
    _, state = tx.update(params, tx.init(params), params)
    assert seen == [jnp.float32, jnp.float32] and state["x"].dtype == jnp.bfloat16


def test_complex_slots_stay():
    params = {"c": jnp.asarray([1.0 + 1.0j])}
    state = gradtx.slot_dtypes(gradtx.adam(0.1), DTYPES).init(params)
    assert state[0].mu["c"].dtype == jnp.complex64 and state[0].nu["c"].dtype == jnp.float16


def test_looks_ahead_with_its_wide_state():
    inner = gradtx.nesterov_momentum(0.1, 0.9, lookahead=True)
    tx = gradtx.slot_dtypes(inner, {"trace": jnp.bfloat16})
    params = jnp.ones(3)
    params, state = tx.step(params, tx.init(params), params)
    np.testing.assert_allclose(tx.lookahead_point(state, params), 0.9 - 0.09, rtol=1e-3)


def test_no_temporaries():
    params = [jax.ShapeDtypeStruct((512, 512), jnp.float32)] * 3
    report = gradtx.compile_report(gradtx.slot_dtypes(gradtx.adamw(1e-3), DTYPES), params)
    assert report.temporary_bytes < 0.01 * report.parameters
    assert report.state_bytes < 4 * report.parameters + 100


def test_validation():
    tx = gradtx.sgd(0.1)
    for dtypes, words in (
        (jnp.bfloat16, "dtypes must be a dict from names to dtypes, got"),
        ({0: jnp.bfloat16}, "dtypes must be a dict from names to dtypes, got"),
        ({"mu": jnp.int8}, r"dtypes\['mu'\] must be a floating dtype, got int8"),
        ({"mu": "half a float"}, r"dtypes\['mu'\] must be a floating dtype, got 'half a float'"),
        ({"mu": None}, "must be a dict from names to dtypes"),
    ):
        with pytest.raises(TypeError, match=words):
            gradtx.slot_dtypes(tx, dtypes)
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.slot_dtypes(0.1, {})
