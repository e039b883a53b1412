"""Parameters in dataclasses, NamedTuples, lists and plain tuples."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.testing import check_transformation


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: jax.Array
    b: jax.Array | None


class Point(NamedTuple):
    x: jax.Array
    y: jax.Array


TREES = {
    "array": jnp.ones((8, 2)),
    "scalar": jnp.ones(()),
    "dataclass": Layer(jnp.ones((8, 2)), None),
    "namedtuple": Point(jnp.ones(8), jnp.ones(3)),
    "tuple": (jnp.ones(8), (jnp.ones(3), ())),
    "list": [jnp.ones(8), [None, {"deep": jnp.ones(3)}]],
}


# The laws in which it matters what holds the leaves; tests/properties has all of them.
STRUCTURAL = [
    "says_what_its_state_is",
    "has_a_type_fixed_point",
    "initialises_abstractly",
    "never_aliases",
    "is_the_same_under_jit",
    "scans",
    "passes_over_other_leaves",
    "tells_what_is_wrong",
]


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize(
    "tx",
    [gradtx.adamw(0.1), gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1, 0.9))],
    ids=["adamw", "chain"],
)
def test_laws_hold(tx, tree):
    laws = None if tree == "dataclass" else STRUCTURAL
    check_transformation(tx, TREES[tree], laws=laws)


def test_python_floats():
    tx = gradtx.adam(0.1)
    params = {"x": 1.0}
    params, _ = tx.step({"x": 0.5}, tx.init(params), params)
    assert abs(float(params["x"]) - 0.9) < 1e-6
