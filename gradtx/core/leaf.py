"""Leaf rules, lifted to trees once for every algorithm.

An algorithm is a function on arrays. `map_leaves` gives it trees: it widens low-precision
leaves to float32, casts results back to each slot's dtype, passes over leaves that are not
optimised (`None`, integers, booleans, keys, callables), and refuses wrong shapes and
structures with the leaf's path.
"""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.slot import Params, Updates


def _is_none(x: Any) -> bool:
    return x is None


def map_leaves(
    rule: Callable[..., Any],
    updates: Updates,
    *slots: Any,
    reduced: tuple[Any, ...] = (),
    reads: tuple[Any, ...] = (),
    **scalars: Any,
) -> Any:
    """Applies `rule(update, *slots, *reduced, *reads, **scalars)` to each leaf of `updates`.

    The rule is called through one inner `jit`, so leaves of equal shape and dtype are traced
    once. It must therefore be a module-level function. Python numbers among `scalars` reach
    it as constants; arrays and tracers as float operands of the leaf's precision.

    Args:
      rule: takes arrays in float32 or wider; returns the new update and the new value of
        every slot and every reduced slot, in order.
      updates: tree of arrays; `None` and leaves that are not inexact pass through.
      *slots: trees with the structure and leaf shapes of `updates`.
      reduced: slots that hold, in the place of each leaf, an array of another shape or a
        tree of arrays, such as Adafactor's row and column.
      reads: further trees like `updates` that the rule only reads, such as the parameters.
      **scalars: numbers, 0-d arrays.

    Returns:
      The tree of new updates, in float32 or wider; and after it, where there are slots, one
      tree for each in the dtype it had.

    Raises:
      ValueError: structures or shapes differ, or the rule changes the shape of a slot; the
        message names the leaf's path.

    >>> def momentum_rule(g, v, *, rho):
    ...     v = rho * v + g
    ...     return v, v
    >>> grads, trace = {"w": jnp.asarray([1.0])}, {"w": jnp.asarray([2.0])}
    >>> updates, trace = gradtx.map_leaves(momentum_rule, grads, trace, rho=0.5)
    >>> updates
    {'w': Array([2.], dtype=float32)}
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    columns = [match(updates, x, "updates", "the state or params") for x in (*slots, *reads)]
    reduced_columns, reduced_treedefs = [], []
    for tree in reduced:
        subtrees, reduced_treedef = _match_up_to(updates, tree)
        reduced_columns.append(subtrees)
        reduced_treedefs.append(reduced_treedef)
    constants = {k: v for k, v in scalars.items() if type(v) in (bool, int, float)}
    operands = {k: v for k, v in scalars.items() if k not in constants}
    for name, value in operands.items():
        if np.shape(value) != ():
            raise ValueError(
                f"{name} must be a single number, got an array of shape {np.shape(value)}; "
                "use jax.vmap to run a batch of hyperparameters"
            )

    rows, optimised = [], []
    for i, leaf in enumerate(leaves):
        others = [column[i] for column in columns]
        small = [column[i] for column in reduced_columns]
        old = (*others[: len(slots)], *small)
        if not is_optimised(leaf):
            rows.append((leaf, *old))
            continue
        if not all(map(is_optimised, others)) or any(x is None for x in small):
            raise ValueError(
                f"updates{path_of(updates, i)} is an array, but the state or params has "
                "nothing there; was the state made by init with these parameters?"
            )
        rows.append((leaf, old, others[len(slots) :]))
        optimised.append(i)
    how = (rule, (*constants.items(),))
    results = call_each(_apply, how, operands, [rows[i] for i in optimised])
    for i, result in zip(optimised, results, strict=True):
        if reduced:
            _check_shapes(rows[i][1], result[1:], f"updates{path_of(updates, i)}")
        rows[i] = result

    treedefs = [
        treedef,
        *(jax.tree.structure(slot, is_leaf=_is_none) for slot in slots),
        *reduced_treedefs,
    ]
    trees = tuple(jax.tree.unflatten(d, [row[j] for row in rows]) for j, d in enumerate(treedefs))
    return trees if len(trees) > 1 else trees[0]


def _check_shapes(old: Any, new: Any, name: str) -> None:
    shapes = [[np.shape(x) for x in jax.tree.leaves(slots)] for slots in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the state of {name} has shapes {shapes[0]} and would get {shapes[1]}; "
            "was it made by init with these parameters?"
        )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(
    rule: Callable[..., Any],
    constants: tuple[tuple[str, float], ...],
    operands: dict[str, Any],
    leaf: Any,
    slots: tuple[Any, ...],
    reads: list[Any],
) -> tuple[Any, ...]:
    cast = common_precision(jax.tree.leaves((leaf, slots, reads)))
    arrays = jax.tree.map(cast, (leaf, *slots, *reads))
    # All operands have one precision by now: the only promotion left is real to complex.
    with jax.numpy_dtype_promotion("standard"):
        results = rule(*arrays, **dict(constants), **jax.tree.map(cast, operands))
    update, *new_slots = results if slots else (results,)
    return (
        cast(update),
        *jax.tree.map(lambda old, new: new.astype(old.dtype), slots, tuple(new_slots)),
    )


def call_each(
    function: Callable[..., Any],
    static: tuple[Any, ...],
    shared: Any,
    rows: Sequence[tuple[Any, ...]],
) -> list[Any]:
    """`[function(*static, shared, *row) for row in rows]`, traced and lowered in fewer calls.

    While something is traced, each call of a jitted function is an equation of its own. Rows of
    equal types are therefore called in blocks: a thousand alike are 32 calls of a function that
    makes 31, and the rest. XLA sees the same program.

    Args:
      function: jitted, its first arguments static.
      static: the static arguments, the same for all rows; hashable.
      shared: a tree of arrays that all rows share.
      rows: tuples of trees of arrays.
    """
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((rows[:1], shared))):
        return [function(*static, shared, *row) for row in rows]
    alike = collections.defaultdict(list)
    for i, row in enumerate(rows):
        arrays, treedef = jax.tree.flatten(row)
        alike[treedef, *map(jax.typeof, arrays)].append(i)
    results: list[Any] = [None] * len(rows)
    for places in alike.values():
        size = math.isqrt(len(places))
        in_blocks = len(places) // size * size if size > 1 else 0
        for start in range(0, in_blocks, size):
            block = places[start : start + size]
            found = _call_block(function, static, shared, [rows[i] for i in block])
            for i, result in zip(block, found, strict=True):
                results[i] = result
        for i in places[in_blocks:]:
            results[i] = function(*static, shared, *rows[i])
    return results


@functools.partial(jax.jit, static_argnums=(0, 1))
def _call_block(
    function: Callable[..., Any], static: tuple[Any, ...], shared: Any, rows: list[tuple[Any, ...]]
) -> list[Any]:
    return [function(*static, shared, *row) for row in rows]


@jax.jit
def written_after(x: jax.Array, *readers: jax.Array) -> jax.Array:
    """`x`, but to the compiler a function of `readers`, so that they are computed before it.

    For a slot whose old value is read by other results: XLA overwrites a donated slot in place
    only if it can prove that nothing reads the old value later, and copies it otherwise. The
    condition is always true, which XLA does not see; the code generator behind it does, and
    drops condition and readers.

    Args:
      x: the new value of a slot.
      *readers: arrays of the same shape that are formed from the old value.
    """
    for reader in readers:
        x = jnp.where(never_false(reader), x, jnp.zeros_like(x))
    return x


def another(tree: Any) -> Any:
    """The tree, but to the compiler of other values, so that what is formed of it is another."""
    return jax.tree.map(lambda x: written_after(x, x) if is_optimised(x) else x, tree)


def never_false(x: jax.Array) -> jax.Array:
    """True, in the shape of `x`; to XLA a function of `x`, to the code generator behind it true."""
    real = jax.lax.stop_gradient(jnp.real(x))
    bits = jax.lax.bitcast_convert_type(real, f"int{8 * real.dtype.itemsize}")
    return (bits | 1) != 0


def common_precision(arrays: Iterable[Any]) -> Callable[[Any], jax.Array]:
    """A cast to the precision that these arrays are computed in together.

    float64 if one of them is in double precision, else float32; complex stays complex, and
    booleans stay.
    """
    wide = any(jnp.result_type(a) in (np.float64, np.complex128) for a in arrays)
    real, complex_ = (jnp.float64, jnp.complex128) if wide else (jnp.float32, jnp.complex64)

    def cast(x: Any) -> jax.Array:
        array: jax.Array = jnp.asarray(x)
        if array.dtype == bool:
            return array
        return array.astype(complex_ if jnp.iscomplexobj(array) else real)

    return cast


def match(tree: Any, other: Any, name: str, other_name: str) -> list[Any]:
    """The leaves of `other`, in the order of those of `tree`, with `None` as a leaf.

    Containers may differ in type (a dict and a FrozenDict) as long as paths agree.

    Raises:
      ValueError: a path is missing on one side or two leaves differ in shape.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_none)
    other_leaves, other_treedef = jax.tree.flatten(other, is_leaf=_is_none)
    if treedef != other_treedef:
        paths, other_paths = _paths(tree), _paths(other)
        if paths != other_paths:
            missing = [p for p in paths if p not in set(other_paths)]
            extra = [p for p in other_paths if p not in set(paths)]
            detail = "; ".join(
                [f"{name} has {p or 'a leaf'} and {other_name} does not" for p in missing[:3]]
                + [f"{other_name} has {p or 'a leaf'} and {name} does not" for p in extra[:3]]
            )
            raise ValueError(
                f"{name} and {other_name} differ in structure: {detail or 'order of leaves'}"
            )
    for i, (leaf, other_leaf) in enumerate(zip(leaves, other_leaves, strict=True)):
        compared = is_optimised(leaf) and is_optimised(other_leaf)
        if compared and np.shape(leaf) != np.shape(other_leaf):
            raise ValueError(
                f"{name}{path_of(tree, i)} has shape {np.shape(leaf)}, "
                f"but in {other_name} it has shape {np.shape(other_leaf)}"
            )
    return other_leaves


