"""What is known of parameters from their arrays, and blocks within trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core.slot import Blocks
from gradtx.memory.leaves import (
    check_on_device,
    divided_as,
    holds_arrays,
    is_in_place,
    known_leaves,
    with_blocks,
)


def test_paths_shapes_and_what_is_not_optimised():
    params = {"a": jnp.ones((2, 3), jnp.bfloat16), "n": jnp.arange(3), "none": None, "x": 1.0}
    leaves = known_leaves(params)
    assert (leaves["a"].path, leaves["a"].shape, leaves["a"].ndim, leaves["a"].size) == (
        "a",
        (2, 3),
        2,
        6,
    )
    assert leaves["a"].dtype == jnp.bfloat16 and leaves["a"].shards == (1, 1)
    assert leaves["n"].dtype is None and leaves["none"].dtype is None
    assert leaves["x"].shape == () and leaves["x"].path == "x"


def test_shards_of_each_axis():
    mesh = jax.make_mesh((2, 2), ("a", "b"), devices=jax.devices()[:4])

    def shards(*spec):
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return known_leaves(jax.device_put(jnp.ones((4, 8)), sharding)).shards

    assert shards() == (1, 1)
    assert shards(None, "a") == (1, 2)
    assert shards("b", "a") == (2, 2)
    assert shards(("a", "b")) == (4, 1)
    split = NamedSharding(mesh, PartitionSpec("a"))
    empty = known_leaves(jax.device_put(jnp.ones((0, 8)), split))
    assert empty.shards == (1, 1)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_tracers_are_divided_as_is_said(kind):
    kinds = (getattr(jax.sharding.AxisType, kind),)
    mesh = jax.sharding.AbstractMesh((4,), ("a",), axis_types=kinds)
    said = jax.ShapeDtypeStruct(
        (4, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "a"))
    )
    plain = jnp.ones((4, 8))

    def traced():
        found = {}
        jax.eval_shape(
            lambda x: found.update(known_leaves({"w": x, "other": x, "less": x[0]})), plain
        )
        return found

    with divided_as({"w": said, "less": said, "n": None}):
        found = traced()
        assert known_leaves({"w": plain})["w"].shards == (1, 1)  # an array says it itself
    assert (found["w"].shards, found["w"].explicit) == ((1, 4), kind == "Explicit")
    assert found["other"].shards == (1, 1) and not found["other"].explicit
    assert found["less"].shards == (1,)  # of another shape, so another array
    assert traced()["w"].shards == (1, 1)


def test_what_is_in_the_hosts_memory_is_refused():
    x = jnp.ones(2)
    check_on_device(x, "w", "quantize_state")
    with pytest.raises(ValueError, match=r"the state of 'w' is in the host's memory"):
        check_on_device(jax.device_put(x, jax.memory.Space.Host), "w", "quantize_state")


def test_blocks_are_put_back_where_a_framework_made_another_container_of_them():
    codes, scales = np.zeros((4, 4), np.int8), np.zeros((4, 1), np.float32)
    leaves = known_leaves({"w": jnp.ones((4, 4)), "b": jnp.ones(4)})
    tree = with_blocks({"w": {"codes": codes, "scales": scales}, "b": np.ones(4)}, leaves)
    assert isinstance(tree["w"], Blocks) and tree["w"].codes is codes
    assert isinstance(tree["b"], np.ndarray)
    foreign = {"w": {"a": np.ones(4), "b": np.ones(4)}, "b": np.ones(4, np.int8)}
    kept = with_blocks(foreign, leaves)
    assert kept["w"] is foreign["w"] and kept["b"] is foreign["b"]
    part = {"w": np.ones((4, 4))}
    assert with_blocks(part, leaves) is part


def test_what_stands_in_the_place_of_a_parameter():
    assert is_in_place(Blocks(np.zeros(2), np.zeros(1)))
    assert is_in_place(None) and is_in_place({})
    assert not is_in_place(np.zeros(2)) and not is_in_place({"w": np.zeros(2)})


def test_whether_arrays_stand_in_the_place_of_parameters():
    leaves = known_leaves({"w": jnp.ones((4, 4)), "b": jnp.ones(4)})
    blocks = Blocks(np.zeros((4, 4), np.int8), np.zeros((4, 1), np.float32))
    assert holds_arrays({"w": blocks, "b": np.ones(4)}, leaves)
    assert holds_arrays({"w": None, "b": np.ones(4)}, leaves)
    assert not holds_arrays({"w": {"m": np.ones((4, 4))}, "b": np.ones(4)}, leaves)
