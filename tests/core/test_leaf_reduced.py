"""Slots whose arrays are smaller than the leaves: norms, rows and columns, lists of vectors."""

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core.leaf import map_leaves, shaped_zeros_like

TREE = {"a": jnp.ones((2, 3)), "b": [jnp.full(4, 2.0), None], "i": jnp.arange(2)}


def sum_rule(u, total, *, c=1.0):
    return u * c, total + jnp.sum(u)


def all_rule(u, v, norm, rows, p):
    return u + p, v + 1, norm + 1, [row + i for i, row in enumerate(rows)]


def dtype_rule(u, total, flag):
    assert u.dtype == total.dtype == jnp.float32 and flag.dtype == bool
    return u, total + 1.5, ~flag


def growing_rule(u, total):
    return u, total[None] + u


def sums(tree):
    return shaped_zeros_like(tree, lambda shape: ())


def test_one_number_a_leaf():
    updates, totals = map_leaves(sum_rule, TREE, reduced=(sums(TREE),), c=3.0)
    assert jax.tree.structure(totals) == jax.tree.structure(sums(TREE))
    assert (totals["a"], totals["b"][0], totals["b"][1], totals["i"]) == (6.0, 8.0, None, None)
    np.testing.assert_array_equal(updates["a"], 3.0)
    assert updates["i"] is TREE["i"] and updates["b"][1] is None


def test_slots_then_reduced_then_reads():
    tree = {"a": jnp.ones((2, 3)), "n": None}
    rows = shaped_zeros_like(tree, lambda shape: [(size,) for size in shape])
    out = map_leaves(all_rule, tree, tree, reduced=(sums(tree), rows), reads=(tree,))
    update, v, norm, rows = out
    np.testing.assert_array_equal(update["a"], 2.0)
    np.testing.assert_array_equal(v["a"], 2.0)
    assert norm == {"a": 1.0, "n": None} and rows["n"] is None
    assert [row.tolist() for row in rows["a"]] == [[0.0, 0.0], [1.0, 1.0, 1.0]]


def test_a_leaf_without_a_gradient_keeps_what_it_has():
    totals = {"a": jnp.ones(()), "b": jnp.ones(())}
    _, totals = map_leaves(sum_rule, {"a": None, "b": jnp.ones(2)}, reduced=(totals,))
    assert totals == {"a": 1.0, "b": 3.0}


def test_reduced_slots_keep_their_dtype():
    u, total = jnp.ones(2, jnp.bfloat16), jnp.zeros((), jnp.bfloat16)
    updates, total, flag = map_leaves(dtype_rule, u, reduced=(total, jnp.asarray(False)))
    assert (updates.dtype, total.dtype, flag.dtype) == (jnp.float32, jnp.bfloat16, bool)
    assert float(total) == 1.5 and bool(flag)


@pytest.mark.parametrize("empty", [{}, [], None, {"a": None}])
def test_trees_without_arrays(empty):
    assert map_leaves(sum_rule, empty, reduced=(empty,)) == (empty, empty)


def test_containers_may_differ_and_each_keeps_its_own():
    frozen = flax.core.freeze({"w": {"a": jnp.ones(2), "n": None}})
    plain = flax.core.unfreeze(frozen)
    vectors = shaped_zeros_like(frozen, lambda shape: [()])
    assert type(vectors) is flax.core.FrozenDict

    def add_rule(u, totals):
        return u, [totals[0] + jnp.sum(u)]

    updates, totals = map_leaves(add_rule, plain, reduced=(vectors,))
    assert type(updates) is dict
    assert jax.tree.structure(totals) == jax.tree.structure(vectors)
    assert float(totals["w"]["a"][0]) == 2.0


def test_structures_may_not_differ():
    with pytest.raises(
        ValueError, match=r"updates has \['c'\] and the state does not; the state has \['b'\] and"
    ):
        map_leaves(
            sum_rule,
            {"a": jnp.ones(2), "c": jnp.ones(2)},
            reduced=({"a": jnp.zeros(()), "b": jnp.zeros(())},),
        )
    with pytest.raises(ValueError, match=r"updates\['i'\] is an array, but the state .* nothing"):
        map_leaves(sum_rule, TREE | {"i": jnp.ones(2)}, reduced=(sums(TREE),))


def test_a_rule_may_not_change_the_shape_of_a_slot():
    """A vector of means against a matrix of gradients would broadcast."""
    with pytest.raises(ValueError, match=r"state of updates\['w'\] has shapes .*\(2,\).*\(3, 2\)"):
        map_leaves(growing_rule, {"w": jnp.ones((3, 2))}, reduced=({"w": jnp.zeros(2)},))


def test_zeros():
    params = {
        "h": jnp.ones((2, 3), jnp.bfloat16),
        "c": jnp.ones(2, jnp.complex64),
        "s": jax.ShapeDtypeStruct((4, 1), jnp.float32),
        "f": 1.0,
        "i": jnp.arange(3),
        "n": None,
    }
    found = shaped_zeros_like(params, lambda shape: shape[1:])
    shapes = {k: None if v is None else v.shape for k, v in found.items()}
    assert shapes == {"h": (3,), "c": (), "s": (1,), "f": (), "i": None, "n": None}
    assert {v.dtype for v in jax.tree.leaves(found)} == {np.dtype("float32")}
    assert not any(np.any(v) or v.weak_type for v in jax.tree.leaves(found))
    lists = shaped_zeros_like(params, lambda shape: [(n,) for n in shape])
    assert [v.shape for v in lists["h"]] == [(2,), (3,)] and lists["f"] == []
    assert lists["i"] is None


def test_zeros_with_x64(x64):
    found = shaped_zeros_like([jnp.ones(2, jnp.complex128), np.ones(2)], lambda shape: ())
    assert [v.dtype for v in found] == [jnp.float64] * 2
