"""Finding and replacing values by name."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import tree

PARAMS = {"w": jnp.ones((2, 3)), "b": {"count": jnp.ones(2), "none": None}}
Pair = collections.namedtuple("Pair", "left right")


def nested(library):
    adam = library.chain(library.clip(1.0), library.adam(0.1))
    masked = library.masked(adam, {"w": True, "b": False})
    return library.named_chain(("first", masked), ("second", library.sgd(0.1, 0.9)))


STATES = {
    "adam": (gradtx.adam(0.1), optax.adam(0.1)),
    "nested": (nested(gradtx), nested(optax)),
    "scheduled": (
        gradtx.adam(gradtx.linear_schedule(1.0, 0.0, 5)),
        optax.adam(optax.linear_schedule(1.0, 0.0, 5)),
    ),
}
KEYS = ["count", "mu", "nu", "w", "b", "trace", "ScaleByAdamState", "MaskedState", "second", "lr"]


def readable(found):
    return [
        (tuple(map(str, path)), jax.tree.map(np.asarray, jax.tree.leaves(value)))
        for path, value in found
    ]


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("key", KEYS)
def test_as_optax(name, key):
    """On Optax's states and on ours, which have the same names; up to the order."""
    params = PARAMS["w"] if name != "nested" else PARAMS
    ours, theirs = (tx.init(params) for tx in STATES[name])
    expected = readable(optax.tree.get_all_with_path(theirs, key))
    for state in (ours, theirs):
        found = tree.get_all_with_path(state, key)
        assert str(sorted(readable(found), key=str)) == str(sorted(expected, key=str))
        if len(found) > 1:
            with pytest.raises(KeyError):
                optax.tree.get(theirs, key)
            with pytest.raises(KeyError, match=f"'{key}' stands at {len(found)} places"):
                tree.get(state, key)
        else:
            one = optax.tree.get(theirs, key, "default")
            got = tree.get(state, key, "default")
            assert str(readable([((), got)])) == str(readable([((), one)]))
        if found and key.islower():
            new = tree.set(state, **{key: jnp.asarray(7.0)})
            values = tree.get_all_with_path(new, key)
            assert values and all(np.array_equal(value, 7.0) for _, value in values)
            assert type(new) is type(state)


def test_errors_say_what_there_is():
    state = nested(gradtx).init(PARAMS)
    with pytest.raises(KeyError) as error:
        tree.get(gradtx.chain(gradtx.adam(0.1), gradtx.adam(0.1)).init(jnp.ones(2)), "count")
    assert "[0][0]ScaleByAdamState.count, [1][0]ScaleByAdamState.count" in str(error.value)
    with pytest.raises(KeyError) as error:
        tree.set(state, learning_rate=0.1)
    message = str(error.value)
    assert "nothing named 'learning_rate' in the tree" in message
    for name in ("first", "MaskedState", "inner_state", "ScaleByAdamState", "mu", "w", "trace"):
        assert name in message
    with pytest.raises(KeyError, match="nothing named 'count' passes filtering"):
        tree.set(state, lambda path, value: False, count=1)
    with pytest.raises(KeyError, match="the names are: none"):
        tree.set(jnp.ones(2), count=1)
    assert tree.get(state, "learning_rate") is None


def test_filtering():
    state = nested(gradtx).init(PARAMS)

    def of_adam(path, value):
        key = path[-1]
        return isinstance(key, tree.NamedTupleKey) and key.tuple_name == "ScaleByAdamState"

    state = tree.set(state, of_adam, count=jnp.int32(5), mu=None)
    assert tree.get(state, "count", filtering=of_adam) == 5
    assert tree.get(state, "mu", default=3) is None
    assert tree.get(state, "count", 3, lambda path, value: False) == 3
    small = {"a": Pair(1, {"a": 2}), "b": [None, {"a": 3}]}
    assert tree.get(small, "a", filtering=lambda path, value: value == 3) == 3


def test_every_place_is_replaced():
    """Optax's leaves alone what stands in a list or tuple beside a match."""
    small = {"a": 1, "b": ({"a": 2}, [Pair({"a": 3}, None)]), "c": None, "d": {}}
    assert tree.set(small, a=0) == {
        "a": 0,
        "b": ({"a": 0}, [Pair({"a": 0}, None)]),
        "c": None,
        "d": {},
    }
    assert tree.set(small, left=5, c=6)["b"][1] == [Pair(5, None)]
    assert tree.set(small, left=5, c=6)["c"] == 6
    assert optax.tree.set(small, a=0) != tree.set(small, a=0)
    assert tree.set({"a": {"a": 1}}, a=2) == {"a": 2}
    assert small["a"] == 1


def test_paths_and_keys():
    small = {"a": Pair(1, {2: "x"})}
    [(path, value)] = tree.get_all_with_path(small, "left")
    assert path == (jax.tree_util.DictKey("a"), tree.NamedTupleKey("Pair", "left")) and value == 1
    assert tree.get(small, 2) == "x"
    assert tree.get(small, "Pair") is small["a"]
    held = Pair(gradtx.MaskedState(()), None)
    assert tree.get(held, "MaskedState") is held.left is tree.get(held, "left")
    assert tree.get({"a": ()}, "a") == () and tree.get((), "a") is None
    tx = gradtx.sgd(0.1)
    assert tree.get({"tx": tx, "n": None}, "tx") is tx and tree.get({"n": None}, "n", 1) is None


def test_whole_states_are_replaced_by_the_name_of_their_class():
    state = nested(gradtx).init(PARAMS)
    fresh = gradtx.scale_by_adam().init(jnp.ones(2))
    new = tree.set(state, ScaleByAdamState=fresh)
    assert tree.get(new, "ScaleByAdamState") is fresh
    assert tree.get(new, "MaskedState")._fields == ("inner_state",)
    np.testing.assert_array_equal(tree.get(new, "trace")["w"], 0.0)


def test_under_jit():
    @jax.jit
    def halve(state):
        return tree.set(state, count=tree.get(state, "count") // 2)

    state = tree.set(gradtx.adam(0.1).init(jnp.ones(2)), count=jnp.int32(8))
    assert tree.get(halve(state), "count") == 4
