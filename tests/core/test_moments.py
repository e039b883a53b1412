"""Running means of powers of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.test_tree import TREES, assert_same, standard

OTHER = {
    name: jax.tree.map(lambda x: jnp.asarray(x) * 0 + jnp.asarray(2).astype(jnp.result_type(x)), t)
    for name, t in TREES.items()
}
FLOATS = [name for name in TREES if name not in ("integers", "keys")]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("function", ["update_moment", "update_moment_per_elem_norm"])
@pytest.mark.parametrize("order", [1, 2, 3, 2.0])
def test_moments_as_optax(name, function, order):
    args = TREES[name], OTHER[name], 0.9, order
    if function == "update_moment" and order == 2.0 and name == "complex":
        pytest.skip("a float power of a complex number has a branch cut")
    ours = getattr(gradtx, function)(*args)
    with standard():
        assert_same(ours, getattr(optax, function)(*args), rtol=2e-2 if name == "odd" else 1e-5)
    assert getattr(gradtx.tree, function) is getattr(gradtx, function)


@pytest.mark.parametrize("name", FLOATS)
def test_the_rest_as_optax(name):
    rtol = 2e-2 if name == "odd" else 1e-5
    if name != "complex":
        args = TREES[name], OTHER[name], 0.9, 1e-3
        with standard():
            theirs = optax.update_infinity_moment(*args)
        assert_same(gradtx.update_infinity_moment(*args), theirs, rtol)
    for count in (1, 5, jnp.int32(100), jnp.uint8(3)):
        with standard():
            theirs = optax.bias_correction(TREES[name], 0.9, jnp.asarray(count))
        assert_same(gradtx.bias_correction(TREES[name], 0.9, count), theirs, rtol)


def test_correction_is_exact_where_the_naive_one_is_not():
    moment = jnp.float32(1e-4)
    for decay in (0.9999, np.float64(0.9999)):
        np.testing.assert_allclose(gradtx.bias_correction(moment, decay, 1), 1.0, rtol=1e-6)
    low = gradtx.bias_correction(jnp.full(2, 0.3, jnp.bfloat16), 0.999, 7)
    exact = np.float64(jnp.bfloat16(0.3)) / (1 - 0.999**7)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_array_equal(low, jnp.asarray([exact, exact], jnp.bfloat16))


def test_moments_do_not_overflow_and_keep_their_dtype():
    g = jnp.full(2, 400.0, jnp.float16)
    assert np.isfinite(gradtx.update_moment(g, jnp.zeros(2), 0.9, 2)).all()
    kept = gradtx.update_moment(jnp.ones(2), jnp.ones(2, jnp.bfloat16), 0.9, 2)
    assert kept.dtype == jnp.bfloat16


def test_missing_gradients_keep_their_moments():
    moments = {"a": jnp.ones(2), "b": None}
    for function in (gradtx.update_moment, gradtx.update_infinity_moment):
        kept = function({"a": None, "b": None}, moments, 0.9, 2)
        assert kept["a"] is moments["a"] and kept["b"] is None


def test_rates_may_be_traced(x64):
    g, m = jnp.float32(2.0), jnp.float32(1.0)
    found = jax.jit(gradtx.update_moment, static_argnums=3)(g, m, 0.75, 2)
    assert found == 1.75 and found.dtype == jnp.float32
    found = jax.jit(gradtx.bias_correction)(m, 0.75, 1)
    np.testing.assert_allclose(found, 4.0, rtol=1e-6)
    np.testing.assert_allclose(gradtx.bias_correction(jnp.float64(1.0), 0.9, 3), 1 / (1 - 0.9**3))
