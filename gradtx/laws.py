"""What every transformation keeps: one function a law, with what it holds as its docstring.

Each is called as `law(tx, params, grads, **extra_args)` and raises an `AssertionError` where `tx`
breaks it. `gradtx.testing.check_transformation` runs them.
"""

from __future__ import annotations

import functools
import math
import pickle
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.apply import apply_updates
from gradtx.core.compose import chain
from gradtx.core.leaf import is_optimised
from gradtx.core.slot import (
    Blocks,
    Boolean,
    Counter,
    History,
    Kind,
    NamedNumbers,
    Nested,
    Number,
    Numbers,
    Opaque,
    RandomKey,
    Reduced,
    Slot,
    is_state,
    kinds,
)
from gradtx.core.transformation import EmptyState, GradientTransformation
from gradtx.core.value import Value, is_plain_callable
from gradtx.transforms.scale import scale

Law = Callable[..., None]

# What the fields of these kinds hold.
_DTYPES: dict[type[Kind], Any] = {
    Boolean: np.bool_,
    Counter: np.int32,
    Number: np.floating,
    RandomKey: jax.dtypes.prng_key,
}


def is_a_value(tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any) -> None:
    """It unpacks into its pair, compares and hashes by value, and survives copying."""
    del params, grads, extra_args
    init, update = tx
    assert init == tx.init and update == tx.update, "it does not unpack into (init, update)"
    treedef: Any
    leaves, treedef = jax.tree.flatten(tx)
    copy = jax.tree.unflatten(treedef, leaves)
    assert copy == tx and hash(copy) == hash(tx), "flattening and unflattening changes it"
    assert jax.tree.structure(copy) == treedef, "its structure changes when it is copied"
    assert all(isinstance(leaf, int | float) or hasattr(leaf, "dtype") for leaf in leaves), (
        f"a leaf is not a number: {leaves}"
    )
    if all(map(_is_importable, _functions_in(tx))):
        assert pickle.loads(pickle.dumps(tx)) == tx, "pickling changes it"


