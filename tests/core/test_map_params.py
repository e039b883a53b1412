"""Mapping over what a state keeps like the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.map_params import map_slots
from gradtx.core.slot import Counter, Nested, Reduced, Slot, kinds
from gradtx.tree import map_params
from tests.examples import EXAMPLES

PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
SPECS = {"w": "spec of w", "b": "spec of b"}
ADAM = gradtx.scale_by_adam


def specs(tx, state, **kwargs):
    kwargs = {"transform_non_params": lambda _: "other"} | kwargs
    return map_params(tx, lambda _, spec: spec, state, SPECS, **kwargs)


def both(ours, theirs, **kwargs):
    expected = optax.tree_map_params(
        theirs,
        lambda _, spec: spec,
        theirs.init(PARAMS),
        SPECS,
        transform_non_params=lambda _: "other",
        **kwargs,
    )
    for tx in (ours, theirs):
        found = specs(tx, tx.init(PARAMS), **kwargs)
        assert jax.tree.leaves_with_path(found) == jax.tree.leaves_with_path(expected)
        assert str(found) == str(expected)


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad", "rmsprop", "adan", "lion", "yogi"])
def test_as_optax(name):
    both(getattr(gradtx, name)(0.1), getattr(optax, name)(0.1))


def test_nested_as_optax():
    def nested(library):
        adam = library.chain(library.trace(0.9), library.adam(library.linear_schedule(1, 0, 5)))
        return library.named_chain(("a", adam), ("b", library.masked(library.adagrad(0.1), True)))

    both(nested(gradtx), nested(optax))


def test_masked():
    tx = gradtx.masked(gradtx.adam(0.1), {"w": True, "b": False})
    mu = specs(tx, tx.init(PARAMS)).inner_state[0].mu
    assert mu == {"w": "spec of w", "b": gradtx.MaskedNode()}
    # With is_leaf, as Optax needs it, f sees the masked nodes.
    kwargs = {"is_leaf": lambda x: isinstance(x, gradtx.MaskedNode)}
    assert specs(tx, tx.init(PARAMS), **kwargs).inner_state[0].mu == SPECS
    integers = gradtx.adam(0.1).init({"w": jnp.ones(2), "b": 3})
    assert specs(gradtx.adam(0.1), integers)[0].mu == {"w": "spec of w", "b": None}


def test_smaller_slots_are_not_like_the_parameters():
    tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
    state = specs(tx, tx.init(PARAMS))
    assert set(jax.tree.leaves(state)) == {"other"}
    state = map_params(tx, lambda x: x + 1, tx.init(PARAMS))
    assert jax.tree.all(jax.tree.map(np.array_equal, state, tx.init(PARAMS)))
    tx = gradtx.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9)
    assert sum(spec != "other" for spec in jax.tree.leaves(specs(tx, tx.init(PARAMS)))) == 2


def counted(state):
    """How many of its fields are like the parameters, counted another way."""
    if not isinstance(state, tuple | dict) or hasattr(state, "_fields"):
        declared = kinds(type(state)) if hasattr(state, "_fields") else {}
        fields = [(kind, getattr(state, name)) for name, kind in declared.items()]
        return sum(
            len(jax.tree.leaves(value)) if isinstance(kind, Slot) else counted(value)
            for kind, value in fields
            if isinstance(kind, Slot | Nested)
        )
    return sum(map(counted, state.values() if isinstance(state, dict) else state))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_public_transformation(name):
    tx = EXAMPLES[name]
    state = jax.eval_shape(tx.init, PARAMS)
    shapes = {"w": (4, 3), "b": (3,)}
    seen = []

    def check(array, shape):
        in_blocks = isinstance(tx, gradtx.quantize_state)  # scales and packed codes are smaller
        assert array.ndim <= len(shape) if in_blocks else array.shape == shape
        seen.append(array)
        return array

    assert jax.tree.structure(map_params(tx, check, state, shapes_as_leaves(shapes))) == (
        jax.tree.structure(state)
    )
    assert len(seen) == counted(state)


class Shape(tuple):
    """A shape that is a leaf."""


def shapes_as_leaves(shapes):
    return {name: Shape(shape) for name, shape in shapes.items()}


class DictAdam:
    """A foreign transformation whose state is of dicts."""

    def init(self, params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return {"count": jnp.zeros((), jnp.int32), "moments": [{"mu": zeros}, zeros], "n": None}

    def update(self, updates, state, params=None):
        return updates, state


def test_foreign_states():
    expected = {"count": "other", "moments": [{"mu": SPECS}, SPECS], "n": None}
    assert specs(DictAdam(), DictAdam().init(PARAMS)) == expected
    assert specs(DictAdam().init, DictAdam().init(PARAMS)) == expected
    tx = gradtx.chain(gradtx.adam(0.1), DictAdam(), gradtx.masked(optax.adam(0.1), True))
    first, second, third = specs(tx, tx.init(PARAMS))
    assert first[0] == gradtx.adam(0.1).init(None)[0]._replace(count="other", mu=SPECS, nu=SPECS)
    assert second == expected
    assert third.inner_state[0].nu == SPECS and third.inner_state[0].count == "other"


def test_results():
    tx = gradtx.adam(0.1)
    state = tx.init(PARAMS)
    ones = map_params(tx, lambda x: x + 1, state)
    np.testing.assert_array_equal(ones[0].mu["w"], 1.0)
    assert ones[0].count is state[0].count
    assert map_params(tx, lambda x: None, state)[0].nu == {"w": None, "b": None}
    assert map_params(tx, lambda x: x, state, transform_non_params=lambda _: None)[0].count is None
    assert gradtx.tree_map_params is map_params
    doubled = jax.jit(lambda s: map_params(tx, lambda x, p: x + p, s, PARAMS))(state)
    np.testing.assert_array_equal(doubled[0].mu["b"], 1.0)
    assert map_params(gradtx.chain(), abs, ()) == ()


class Opaque(NamedTuple):
    moment: jax.Array


def test_errors():
    def init(params):
        return Opaque(jnp.zeros(params["w"].shape))

    with pytest.raises(ValueError, match="init cannot be called with a placeholder"):
        map_params(init, abs, Opaque(jnp.ones(2)))
    with pytest.raises(ValueError, match="a dict stands where it makes a tuple"):
        map_params(optax.adam(0.1), abs, DictAdam().init(PARAMS))


def test_map_slots_tells_what_else_there_is():
    tx = gradtx.chain(gradtx.adafactor(0.1, momentum=0.9), optax.scale_by_adam(), DictAdam())
    like, others = [], []
    map_slots(
        tx,
        lambda place, tree: like.append((place.name, place.slot)),
        tx.init(PARAMS),
        lambda name, kind, tree: others.append((name, kind)),
    )
    # Optax's state has the name and fields of ours.
    of_optax = [("mu", Slot()), ("nu", Slot(nonnegative=True))]
    assert like == [("ema", Slot()), *of_optax, ("mu", None), ("moments", None)]
    assert others == [
        ("count", Counter()),
        ("v_row", Reduced()),
        ("v_col", Reduced()),
        ("v", Reduced()),
        ("count", Counter()),
        ("count", Counter()),
        ("count", None),
        ("n", None),
    ]
