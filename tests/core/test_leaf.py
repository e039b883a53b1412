import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.core.leaf import (
    copy_of,
    full_like,
    is_optimised,
    map_leaves,
    match,
    narrow,
    reduced_zeros_like,
    wide_dtype,
    widen,
    zeros_like,
)
from gradtx.transforms.scale import scale_rule

HALF = jnp.ones(2, jnp.bfloat16)


def add_rule(u, *others, c=0.0):
    return u + sum(others) + c


def slot_rule(u, v, *, c):
    return u * c, v + u


def dtype_rule(u, v, w, *, c):
    assert u.dtype == v.dtype == w.dtype == getattr(c, "dtype", u.dtype)
    return u, v, w


@pytest.mark.parametrize(
    "leaf, expected",
    [
        (1.0, True),
        (jnp.ones(2), True),
        (np.ones(2), True),
        (HALF, True),
        (1j, True),
        (jax.ShapeDtypeStruct((2,), jnp.float16), True),
        (None, False),
        (3, False),
        (True, False),
        ("name", False),
        (jnp.arange(2), False),
        (np.zeros(2, jax.dtypes.float0), False),
        (jax.random.key(0), False),
        (jnp.sin, False),
    ],
)
def test_what_is_optimised(leaf, expected):
    assert is_optimised(leaf) is expected


def test_one_tree_per_result():
    tree = {"a": jnp.ones(2), "b": None}
    assert map_leaves(add_rule, tree, reads=(tree,))["b"] is None
    updates, slot = map_leaves(slot_rule, tree, tree, c=3.0)
    np.testing.assert_array_equal(updates["a"], 3.0)
    np.testing.assert_array_equal(slot["a"], 2.0)


@pytest.mark.parametrize("empty", [{}, [], (), None, {"a": None}, {"a": 3}])
def test_trees_without_arrays(empty):
    assert map_leaves(add_rule, empty, reads=(empty,)) == empty
    assert map_leaves(slot_rule, empty, empty, c=1.0) == (empty, empty)


def test_python_numbers_are_constants_and_arrays_operands():
    kinds = []

    def rule(u, *, number, array, count):
        kinds.append((number, array, count))
        return u

    map_leaves(rule, jnp.ones(2), number=0.999, array=jnp.float32(0.1), count=jnp.int32(3))
    number, array, count = kinds[0]
    assert number == 0.999 and type(number) is float
    assert isinstance(array, jax.core.Tracer) and count.dtype == jnp.float32


@pytest.mark.parametrize("scalar", [np.float64(0.5), np.float32(0.5), jnp.float32(0.5), 0.5, 1])
def test_any_kind_of_scalar(scalar):
    assert map_leaves(add_rule, HALF, c=scalar).dtype == jnp.float32


def test_precision_is_common_and_slots_keep_theirs(x64):
    u, v, w = jnp.ones(2, jnp.float32), HALF, jnp.ones(2, jnp.float64)
    new_u, new_v, new_w = map_leaves(dtype_rule, u, v, w, c=jnp.float32(1.0))
    assert (new_u.dtype, new_v.dtype, new_w.dtype) == (jnp.float64, jnp.bfloat16, jnp.float64)


def test_results_are_not_weakly_typed():
    assert not map_leaves(add_rule, 1.0).weak_type


def test_containers_may_differ_but_paths_may_not():
    tree = {"a": jnp.ones(2), "b": jnp.ones(3)}
    assert len(match(tree, flax.core.freeze(tree), "x", "y")) == 2
    with pytest.raises(ValueError, match=r"x has \['b'\] and y does not; y has \['c'\] and x"):
        match(tree, {"a": jnp.ones(2), "c": jnp.ones(3)}, "x", "y")
    with pytest.raises(ValueError, match=r"x\['b'\] has shape \(3,\), but in y .* \(2,\)"):
        match(tree, {"a": jnp.ones(2), "b": jnp.ones(2)}, "x", "y")


