"""Gradients that are scaled on their way back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

TREE = {"a": jnp.asarray([1.0, 2.0]), "b": (jnp.asarray(3.0, jnp.bfloat16), None), "n": 3, "f": max}


def test_values_are_those_that_came_in():
    for scale in (0.0, 0.5, 1.0, jnp.asarray(0.1)):
        out = gradtx.scale_gradient(TREE, scale) if scale else gradtx.scale_gradient(TREE["a"], 0)
        if scale:
            assert out["b"][1] is None and out["n"] == 3 and out["f"] is max
            assert out["b"][0] == 3.0 and out["b"][0].dtype == jnp.bfloat16
            out = out["a"]
        np.testing.assert_array_equal(out, TREE["a"])


def loss(x, scale, library=gradtx):
    return jnp.sum(library.scale_gradient({"x": x}, scale)["x"] ** 3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 0.25, -2.0])
def test_gradients_are_scaled(scale):
    x = jnp.asarray([1.0, 2.0])
    np.testing.assert_array_equal(jax.grad(loss)(x, scale), scale * 3 * x**2)
    np.testing.assert_array_equal(jax.grad(loss)(x, scale), jax.grad(loss)(x, scale, optax))
    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(x, scale), scale * 3 * x**2)
    tangent = jax.jvp(lambda x: loss(x, scale), (x,), (jnp.ones(2),))[1]
    np.testing.assert_array_equal(tangent, jnp.sum(scale * 3 * x**2))
    np.testing.assert_array_equal(jax.grad(loss, argnums=1)(x, jnp.float32(scale)), 0.0)


def test_gradients_keep_their_dtype():
    x = jnp.asarray([1.0, 2.0], jnp.bfloat16)
    grads = jax.grad(loss)(x, jnp.float32(0.5))
    assert grads.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.float32(grads), [1.5, 6.0])


def test_nothing_flows_through_a_scale_of_zero():
    blocked = jax.grad(lambda x: jnp.sum(jnp.sqrt(gradtx.scale_gradient(x, 0.0))))(jnp.zeros(2))
    np.testing.assert_array_equal(blocked, 0.0)
