"""The conformance suite: every law for every public transformation.

The costly laws run on the first example of each; `pytest -m full` runs them on all others, and
the laws that compile on trees of odd leaves too.
"""

import re

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.core.leaf import is_optimised
from gradtx.core.numerics import abs_sq
from gradtx.testing import LAWS, check_transformation
from tests.examples import EXAMPLES, public_transformations

PLAIN = {"w": jnp.linspace(-1.0, 1.0, 32).reshape(8, 4), "b": jnp.ones(4, jnp.bfloat16)}
ODD_LEAVES = {
    "w": {
        "matrix": jnp.linspace(-1.0, 1.0, 32).reshape(8, 4),
        "bfloat16": jnp.linspace(0.5, 2.0, 8, dtype=jnp.bfloat16),
        "float16": jnp.linspace(0.5, 2.0, 8, dtype=jnp.float16),
        "complex": jnp.asarray([1.0 + 2.0j, -0.5j]),
    },
    "b": {
        "scalar": jnp.asarray(0.5),
        "empty": jnp.zeros((0, 3)),
        "five": jnp.ones((2, 1, 2, 1, 2)),
        "none": None,
    },
}
EMPTY = {"w": {}, "b": []}


def half_square(params):
    """A loss of any tree."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(params) if is_optimised(x)]
    return sum((0.5 * jnp.sum(abs_sq(x)).astype(jnp.float32) for x in leaves), jnp.float32(0))


# What any transformation may ask for.
EXTRA = {"value": 1.0, "value_fn": half_square}


def test_every_public_transformation_has_an_example():
    built = {name.rpartition("-")[0] for name in EXAMPLES}
    assert built == set(public_transformations())


COSTLY = {
    "scans",
    "compiles_once",
    "shards",
    "keeps_explicit_shardings",
    "maps_over_hyperparameters",
    "differentiates",
}
CASES = [
    pytest.param(name, law, marks=[pytest.mark.full] * (law in COSTLY and name[-2:] != "-0"))
    for name in EXAMPLES
    for law in LAWS
]


@pytest.mark.parametrize("name, law", CASES)
def test_law(name, law):
    check_transformation(EXAMPLES[name], PLAIN, laws=[law], **EXTRA)


@pytest.mark.parametrize("name", EXAMPLES)
def test_odd_leaves(name):
    laws = [
        "has_a_type_fixed_point",
        "initialises_abstractly",
        "keeps_still_without_gradient",
        "passes_over_other_leaves",
    ]
    check_transformation(EXAMPLES[name], ODD_LEAVES, laws=laws, **EXTRA)


@pytest.mark.full
@pytest.mark.parametrize("name", EXAMPLES)
def test_odd_leaves_compiled(name):
    laws = ["says_what_its_state_is", "never_aliases", "is_the_same_under_jit"]
    check_transformation(EXAMPLES[name], ODD_LEAVES, laws=laws, **EXTRA)


def doubles():
    return {
        "w": {"double": jnp.ones((4, 2), jnp.float64), "complex": jnp.ones(2, jnp.complex128)},
        "b": {"single": jnp.ones(2, jnp.float32), "half": jnp.ones(2, jnp.float16)},
    }


@pytest.mark.parametrize("name", EXAMPLES)
def test_types_with_x64(name, x64):
    laws = ["has_a_type_fixed_point", "initialises_abstractly"]
    check_transformation(EXAMPLES[name], doubles(), laws=laws, **EXTRA)


@pytest.mark.full
@pytest.mark.parametrize("name", EXAMPLES)
def test_steps_with_x64(name, x64):
    check_transformation(EXAMPLES[name], doubles(), laws=["is_the_same_under_jit"], **EXTRA)


@pytest.mark.parametrize("name", EXAMPLES)
def test_empty_tree(name):
    tx = EXAMPLES[name]
    state = tx.init(EMPTY)
    updates, new_state = tx.update(EMPTY, state, EMPTY, grad=EMPTY, **EXTRA)
    assert updates == EMPTY
    assert jax.tree.structure(new_state) == jax.tree.structure(state)


@pytest.mark.parametrize("name", EXAMPLES)
def test_repr_rebuilds(name):
    tx = EXAMPLES[name]
    if re.search("lambda|=kind|matrices", repr(tx)):  # functions have no such name there
        assert type(tx).__name__ in repr(tx)
    else:
        assert eval(repr(tx), vars(gradtx)) == tx