def as_operand(value: Any) -> Any:
    """Keeps a Python number from being a constant of the compiled rule.

    For rates and bounds that a rule only multiplies or compares by: an eager loop that
    changes them every step then compiles once. A rule that forms `1 - b` wants the constant.
    """
    return np.float64(value) if type(value) in (int, float) else value


def _match_up_to(tree: Any, other: Any) -> tuple[list[Any], Any]:
    """What stands in `other` in the place of each leaf of `tree`, and the structure around it.

    Raises:
      ValueError: a path is missing on one side.
    """
    treedef: Any = jax.tree.structure(tree, is_leaf=_is_none)
    try:
        return treedef.flatten_up_to(other), treedef
    except (ValueError, TypeError):
        pass  # containers of other types, or paths that are missing
    paths = _paths(tree)
    places = set(paths)
    flat, other_treedef = jax.tree_util.tree_flatten_with_path(
        other,
        is_leaf=lambda path, node: node is None or jax.tree_util.keystr(path) in places,
        is_leaf_takes_path=True,
    )
    subtrees = {jax.tree_util.keystr(path): node for path, node in flat}
    if paths != list(subtrees):
        missing = [f"updates has {p} and the state does not" for p in paths if p not in subtrees]
        extra = [f"the state has {p} and updates does not" for p in subtrees if p not in places]
        detail = "; ".join(missing[:3] + extra[:3]) or "order of leaves"
        raise ValueError(f"updates and the state differ in structure: {detail}")
    return list(subtrees.values()), other_treedef