def test_shapes_are_never_broadcast():
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        map_leaves(slot_rule, jnp.ones((2, 3)), jnp.ones(3), c=1.0)


def test_widen_and_narrow():
    tree = {"a": HALF, "b": jnp.arange(2), "c": None, "d": 1.0, "e": jnp.ones(2)}
    wide = widen(tree)
    assert wide["a"].dtype == jnp.float32
    assert wide["b"] is tree["b"] and wide["e"] is tree["e"] and wide["d"] == 1.0
    back = narrow(wide, like=tree)
    assert back["a"].dtype == jnp.bfloat16 and back["e"] is tree["e"]
    struct = widen(jax.ShapeDtypeStruct((2,), jnp.float16))
    assert struct.dtype == jnp.float32
    assert [wide_dtype(jnp.dtype(d)) for d in ("float8_e4m3fn", "float64")] == [
        jnp.float32,
        jnp.dtype("float64"),
    ]


def test_slots():
    params = {"h": HALF, "c": jnp.ones(2, jnp.complex64), "i": jnp.arange(3), "n": None, "f": 1.0}
    slot = zeros_like(params)
    assert slot["h"].dtype == jnp.float32 and slot["c"].dtype == jnp.complex64
    assert slot["i"] is None and slot["n"] is None and slot["f"].shape == ()
    assert zeros_like(params, real=True)["c"].dtype == jnp.float32
    narrow_slot = full_like(params, 0.5, jnp.dtype("bfloat16"))
    assert narrow_slot["h"].dtype == jnp.bfloat16 and narrow_slot["c"].dtype == jnp.complex64
    assert float(narrow_slot["f"]) == 0.5 and not narrow_slot["f"].weak_type


def test_copies():
    params = {
        "h": HALF,
        "s": jnp.ones(2),
        "c": jnp.full(2, 1j, jnp.complex64),
        "i": jnp.arange(3),
        "f": 1.0,
    }
    copy = copy_of(params)
    assert copy["h"].dtype == jnp.float32 and copy["i"] is None and not copy["f"].weak_type
    assert copy["s"].unsafe_buffer_pointer() != params["s"].unsafe_buffer_pointer()
    for key in "hscf":
        np.testing.assert_array_equal(copy[key], np.asarray(params[key]))
    narrow_copy = copy_of(params, jnp.dtype("bfloat16"))
    assert narrow_copy["s"].dtype == jnp.bfloat16 and narrow_copy["c"].dtype == jnp.complex64


def test_batches_of_hyperparameters_are_refused():
    with pytest.raises(ValueError, match=r"c must be a single number, got .* \(2,\).*vmap"):
        map_leaves(add_rule, jnp.ones(2), c=jnp.asarray([0.1, 0.2]))


def test_numpy_float64_is_what_jax_makes_of_it():
    assert zeros_like(np.ones(2)).dtype == jnp.float32
    assert narrow(jnp.ones(2), like=np.ones(2)).dtype == jnp.float32


# Slots whose arrays are smaller than the leaves: norms, rows and columns, lists of vectors.
TREE = {"a": jnp.ones((2, 3)), "b": [jnp.full(4, 2.0), None], "i": jnp.arange(2)}


def sum_rule(u, total, *, c=1.0):
    return u * c, total + jnp.sum(u)


def all_rule(u, v, norm, rows, p):
    return u + p, v + 1, norm + 1, [row + i for i, row in enumerate(rows)]


def reduced_dtype_rule(u, total, flag):
    assert u.dtype == total.dtype == jnp.float32 and flag.dtype == bool
    return u, total + 1.5, ~flag


def growing_rule(u, total):
    return u, total[None] + u


def sums(tree):
    return reduced_zeros_like(tree, lambda shape: ())