def says_what_its_state_is(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """Every field of every state has a kind, and slots are like the parameters."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params) if is_optimised(leaf)]
    largest = max((math.prod(shape) for shape in shapes), default=0) or 1

    def visit(state: Any) -> None:
        if isinstance(state, EmptyState):
            return
        if isinstance(state, dict):
            state = tuple(state.values())
        if not hasattr(state, "_fields"):
            for inner in state:
                visit(inner)
            return
        if not is_state(state):
            assert not type(state).__module__.startswith("gradtx"), f"{state} is not annotated"
            return
        state_type: Any = type(state)
        for name, kind in kinds(state_type).items():
            value = getattr(state, name)
            if isinstance(kind, Slot):
                nodes = jax.tree.leaves(value, is_leaf=lambda x: isinstance(x, Blocks))
                found = [np.shape(node) for node in nodes if not isinstance(node, Blocks)]
                assert len(nodes) <= len(shapes) and set(found) <= set(shapes), (
                    f"{name} is not like the parameters: {found} against {shapes}"
                )
                for node in nodes:
                    assert not isinstance(node, Blocks) or max(map(np.size, node)) <= largest, (
                        f"{name} holds blocks that are larger than any parameter"
                    )
                if kind.nonnegative:
                    for leaf in jax.tree.leaves(value):
                        assert not jnp.iscomplexobj(leaf), f"{name} is complex"
                        assert bool(jnp.all(leaf >= 0)), f"{name} is negative"
            elif isinstance(kind, History):
                found = [np.shape(leaf) for leaf in jax.tree.leaves(value)]
                assert len({shape[:1] for shape in found}) <= 1, f"{name} has several lengths"
                assert len(found) <= len(shapes) and {s[1:] for s in found} <= set(shapes), (
                    f"{name} is not like the parameters: {found} against {shapes}"
                )
            elif isinstance(kind, Numbers):
                assert np.ndim(value) == 1 and jnp.issubdtype(value.dtype, np.floating), (
                    f"{name} is not a vector of floating numbers: {value}"
                )
            elif isinstance(kind, Reduced):
                for leaf in jax.tree.leaves(value):
                    assert np.size(leaf) <= largest, f"{name} is larger than any parameter"
                    assert not jnp.iscomplexobj(leaf), f"{name} is complex"
            elif isinstance(kind, Nested):
                visit(value)
            elif isinstance(kind, NamedNumbers):
                assert all(np.shape(number) == () for number in value.values()), f"{name}: {value}"
            elif isinstance(kind, Opaque):
                for leaf in jax.tree.leaves(value):
                    assert isinstance(leaf, jax.Array), f"{name} holds what is not an array: {leaf}"
            else:
                dtype = _DTYPES[type(kind)]
                assert np.shape(value) == () and jnp.issubdtype(value.dtype, dtype), (
                    f"{name} is not a {dtype.__name__} of shape (): {value}"
                )

    state = tx.init(params)
    visit(state)
    visit(tx.update(grads, state, params, **extra_args)[1])


def has_a_type_fixed_point(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """`update` returns the types it was given, whatever the dtype of the gradients."""
    arrays, own = _only(params), _only(grads)
    state = jax.eval_shape(tx.init, arrays)
    for dtype in (None, jnp.float16, jnp.bfloat16, jnp.float32):
        grads = own if dtype is None else _with_real_leaves_of(own, dtype)
        updates, new_state = jax.eval_shape(tx.update, grads, state, arrays, **extra_args)
        assert _types(new_state) == _types(state), f"{_types(state)} became {_types(new_state)}"
        assert _dtypes(updates) == _dtypes(arrays), f"updates have dtypes {_dtypes(updates)}"
        updates, _ = jax.eval_shape(tx.step, grads, state, arrays, **extra_args)
        assert _dtypes(updates) == _dtypes(arrays), f"step gives dtypes {_dtypes(updates)}"


def initialises_abstractly(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """`init` works under `eval_shape` and `jit`, on the parameters' shapes alone."""
    del grads, extra_args
    arrays = _only(params)
    state = tx.init(arrays)
    assert _types(jax.eval_shape(tx.init, arrays)) == _types(state), "eval_shape differs"
    _assert_equal(jax.jit(tx.init)(arrays), state, "jit(init) differs from init")


def never_aliases(tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any) -> None:
    """`init` holds no buffer of the parameters, and none twice: all can be donated."""
    pointers = [
        leaf.unsafe_buffer_pointer()
        for leaf in (*jax.tree.leaves(params), *jax.tree.leaves(tx.init(params)))
        if isinstance(leaf, jax.Array) and leaf.size and len(leaf.devices()) == 1
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]
    assert len(set(pointers)) == len(pointers), "init returned a buffer that is used elsewhere"
    arrays = jax.tree.map(lambda x: jnp.array(x) if is_optimised(x) else None, params)

    # Donated in the order of the results: JAX pairs them so, and host memory with nothing else.
    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(arrays: Any, state: Any, grads: Any, **extra_args: Any) -> Any:
        return tx.step(grads, state, arrays, **extra_args)

    for _ in range(2):
        state = tx.init(arrays)
        for _ in range(2):
            assert not any(x.is_deleted() for x in jax.tree.leaves(state)), (
                "init returned a buffer of the transformation's own, which was donated"
            )
            arrays, state = step(arrays, state, _only(grads), **extra_args)


def is_the_same_under_jit(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """Compiled and eager updates agree, and `step` is `update` then `apply_updates`."""
    params, grads = _only(params), _only(grads)
    eager_state, jit_state = tx.init(params), tx.init(params)
    eager_params, jit_params = params, params
    jit_step = functools.partial(_step, tx)
    for _ in range(3):
        updates, new_state = tx.update(grads, eager_state, eager_params, **extra_args)
        stepped, stepped_state = tx.step(grads, eager_state, eager_params, **extra_args)
        eager_params, eager_state = apply_updates(eager_params, updates), new_state
        _assert_equal(stepped, eager_params, "step differs from update and apply_updates")
        _assert_equal(stepped_state, eager_state, "step leaves another state than update")
        jit_params, jit_state = jit_step(grads, jit_state, jit_params, **extra_args)
    _assert_equal(jit_params, eager_params, "parameters differ under jit")
    _assert_equal(jit_state, eager_state, "the state differs under jit")


def scans(tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any) -> None:
    """Steps inside `lax.scan` agree with steps in a loop."""
    params, grads = _only(params), _only(grads)

    def body(carry: Any, _: None) -> tuple[Any, None]:
        return tx.step(grads, carry[1], carry[0], **extra_args), None

    scanned, _ = jax.lax.scan(body, (params, tx.init(params)), length=3)
    looped = (params, tx.init(params))
    step = functools.partial(_step, tx)
    for _ in range(3):
        looped = step(grads, looped[1], looped[0], **extra_args)
    _assert_equal(scanned, looped, "scan differs from a loop")


def compiles_once(tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any) -> None:
    """Three steps are one trace; so are equal configurations, and changed numbers."""
    params, grads = _only(params), _only(grads)
    leaves, treedef = jax.tree.flatten(tx)
    traced: list[str] = []

    def step(tx: GradientTransformation, state: Any, params: Any, how: str) -> Any:
        traced.append(how)
        return tx.step(grads, state, params, **extra_args)

    static_step = jax.jit(step, static_argnames=("tx", "how"))
    moved, state = params, tx.init(params)
    for _ in range(3):
        moved, state = static_step(tx=tx, state=state, params=moved, how="static")
    copy = jax.tree.unflatten(treedef, leaves)
    static_step(tx=copy, state=state, params=moved, how="static")
    assert traced == ["static"], f"equal configurations were traced {len(traced)} times"
    traced_step = jax.jit(step, static_argnames="how")
    halved = [0.5 * leaf if isinstance(leaf, float) else leaf for leaf in leaves]
    for one in (tx, jax.tree.unflatten(treedef, halved)):
        traced_step(tx=one, state=state, params=params, how="traced")
    assert traced == ["static", "traced"], "changed hyperparameters were traced again"


def keeps_still_without_gradient(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """Zero gradients never make a value that is not finite."""
    params = _only(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = tx.init(params)
    for _ in range(3):
        params, state = tx.step(zeros, state, params, **extra_args)
    for leaf in jax.tree.leaves((params, state)):
        assert bool(jnp.all(jnp.isfinite(leaf))), f"zero gradients gave {leaf}"


def passes_over_other_leaves(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """`None`, integer, boolean, key and callable leaves come out untouched and hold no state."""
    others = {
        "none": None,
        "step": 3,
        "flags": np.array([True, False]),
        "index": jnp.arange(3),
        "key": jax.random.key(0),
        "function": jnp.sin,
    }
    params, grads = _only(params), _only(grads)
    mixed_state = tx.init({"own": params, **others})
    alone_state = tx.init({"own": params})
    count = len(jax.tree.leaves(alone_state))
    assert len(jax.tree.leaves(mixed_state)) == count, "leaves that are not optimised have state"
    mixed, _ = tx.update(
        {"own": grads, **others}, mixed_state, {"own": params, **others}, **extra_args
    )
    alone, _ = tx.update({"own": grads}, alone_state, {"own": params}, **extra_args)
    _assert_equal(mixed["own"], alone["own"], "other leaves change the updates")
    for name, other in others.items():
        assert mixed[name] is other, f"the leaf {name!r} was touched"
    moved = apply_updates({"own": params, **others}, mixed)
    assert all(moved[name] is other for name, other in others.items())
    no_grads = {"own": jax.tree.map(lambda _: None, params)}
    nothing, kept = tx.update(no_grads, alone_state, {"own": params}, **extra_args)
    assert not jax.tree.leaves(nothing), "an update came out of no gradient"
    assert _types(kept) == _types(alone_state), "the state changes without a gradient"


def shards(tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any) -> None:
    """Steps over parameters sharded across all devices agree with steps on one."""
    params, grads = _only(params), _only(grads)
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.asarray(devices), ("shards",))
    split, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))  # type: ignore[no-untyped-call]
        for axes in (("shards",), ())
    )

    def place(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        divisible = leaf.ndim > 0 and leaf.shape[0] > 0 and leaf.shape[0] % len(devices) == 0
        return jax.device_put(leaf, split if divisible else whole)

    step = functools.partial(_step, tx)
    sharded = jax.tree.map(place, params)
    sharded_state, state = jax.jit(tx.init)(sharded), tx.init(params)
    for _ in range(2):
        sharded, sharded_state = step(
            jax.tree.map(place, grads), sharded_state, sharded, **extra_args
        )
        params, state = step(grads, state, params, **extra_args)
    _assert_equal(sharded, params, "sharded parameters differ")
    _assert_equal(sharded_state, state, "the state of sharded parameters differs")


def keeps_explicit_shardings(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """On a mesh with explicit axes, `init` and `step` keep each parameter's sharding."""
    params, grads = _only(params), _only(grads)
    explicit = jax.sharding.AxisType.Explicit
    mesh = jax.make_mesh((jax.device_count(),), ("shards",), axis_types=(explicit,))
    spec: Any = jax.sharding.PartitionSpec

    def place(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        divisible = leaf.ndim > 0 and leaf.shape[0] > 0 and leaf.shape[0] % mesh.size == 0
        return jax.device_put(leaf, spec(*(["shards"] if divisible else [])))

    def run(params: Any, grads: Any) -> Any:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            return tx.step(grads, carry[1], carry[0], **extra_args), None

        return jax.lax.scan(body, (params, tx.init(params)), length=2)[0]

    expected = jax.jit(run)(params, grads)
    with jax.set_mesh(mesh):
        sharded = jax.tree.map(place, params)
        actual = jax.jit(run)(sharded, jax.tree.map(place, grads))
    for before, after in zip(*map(jax.tree.leaves, (sharded, actual[0])), strict=True):
        kept = after.sharding.is_equivalent_to(before.sharding, before.ndim)
        assert kept, f"{before.sharding} became {after.sharding}"
    _assert_equal(actual, expected, "steps on an explicit mesh differ")


def maps_over_hyperparameters(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """`vmap` over every numeric hyperparameter gives what each value gives on its own."""
    params, grads = _only(params), _only(grads)
    leaves, treedef = jax.tree.flatten(tx)
    if not leaves:
        return
    # One row as it is, and one for each hyperparameter in which that one alone is halved.
    rows = np.tile(np.asarray(leaves, np.float32), (len(leaves) + 1, 1))
    np.fill_diagonal(rows[1:], 0.5 * rows[0])

    def run(values: Any) -> Any:
        kept = [v if isinstance(x, float) else x for v, x in zip(values, leaves, strict=True)]
        one = jax.tree.unflatten(treedef, kept)
        moved, state = one.step(grads, one.init(params), params, **extra_args)
        return one.step(grads, state, moved, **extra_args)[0]

    mapped = jax.jit(jax.vmap(run))(jnp.asarray(rows))
    alone = jax.jit(run)
    for i, row in enumerate(rows):
        one = jax.tree.map(lambda x, i=i: x[i], mapped)
        _assert_equal(one, alone(jnp.asarray(row)), f"vmap differs, hyperparameters {row}")


def differentiates(tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any) -> None:
    """Ten steps have a finite derivative with respect to a learning rate after them."""
    params, grads = _only(params), _only(grads)

    def loss(rate: Any) -> Any:
        scaled = chain(tx, scale(rate))

        def body(carry: Any, _: None) -> tuple[Any, None]:
            return scaled.step(grads, carry[1], carry[0], **extra_args), None

        (moved, _), _ = jax.lax.scan(body, (params, scaled.init(params)), length=10)
        leaves = [jnp.sum(jnp.abs(x).astype(jnp.float32)) for x in jax.tree.leaves(moved)]
        return sum(leaves, jnp.float32(0))

    slope = jax.grad(loss)(jnp.float32(0.5))
    assert bool(jnp.isfinite(slope)), f"the derivative is {slope}"


def tells_what_is_wrong(
    tx: GradientTransformation, params: Any, grads: Any, **extra_args: Any
) -> None:
    """Swapped arguments, and wrong shapes and structures, are refused with the leaf's path."""
    params, grads = {"a": _only(params)}, {"a": _only(grads)}
    state = tx.init(params)
    update: Any = functools.partial(tx.update, **extra_args)
    if is_state(state):
        _assert_raises(TypeError, "swapped", lambda: update(state, grads, params))
    extra = {**grads, "extra": jnp.ones(2)}
    _assert_raises(ValueError, "['extra']", lambda: update(extra, state, params))
    widened = jax.tree.map(lambda g: jnp.ones((7, *g.shape), g.dtype), grads)
    if jax.tree.leaves(grads):
        _assert_raises(ValueError, "['a']", lambda: update(widened, state, params))


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        is_a_value,
        says_what_its_state_is,
        has_a_type_fixed_point,
        initialises_abstractly,
        never_aliases,
        is_the_same_under_jit,
        scans,
        compiles_once,
        keeps_still_without_gradient,
        passes_over_other_leaves,
        shards,
        keeps_explicit_shardings,
        maps_over_hyperparameters,
        differentiates,
        tells_what_is_wrong,
    )
}


@functools.partial(jax.jit, static_argnums=0)
def _step(
    tx: GradientTransformation, updates: Any, state: Any, params: Any, **extra_args: Any
) -> Any:
    """`tx.step`, compiled once for all laws that run it on the same shapes."""
    return tx.step(updates, state, params, **extra_args)


def _functions_in(x: Any) -> list[Any]:
    """The types and functions that pickling `x` has to find by name."""
    if isinstance(x, Value):
        fields = (getattr(x, name) for name in (*x._children, *x._statics))
        return [type(x), *(f for field in fields for f in _functions_in(field))]
    leaves = jax.tree.leaves(x, is_leaf=lambda node: isinstance(node, Value))
    functions = [leaf for leaf in leaves if is_plain_callable(leaf)]
    return functions + [f for y in leaves if isinstance(y, Value) for f in _functions_in(y)]


def _is_importable(function: Any) -> bool:
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    return getattr(module, getattr(function, "__qualname__", ""), None) is function


def _only(tree: Any) -> Any:
    """The tree with `None` for every leaf that is not optimised, so that `jit` takes it."""
    return jax.tree.map(lambda x: x if is_optimised(x) else None, tree)


def _with_real_leaves_of(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x if jnp.iscomplexobj(x) else x.astype(dtype), tree)


def _types(tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    types = [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in leaves]
    return treedef, types


def _dtypes(tree: Any) -> list[Any]:
    return [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]


def _assert_equal(actual: Any, expected: Any, message: str) -> None:
    structures: list[Any] = [jax.tree.structure(actual), jax.tree.structure(expected)]
    assert structures[0] == structures[1], message
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if hasattr(e, "dtype") and jnp.issubdtype(e.dtype, jax.dtypes.prng_key):
            a, e = jax.random.key_data(a), jax.random.key_data(e)
        if not is_optimised(e):
            assert np.array_equal(a, e), f"{message}: {a} against {e}"
            continue
        # A few roundings of the narrower of the leaf's dtype and float32.
        epsilons = [float(jnp.finfo(d).eps) for d in (a.dtype, np.float32)]  # type: ignore[no-untyped-call]
        tolerance = 8 * max(epsilons)
        wide = np.complex128 if jnp.iscomplexobj(e) else np.float64
        a, e = np.asarray(a).astype(wide), np.asarray(e).astype(wide)
        np.testing.assert_allclose(
            a, e, rtol=tolerance, atol=tolerance, err_msg=message, equal_nan=True
        )


def _assert_raises(kind: type[Exception], text: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except kind as error:
        assert text in str(error), f"the error does not say {text!r}: {error}"
    else:
        raise AssertionError(f"no {kind.__name__} that says {text!r} was raised")
