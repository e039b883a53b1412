import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def test_the_sum_is_rounded_once_to_the_dtype_of_params():
    params = jnp.ones(2, jnp.bfloat16)
    moved = gradtx.apply_updates(params, jnp.asarray([2.0**-8, 2.0**-7]))
    assert moved.dtype == jnp.bfloat16
    np.testing.assert_array_equal(moved.astype(jnp.float32), [1.0, 1.0 + 2.0**-7])


def test_other_leaves_stay():
    params = {"w": jnp.ones(2), "step": jnp.int32(3), "frozen": jnp.ones(2), "none": None}
    updates = {"w": jnp.ones(2), "step": jnp.int32(1), "frozen": None, "none": None}
    moved = gradtx.apply_updates(params, updates)
    np.testing.assert_array_equal(moved["w"], 2.0)
    assert moved["step"] is params["step"] and moved["frozen"] is params["frozen"]
    assert moved["none"] is None


def test_complex_and_double(x64):
    params = {"c": jnp.ones(1, jnp.complex128), "d": jnp.ones(1, jnp.float64)}
    moved = gradtx.apply_updates(params, {"c": jnp.asarray([1j]), "d": jnp.full(1, 1e-12)})
    assert moved["c"].dtype == jnp.complex128 and moved["c"][0] == 1 + 1j
    assert float(moved["d"][0]) == 1 + 1e-12


def test_shapes_and_structures_must_agree():
    with pytest.raises(ValueError, match=r"params\['w'\] has shape \(2,\), but in updates"):
        gradtx.apply_updates({"w": jnp.ones(2)}, {"w": jnp.ones((2, 1))})
    with pytest.raises(ValueError, match=r"params has \['w'\] and updates does not"):
        gradtx.apply_updates({"w": jnp.ones(2)}, {})


def test_incremental_update():
    new, old = {"a": jnp.full(2, 3.0, jnp.bfloat16)}, {"a": jnp.ones(2, jnp.bfloat16)}
    mixed = gradtx.incremental_update(new, old, 0.25)["a"]
    assert mixed.dtype == jnp.bfloat16
    np.testing.assert_array_equal(mixed.astype(jnp.float32), 1.5)


@pytest.mark.parametrize("steps", range(5))
def test_periodic_update(steps):
    new = {
        "a": jnp.full(2, 3.0, "float32"),
        "n": jnp.int32(7),
        "k": jax.random.key(1),
        "f": max,
        "none": None,
    }
    old = {"a": jnp.ones(2, "bfloat16"), "n": 5, "k": jax.random.key(0), "f": max, "none": None}
    expected = new if steps % 3 == 0 else old
    for count in (steps, jnp.int32(steps), np.int64(steps)):
        out = gradtx.periodic_update(new, old, count, 3)
        assert out["a"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.float32(out["a"]), np.float32(expected["a"]))
        assert out["n"] == expected["n"] and out["k"] == expected["k"]
        assert out["f"] is max and out["none"] is None
    jitted = jax.jit(gradtx.periodic_update)(new["a"], new["a"] + 1, steps, 3)
    np.testing.assert_array_equal(jitted, expected["a"] * 0 + (3.0 if steps % 3 == 0 else 4.0))


def test_periodic_update_of_other_shapes():
    with pytest.raises(ValueError, match=r"old_tensors\['w'\] has shape \(2,\)"):
        gradtx.periodic_update({"w": jnp.ones((2, 1))}, {"w": jnp.ones(2)}, 1, 2)
