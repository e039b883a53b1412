import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx


def test_bytes_of_abstract_and_concrete_parameters():
    params = {"w": jax.ShapeDtypeStruct((70_000, 1_000_000), jnp.bfloat16), "b": jnp.zeros(3)}
    assert gradtx.state_bytes(gradtx.lion(0.1), params) == 4 * 70_000_000_003 + 4
    assert gradtx.state_bytes(optax.adam(0.1), {"b": jnp.zeros(3)}) == 28
    keys = {"w": jnp.zeros(3), "key": jax.random.key(0), "act": jnp.tanh, "step": 3}
    assert gradtx.state_bytes(gradtx.add_noise(0.1, 0.1, 0), keys) == 4 + 8
    assert gradtx.state_bytes(gradtx.trace(0.9), keys) == 12
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.state_bytes(3, {})


def test_a_size_or_a_shape_is_no_tree_of_parameters():
    tx = gradtx.adam(0.1)
    for measure in (gradtx.state_bytes, gradtx.describe, gradtx.compile_report):
        for params in (1_000_000, (1000, 1000), {"w": 3}, "w"):
            with pytest.raises(TypeError, match=r"tree of arrays, and .* has none; for a shape"):
                measure(tx, params)
    # A number with a fraction is a parameter, and integers may stand beside some.
    assert gradtx.state_bytes(tx, 3.0) == gradtx.state_bytes(tx, [3.0, 3]) == 4 + 2 * 4
    assert gradtx.state_bytes(tx, {}) == gradtx.state_bytes(tx, {"w": None}) == 4
    assert gradtx.state_bytes(tx, jnp.arange(3)) == 4