def path_of(tree: Any, index: int) -> str:
    """The path of the leaf with this index, as it would be written in Python."""
    return _paths(tree)[index]


def _paths(tree: Any) -> list[str]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_none)
    return [jax.tree_util.keystr(path) for path, _ in flat]


def is_optimised(leaf: Any) -> bool:
    """Whether a leaf takes part in optimisation: an inexact array, or a Python float."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, float | complex)
    return _is_inexact(dtype)


@functools.cache
def _is_inexact(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.inexact)


@functools.cache
def wide_dtype(dtype: Any) -> Any:
    """The dtype that a leaf is computed and stored in: float32 for narrower floats."""
    return np.dtype(np.float32) if np.dtype(dtype).itemsize < 4 else np.dtype(dtype)


@functools.cache
def _real_dtype(dtype: Any) -> Any:
    return np.finfo(dtype).dtype if np.issubdtype(dtype, np.complexfloating) else dtype


def _dtype_of(leaf: Any) -> Any:
    # As JAX sees it: NumPy's float64 is float32 unless 64-bit types are enabled.
    return (
        jax.dtypes.canonicalize_dtype(leaf.dtype)
        if hasattr(leaf, "dtype")
        else jnp.result_type(leaf)
    )


def widen(tree: Any) -> Any:
    """Casts float16, bfloat16 and smaller floats to float32; everything else stays."""

    def cast(leaf: Any) -> Any:
        if not is_optimised(leaf) or wide_dtype(_dtype_of(leaf)) == _dtype_of(leaf):
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf.update(dtype=wide_dtype(leaf.dtype))  # type: ignore[no-untyped-call]
        return jnp.asarray(leaf).astype(wide_dtype(leaf.dtype))

    return jax.tree.map(cast, tree)


def optimised_only(tree: Any) -> Any:
    """What functions from outside see of a tree: wide leaves, `None` for those not optimised."""
    return widen(jax.tree.map(lambda x: x if is_optimised(x) else None, tree))


def with_others_of(updates: Updates, new: Updates) -> Updates:
    """`new`, with the leaves of `updates` put back that `optimised_only` had hidden."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    new_leaves = match(updates, new, "updates", "what the transformation returned")
    merged = [n if is_optimised(u) else u for n, u in zip(new_leaves, leaves, strict=True)]
    return jax.tree.unflatten(treedef, merged)


