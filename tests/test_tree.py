"""Arithmetic on trees: against Optax, and against NumPy where Optax is wrong."""

import collections
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import tree

Pair = collections.namedtuple("Pair", "left right")

TREES = {
    "dict": {"w": jnp.asarray([[1.0, -2.0], [3.0, 0.5]]), "b": jnp.asarray(0.25)},
    "array": jnp.asarray([3.0, -4.0]),
    "odd": {
        "pair": Pair(jnp.asarray([1.5, -2.0], jnp.bfloat16), None),
        "list": [jnp.zeros((0, 3)), (), {}, jnp.asarray([[7.0]], jnp.float16)],
        "none": None,
    },
    "numbers": (1.5, [-2.0, None]),
    "complex": [jnp.asarray([3.0 + 4.0j, -1.0j]), jnp.asarray(2.0 + 0.0j)],
    "integers": {"i": jnp.asarray([[1, -5], [3, 2]]), "n": 4},
    "empty": {"a": {}, "b": [None]},
}
every = pytest.mark.parametrize("name", TREES)


def standard():
    return jax.numpy_dtype_promotion("standard")


def assert_same(ours, theirs, rtol=1e-6):
    """Equal structures, shapes and dtypes; values to within `rtol`."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (jnp.shape(mine), jnp.result_type(mine)) == (
            jnp.shape(other),
            jnp.result_type(other),
        )
        mine, other = (np.asarray(x) for x in (mine, other))
        kind = complex if np.iscomplexobj(mine) else float
        np.testing.assert_allclose(mine.astype(kind), other.astype(kind), rtol=rtol)


def compare(function, *args, **kwargs):
    with standard():
        theirs = getattr(optax.tree, function)(*args, **kwargs)
    assert_same(getattr(tree, function)(*args, **kwargs), theirs)


def test_all_of_optax_is_here():
    names = [name for name in vars(optax.tree) if not name.startswith("_")]
    assert len(names) == 35
    for name in names:
        ours = list(inspect.signature(getattr(tree, name)).parameters.values())
        theirs = list(inspect.signature(getattr(optax.tree, name)).parameters.values())
        assert [(p.name, p.kind) for p in ours] == [(p.name, p.kind) for p in theirs], name
        assert [p.default for p in ours] == [p.default for p in theirs], name
        assert inspect.getdoc(getattr(tree, name))


@every
@pytest.mark.parametrize("function", ["add", "sub", "mul", "div"])
def test_two_trees(name, function):
    x = TREES[name]
    y = jax.tree.map(lambda leaf: leaf + 1 if name != "integers" else leaf * 2, x)
    compare(function, x, y)


@every
def test_elementwise(name):
    x = TREES[name]
    compare("add", x, x, x, x)
    compare("conj", x)
    compare("real", x)
    for scalar in (2, -3) if name == "integers" else (2, -0.5):
        compare("scale", scalar, x)
        compare("add_scale", x, scalar, x)
    if name != "complex":
        compare("clip", x, -1, 2)
        compare("clip", x, max_value=1)
        compare("clip", x)
    for condition in (True, jnp.asarray(False)):
        compare("where", condition, x, jax.tree.map(lambda leaf: leaf * 2, x))


@every
def test_made_like(name):
    x = TREES[name]
    for dtype in (None, jnp.bfloat16, "int32"):
        compare("zeros_like", x, dtype)
        compare("ones_like", x, dtype=dtype)
        compare("full_like", x, 3, dtype)
    compare("batch_shape", x, (2, 3))
    compare("batch_shape", x)
    assert tree.size(x) == optax.tree.size(x)


def test_made_like_shapes_alone():
    shapes = jax.eval_shape(lambda: TREES["dict"])
    assert_same(tree.zeros_like(shapes), optax.tree.zeros_like(shapes))


@every
def test_reductions(name):
    x = TREES[name]
    leaves = [np.asarray(leaf).astype(complex) for leaf in jax.tree.leaves(x)]
    flat = np.concatenate([leaf.ravel() for leaf in leaves] or [np.zeros(0)])
    wide = {"integers": jnp.int32, "complex": jnp.complex64}.get(name, jnp.float32)
    for total in (tree.sum(x), tree.sum(x, True), tree.sum(x, associative_reduction=True)):
        assert name == "empty" or total.dtype == wide
        np.testing.assert_allclose(total, flat.sum(), rtol=1e-6)
    total = tree.vdot(x, jax.tree.map(lambda leaf: leaf * 2, x))
    assert name == "empty" or total.dtype == wide
    np.testing.assert_allclose(total, np.vdot(flat, 2 * flat), rtol=1e-6)
    norms = {None: 2, 1: 1, 2: 2, jnp.inf: np.inf, "inf": np.inf, "infinity": np.inf}
    for ord, exact in norms.items():
        exact = np.linalg.norm(flat, exact) if flat.size else 0.0
        for squared in (False, True):
            norm = tree.norm(x, ord, squared)
            assert (norm.shape, norm.dtype) == ((), jnp.float32)
            np.testing.assert_allclose(norm, exact**2 if squared else exact, rtol=1e-6)
    if name not in ("complex", "empty"):
        assert float(tree.max(x)) == flat.real.max() and float(tree.min(x)) == flat.real.min()
        assert (tree.max(x).dtype == jnp.int32) == (name == "integers")


@pytest.mark.parametrize("name", ["dict", "array", "numbers", "complex"])
def test_reductions_as_optax(name):
    for ord in (None, 1, 2, jnp.inf, "inf"):
        for squared in (False, True):
            compare("norm", TREES[name], ord, squared)
    compare("sum", TREES[name])
    compare("vdot", TREES[name], TREES[name])
    compare("max", TREES[name])
    compare("min", TREES[name])


def test_reductions_of_nothing():
    for nothing in ({}, None, [None], jnp.zeros((0, 3))):
        assert tree.norm(nothing) == tree.norm(nothing, 1) == tree.norm(nothing, "inf") == 0
        assert tree.sum(nothing) == tree.vdot(nothing, nothing) == tree.size(nothing) == 0
        assert (tree.max(nothing), tree.min(nothing)) == (-np.inf, np.inf)


def test_reductions_do_not_overflow():
    half = {"a": jnp.full(4, 300.0, jnp.float16), "b": jnp.full(4, 6e4, jnp.float16)}
    assert not np.isfinite(optax.tree.norm(half))
    exact = np.sqrt(4 * 300.0**2 + 4 * 60000.0**2)
    np.testing.assert_allclose(tree.norm(half), exact, rtol=1e-4)
    np.testing.assert_allclose(tree.norm(half, 2, True), exact**2, rtol=2e-4)
    np.testing.assert_allclose(tree.vdot(half, half), exact**2, rtol=2e-4)
    np.testing.assert_allclose(tree.sum(half), 4 * 60300, rtol=1e-4)
    np.testing.assert_allclose(tree.norm(half, 1), 4 * 60300, rtol=1e-4)
    many = jnp.ones(3000, jnp.bfloat16)
    assert tree.sum(many) == 3000 and tree.norm(many, 1) == 3000
    long = jnp.asarray([2**24 + 1, 5])
    assert int(tree.max({"a": long})) == 2**24 + 1 and int(tree.min([long, -long])) == -(2**24) - 1
    squares = jnp.asarray([2**17, 2**17])
    np.testing.assert_allclose(tree.norm(squares), 2**17.5, rtol=1e-6)


def test_reductions_see_nan():
    for reduce in (tree.sum, tree.max, tree.min, tree.norm, lambda x: tree.norm(x, "inf")):
        assert np.isnan(reduce({"a": jnp.asarray([1.0, np.nan]), "b": jnp.ones(2)}))


def test_mixed_precision_is_summed_in_the_widest(x64):
    mixed = {"a": jnp.ones(2, jnp.float32), "b": jnp.full(2, 1e-12, jnp.float64)}
    for total in (tree.sum(mixed), tree.vdot(mixed, tree.ones_like(mixed)), tree.norm(mixed, 1)):
        assert total.dtype == jnp.float64
        assert float(total) == 2 + 2e-12


def test_refusals():
    with pytest.raises(ValueError, match="ord must be None, 1, 2 or inf, got 3"):
        tree.norm({"a": jnp.ones(2)}, 3)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\)"):
        tree.vdot(jnp.ones(2), jnp.ones(1))
    for function in (tree.add, tree.sub, tree.vdot):
        with pytest.raises(ValueError):
            function({"a": 1.0}, {"b": 1.0})


@every
def test_allclose(name):
    x = TREES[name]
    near = jax.tree.map(lambda leaf: leaf * 1 if name == "integers" else leaf * (1 + 1e-7), x)
    compare("allclose", x, near)
    assert tree.allclose(x, near)
    if name != "empty":
        assert not tree.allclose(x, jax.tree.map(lambda leaf: leaf + 1, x))
        assert tree.allclose(x, jax.tree.map(lambda leaf: leaf + 1, x), atol=1.1)
        assert not tree.allclose(x, jax.tree.map(lambda leaf: leaf * 2, x), rtol=0.4)
    nan = {"a": jnp.asarray([np.nan, 1.0])}
    assert not tree.allclose(nan, nan) and tree.allclose(nan, nan, equal_nan=True)


def test_add_scale_passes_over_none():
    x, y = {"a": jnp.ones(2), "b": None}, {"a": jnp.ones(2), "b": None}
    assert tree.add_scale(x, 2.0, y)["b"] is None
    assert tree.add_scale(x, 2.0, y | {"b": jnp.ones(2)})["b"] is None


def test_casts():
    x = {"a": jnp.ones(2), "b": jnp.asarray([1, 2]), "c": None}
    compare("cast", x, jnp.bfloat16)
    compare("cast", x, None)
    compare("cast_like", x, {"a": jnp.ones(1, jnp.float16), "b": 3.0, "c": None})
    assert tree.cast({"a": 1.0}, "bfloat16")["a"].dtype == jnp.bfloat16


@pytest.mark.parametrize("handler", [None, "promote", "highest", "lowest"])
def test_dtype(handler):
    cases = [{}, TREES["dict"], TREES["complex"], (1.0, None), (1, 2)]
    if handler:
        cases += [TREES["integers"], {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}, (1, 1.0)]
        cases += [(jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.complex64), jnp.int8(1))]
    for case in cases:
        with standard():
            theirs = optax.tree.dtype(case, handler)
        assert tree.dtype(case, handler) == theirs
    half = {"a": jnp.ones(1, jnp.float16), "b": jnp.ones(1, jnp.bfloat16)}
    if handler == "promote":
        assert tree.dtype(half, handler) == jnp.float32
    else:
        words = r"\['a'\] is float16 and \['b'\] is bfloat16" if handler is None else "neither"
        with pytest.raises(ValueError, match=words):
            tree.dtype(half, handler)
    with pytest.raises(ValueError, match="mixed_dtype_handler must be None, 'promote'"):
        tree.dtype({}, "widest")


def test_random():
    key = jax.random.key(3)
    for name in ("dict", "array", "empty"):
        compare("random_like", key, TREES[name])
        compare("random_like", key, TREES[name], jax.random.uniform, jnp.bfloat16)
    compare("random_like", key, TREES["integers"]["i"], jax.random.rademacher, jnp.int32)
    keys, theirs = (library.tree.split_key_like(key, TREES["odd"]) for library in (gradtx, optax))
    assert jax.tree.structure(keys) == jax.tree.structure(TREES["odd"])
    assert_same(*map(tree.unwrap_random_key_data, (keys, theirs)))
    mixed = {"k": key, "a": jnp.ones(2), "n": None}
    assert_same(tree.unwrap_random_key_data(mixed), optax.tree.unwrap_random_key_data(mixed))
    sampled = tree.random_like(
        key, {"a": jnp.ones((3, 2))}, lambda key, shape, dtype: (shape, dtype)
    )
    assert sampled == {"a": ((3, 2), jnp.float32)}


def test_sharded():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = {"a": jax.device_put(jnp.arange(16.0), jax.P("x"))}
        assert float(tree.vdot(x, x)) == float(tree.norm(x, squared=True)) == 1240.0
        assert tree.random_like(jax.random.key(0), x)["a"].sharding == x["a"].sharding


def test_under_jit():
    @jax.jit
    def all_of_them(x):
        return tree.norm(x), tree.sum(x), tree.vdot(x, x), tree.max(x), tree.add_scale(x, 2.0, x)

    norm, total, square, largest, tripled = all_of_them(TREES["array"])
    assert (norm, total, square, largest) == (5.0, -1.0, 25.0, 3.0)
    np.testing.assert_array_equal(tripled, [9.0, -12.0])


def test_states_without_a_memory():
    names = "Scale Clip ClipByGlobalNorm AdaptiveGradClip AddDecayedWeights ScaleByTrustRatio"
    for name in [*names.split(), "NonNegativeParams"]:
        assert getattr(gradtx, f"{name}State") is gradtx.EmptyState
        assert getattr(optax, f"{name}State") is optax.EmptyState
    assert gradtx.init_empty_state(jnp.ones(2)) == gradtx.EmptyState()