def test_one_number_a_leaf():
    updates, totals = map_leaves(sum_rule, TREE, reduced=(sums(TREE),), c=3.0)
    assert jax.tree.structure(totals) == jax.tree.structure(sums(TREE))
    assert (totals["a"], totals["b"][0], totals["b"][1], totals["i"]) == (6.0, 8.0, None, None)
    np.testing.assert_array_equal(updates["a"], 3.0)
    assert updates["i"] is TREE["i"] and updates["b"][1] is None


def test_slots_then_reduced_then_reads():
    tree = {"a": jnp.ones((2, 3)), "n": None}
    rows = reduced_zeros_like(tree, lambda shape: [(axis,) for axis in range(len(shape))])
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
    updates, total, flag = map_leaves(reduced_dtype_rule, u, reduced=(total, jnp.asarray(False)))
    assert (updates.dtype, total.dtype, flag.dtype) == (jnp.float32, jnp.bfloat16, bool)
    assert float(total) == 1.5 and bool(flag)


@pytest.mark.parametrize("empty", [{}, [], None, {"a": None}])
def test_reduced_slots_of_trees_without_arrays(empty):
    assert map_leaves(sum_rule, empty, reduced=(empty,)) == (empty, empty)


def test_containers_may_differ_and_each_keeps_its_own():
    frozen = flax.core.freeze({"w": {"a": jnp.ones(2), "n": None}})
    plain = flax.core.unfreeze(frozen)
    vectors = reduced_zeros_like(frozen, lambda shape: [()])
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
    found = reduced_zeros_like(params, lambda shape: tuple(range(len(shape)))[1:])
    shapes = {k: None if v is None else v.shape for k, v in found.items()}
    assert shapes == {"h": (3,), "c": (), "s": (1,), "f": (), "i": None, "n": None}
    assert {v.dtype for v in jax.tree.leaves(found)} == {np.dtype("float32")}
    assert not any(np.any(v) or v.weak_type for v in jax.tree.leaves(found))
    lists = reduced_zeros_like(params, lambda shape: [(i,) for i in range(len(shape))])
    assert [v.shape for v in lists["h"]] == [(2,), (3,)] and lists["f"] == []
    assert lists["i"] is None
    assert reduced_zeros_like(params["h"], lambda shape: None).shape == (1,)
    abstract = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    assert reduced_zeros_like(abstract, lambda shape: (1,)).shape == (3,)


def test_reduced_zeros_keep_the_sharding_of_their_axes():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        leaf = jax.device_put(jnp.ones((2, 8)), jax.P(None, "x"))
        kinds = [jax.typeof(reduced_zeros_like(leaf, lambda _, a=a: a)) for a in ((0,), (1,), ())]
    assert [kind.sharding.spec for kind in kinds] == [jax.P(None), jax.P("x"), jax.P()]


def test_zeros_with_x64(x64):
    found = reduced_zeros_like([jnp.ones(2, jnp.complex128), np.ones(2)], lambda shape: ())
    assert [v.dtype for v in found] == [jnp.float64] * 2


def test_alike_leaves_are_called_in_blocks_while_traced():
    shapes = [(3,), (2, 2)]
    grads = {f"{i:02}": jnp.full(shapes[i % 2], float(i)) for i in range(50)}
    grads["99"] = jnp.ones(3, jnp.bfloat16)

    def double(tree):
        return map_leaves(scale_rule, tree, step_size=2.0)

    # Of 25 alike, 5 blocks of 5, twice; and the one that has no like.
    assert len(jax.make_jaxpr(double)(grads).eqns) == 11
    jax.tree.map(np.testing.assert_array_equal, jax.jit(double)(grads), double(grads))


def test_blocks_give_each_leaf_its_own_result():
    grads = {f"{i:02}": jnp.full(2, float(i)) for i in range(11)}
    doubled = jax.jit(lambda tree: map_leaves(scale_rule, tree, step_size=2.0))(grads)
    for name, leaf in doubled.items():
        np.testing.assert_array_equal(leaf, [2.0 * int(name)] * 2)