def narrow(updates: Updates, like: Any) -> Updates:
    """Casts each optimised leaf of `updates` to the dtype of the same leaf of `like`."""
    leaves, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    likes = jax.tree.leaves(like, is_leaf=_is_none)

    def cast(leaf: Any, like: Any) -> Any:
        if not (is_optimised(leaf) and is_optimised(like)) or _dtype_of(leaf) == _dtype_of(like):
            return leaf
        return jnp.asarray(leaf).astype(_dtype_of(like))

    return jax.tree.unflatten(treedef, map(cast, leaves, likes))


def full_like(params: Params, fill_value: Any, dtype: Any = None, *, real: bool = False) -> Updates:
    """A fresh slot: `fill_value` in the shape of every optimised leaf, `None` elsewhere.

    Args:
      params: tree of arrays, or of `jax.ShapeDtypeStruct`.
      fill_value: a number or 0-d array.
      dtype: dtype of the slot; by default the leaf's, and float32 for narrower floats.
        A complex leaf keeps a complex slot, whatever the dtype.
      real: makes the slot of a complex leaf real, as squared moments are.
    """

    def fill(leaf: Any) -> Any:
        if not is_optimised(leaf):
            return None
        # Without a shape of its own, so that the slot takes over the leaf's sharding.
        return jnp.full_like(leaf, fill_value, dtype=_slot_dtype(leaf, dtype, real=real))

    return jax.tree.map(fill, params)


def _slot_dtype(leaf: Any, dtype: Any, *, real: bool = False) -> Any:
    own = wide_dtype(_dtype_of(leaf))
    if real:
        own = _real_dtype(own)
    if dtype is not None and not np.issubdtype(own, np.complexfloating):
        own = jax.dtypes.canonicalize_dtype(dtype)
    return own


def zeros_like(params: Params, dtype: Any = None, *, real: bool = False) -> Updates:
    """A fresh slot of zeros; arguments as for `full_like`."""
    return full_like(params, 0, dtype, real=real)


def copy_of(params: Params, dtype: Any = None) -> Updates:
    """A fresh slot that begins as the parameters, in buffers of its own; `None` elsewhere.

    Args:
      params: tree of arrays.
      dtype: as for `full_like`.
    """

    def copy(leaf: Any) -> Any:
        if not is_optimised(leaf):
            return None
        return jnp.array(leaf, _slot_dtype(leaf, dtype), copy=True)

    return jax.tree.map(copy, params)


def reduced_zeros_like(params: Params, kept: Callable[[tuple[int, ...]], Any]) -> Updates:
    """A fresh reduced slot of real zeros, `None` where a leaf is not optimised.

    Args:
      params: tree of arrays, or of `jax.ShapeDtypeStruct`.
      kept: from a leaf's shape to the axes that its slot keeps, in order; `None` for a slot of
        shape (1,) that is not used. Or a list of these, for a list of arrays.
    """

    def zeros(leaf: Any, axes: tuple[int, ...] | None) -> jax.Array:
        real = _real_dtype(wide_dtype(_dtype_of(leaf)))
        shape = np.shape(leaf)
        if axes is None:
            return jnp.zeros(1, real)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jnp.zeros([shape[axis] for axis in axes], real)
        # Formed from the leaf, so that the slot takes over the sharding of these axes.
        dropped = tuple(axis for axis in range(len(shape)) if axis not in axes)
        return jnp.zeros_like(jnp.sum(jnp.asarray(leaf), axis=dropped), dtype=real)

    def slot(leaf: Any) -> Any:
        if not is_optimised(leaf):
            return None
        axes = kept(np.shape(leaf))
        return [zeros(leaf, each) for each in axes] if isinstance(axes, list) else zeros(leaf, axes)

    return jax.tree.map(slot, params)


def history_like(params: Params, length: int) -> Updates:
    """A fresh history of zeros: every optimised leaf's shape with an axis of `length` in front."""

    def zeros(leaf: Any) -> Any:
        # From the leaf, whose sharding the axes behind the first keep.
        return jnp.broadcast_to(leaf[None], (length, *leaf.shape))

    return jax.tree.map(zeros, zeros_like(params))


def real_dtype_of(params: Params) -> Any:
    """The dtype of numbers about the whole tree: float64 if a leaf is in double precision."""
    leaves = [leaf for leaf in jax.tree.leaves(params) if is_optimised(leaf)]
    wide = any(_real_dtype(_dtype_of(leaf)) == np.float64 for leaf in leaves)
    return np.dtype(np.float64 if wide else np.float32)
