"""Arithmetic on trees, and lookups in states by name: the names of `optax.tree`.

Results have the dtypes that JAX's promotion gives, except that what is summed over entries
(`sum`, `norm`, `vdot`) is summed in float32 or wider, and that moments keep their dtype. Where a
tree holds `None`, so does the result.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from gradtx.core import numerics
from gradtx.core.lookup import NamedTupleKey as NamedTupleKey
from gradtx.core.lookup import get as get
from gradtx.core.lookup import get_all_with_path as get_all_with_path
from gradtx.core.lookup import replace
from gradtx.core.map_params import map_params as map_params
from gradtx.core.moments import bias_correction as bias_correction
from gradtx.core.moments import update_infinity_moment as update_infinity_moment
from gradtx.core.moments import update_moment as update_moment
from gradtx.core.moments import update_moment_per_elem_norm as update_moment_per_elem_norm

set = replace

_standard = functools.partial(jax.numpy_dtype_promotion, "standard")


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """X + y + ..., leaf by leaf.

    >>> gradtx.tree.add({"a": 1.0}, {"a": 2.0}, {"a": 3.0})
    {'a': 6.0}
    """
    return jax.tree.map(lambda *leaves: builtins.sum(leaves), tree_x, tree_y, *other_trees)


def sub(tree_x: Any, tree_y: Any) -> Any:
    """X - y, leaf by leaf."""
    return jax.tree.map(operator.sub, tree_x, tree_y)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """X * y, leaf by leaf."""
    return jax.tree.map(operator.mul, tree_x, tree_y)


def div(tree_x: Any, tree_y: Any) -> Any:
    """X / y, leaf by leaf."""
    return jax.tree.map(operator.truediv, tree_x, tree_y)


def scale(scalar: ArrayLike, tree: Any) -> Any:
    """Scalar * x, leaf by leaf."""
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Any, scalar: ArrayLike, tree_y: Any) -> Any:
    """X + scalar * y, leaf by leaf; `None` where `tree_x` has it.

    >>> gradtx.tree.add_scale({"a": 1.0, "b": None}, 0.5, {"a": 4.0, "b": 2.0})
    {'a': Array(3., dtype=float32, weak_type=True), 'b': None}
    """
    scalar = jnp.asarray(scalar)
    return jax.tree.map(
        lambda x, y: None if x is None else x + scalar * y,
        tree_x,
        tree_y,
        is_leaf=lambda x: x is None,
    )


def conj(tree: Any) -> Any:
    """The complex conjugate of every leaf."""
    return jax.tree.map(jnp.conj, tree)


def real(tree: Any) -> Any:
    """The real part of every leaf."""
    return jax.tree.map(jnp.real, tree)


def clip(tree: Any, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None) -> Any:
    """Every entry clipped to [min_value, max_value]; `None` for no bound."""
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def where(condition: ArrayLike, tree_x: Any, tree_y: Any) -> Any:
    """X where the condition holds, y elsewhere, leaf by leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def vdot(tree_x: Any, tree_y: Any) -> Any:
    """The inner product, sum of conj(x) y over all entries; shape ().

    Raises:
      ValueError: two leaves differ in shape.

    >>> print(gradtx.tree.vdot({"a": jnp.asarray([1.0, 2.0])}, {"a": jnp.asarray([3.0, 4.0])}))
    11.0
    """

    def product(x: ArrayLike, y: ArrayLike) -> jax.Array:
        if np.shape(x) != np.shape(y):
            raise ValueError(f"vdot of leaves of shapes {np.shape(x)} and {np.shape(y)}")
        with _standard():
            return jnp.conj(_wide(x)) * _wide(y)

    return sum(jax.tree.map(product, tree_x, tree_y))


def sum(tree: Any, associative_reduction: bool = False) -> Any:
    """The sum of all entries; shape (). Of an empty tree the number 0.

    Args:
      tree: tree of arrays; floats are summed in float32 or wider.
      associative_reduction: sums pairs of leaves, then pairs of pairs.
    """
    with _standard():
        sums = jax.tree.map(lambda x: jnp.sum(_wide(x)), tree)
        if associative_reduction:
            total: Any = jax.tree.reduce_associative(operator.add, sums, identity=0)
        else:
            total = jax.tree.reduce(operator.add, sums, 0)
    return total


def max(tree: Any) -> jax.Array:
    """The largest entry; shape (). Of a tree without entries -inf."""
    return _reduce(jnp.max, jnp.maximum, tree, -jnp.inf)


def min(tree: Any) -> jax.Array:
    """The smallest entry; shape (). Of a tree without entries inf."""
    return _reduce(jnp.min, jnp.minimum, tree, jnp.inf)


def _reduce(within: Any, between: Any, tree: Any, empty: float) -> jax.Array:
    # Without `empty` among them, which would make floats of integers.
    leaves = [within(jnp.asarray(x)) for x in jax.tree.leaves(tree) if jnp.size(x)]
    with _standard():
        result: jax.Array = functools.reduce(between, leaves) if leaves else jnp.asarray(empty)
    return result


def size(tree: Any) -> int:
    """The number of entries."""
    return builtins.sum(jnp.size(x) for x in jax.tree.leaves(tree))


def norm(tree: Any, ord: int | float | str | None = None, squared: bool = False) -> Any:
    """The norm of the vector of all entries; shape (), float32 or wider.

    Unlike `gradtx.global_norm` it counts integer leaves too.

    Args:
      tree: tree of arrays.
      ord: 1, 2, or inf (also `'inf'`, `'infinity'`); `None` is 2.
      squared: whether the norm's square is returned.

    Raises:
      ValueError: `ord` is none of these.

    >>> print(gradtx.tree.norm({"a": jnp.asarray([3.0, -4.0])}))
    5.0
    """
    floats = jax.tree.map(numerics.as_wide_float, tree)
    if ord is None or ord == 2:
        # The zero makes a float of the sum over an empty tree.
        square = sum((0.0, jax.tree.map(numerics.abs_sq, floats)))
        return square if squared else jnp.sqrt(square)
    if ord == 1:
        result = sum((0.0, jax.tree.map(jnp.abs, floats)))
    elif ord in (jnp.inf, "inf", "infinity"):
        result = max((0.0, jax.tree.map(jnp.abs, floats)))
    else:
        raise ValueError(f"ord must be None, 1, 2 or inf, got {ord!r}")
    return result * result if squared else result


def _wide(x: ArrayLike) -> jax.Array:
    """As an array, with float16, bfloat16 and smaller floats as float32."""
    array = jnp.asarray(x)
    inexact = jnp.issubdtype(array.dtype, jnp.inexact)
    return numerics.as_wide_float(array) if inexact else array


def allclose(
    a: Any, b: Any, rtol: ArrayLike = 1e-5, atol: ArrayLike = 1e-8, equal_nan: bool = False
) -> Any:
    """Whether all entries are equal within tolerances, as for `jnp.allclose`; shape ()."""

    def close(x: ArrayLike, y: ArrayLike) -> jax.Array:
        with _standard():
            return jnp.allclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)

    return jax.tree.reduce(operator.and_, jax.tree.map(close, a, b), True)


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """Every leaf repeated along new leading axes of these lengths."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def zeros_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Zeros in the shape of every leaf, in its dtype or the one given."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def ones_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Ones in the shape of every leaf, in its dtype or the one given."""
    return jax.tree.map(lambda x: jnp.ones_like(x, dtype=dtype), tree)


def full_like(tree: Any, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Any:
    """`fill_value` in the shape of every leaf, in its dtype or the one given."""
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """Every leaf in this dtype; `None` leaves them as they are."""
    return tree if dtype is None else jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), tree)


def cast_like(tree: Any, other_tree: Any) -> Any:
    """Every leaf in the dtype of the same leaf of `other_tree`, where that has one."""
    return jax.tree.map(
        lambda x, like: jnp.asarray(x).astype(like.dtype) if hasattr(like, "dtype") else x,
        tree,
        other_tree,
    )


def dtype(tree: Any, mixed_dtype_handler: str | None = None) -> Any:
    """The dtype of the leaves; of an empty tree JAX's default float.

    Args:
      tree: tree of arrays.
      mixed_dtype_handler: what to return where dtypes differ: `'promote'` for what JAX promotes
        them to together; `'highest'` or `'lowest'` for the one of them that all others, or
        none, are promoted to; `None` to refuse.

    Raises:
      ValueError: dtypes differ, and either that is refused, or neither of two can be promoted
        to the other; or `mixed_dtype_handler` is none of these.

    >>> gradtx.tree.dtype({"a": jnp.ones(2, "bfloat16"), "b": jnp.ones(2)}, "lowest")
    dtype(bfloat16)
    """
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        raise ValueError(
            "mixed_dtype_handler must be None, 'promote', 'highest' or 'lowest', "
            f"got {mixed_dtype_handler!r}"
        )
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    if not flat:
        return jnp.result_type(float)
    dtypes = [jnp.asarray(leaf).dtype for _, leaf in flat]

    def pick(one: Any, other: Any) -> Any:
        with _standard():
            together = jnp.promote_types(one, other)
        if mixed_dtype_handler == "promote":
            return together
        if together not in (one, other):
            raise ValueError(f"neither {one} nor {other} can be promoted to the other")
        lower = other if together == one else one
        return lower if mixed_dtype_handler == "lowest" else together

    if mixed_dtype_handler is None:
        for (path, _), found in zip(flat, dtypes, strict=True):
            if found != dtypes[0]:
                raise ValueError(
                    f"the leaves differ in dtype: {jax.tree_util.keystr(flat[0][0])} is "
                    f"{dtypes[0]} and {jax.tree_util.keystr(path)} is {found}"
                )
    return functools.reduce(pick, dtypes)


def split_key_like(rng_key: jax.Array, target_tree: Any) -> Any:
    """A fresh key in the place of every leaf."""
    treedef: Any = jax.tree.structure(target_tree)
    return jax.tree.unflatten(treedef, jax.random.split(rng_key, treedef.num_leaves))


def random_like(
    rng_key: jax.Array,
    target_tree: Any,
    sampler: Callable[..., ArrayLike] = jax.random.normal,
    dtype: DTypeLike | None = None,
) -> Any:
    """Random entries in the shape of every leaf, each with its own key.

    Args:
      rng_key: a key.
      target_tree: tree of arrays.
      sampler: called as `sampler(key, shape, dtype)`, and with `out_sharding` if it takes that.
      dtype: of the result; `None` for each leaf's own.
    """
    takes_sharding = "out_sharding" in inspect.signature(sampler).parameters

    def sample(leaf: Any, key: jax.Array) -> ArrayLike:
        placed = {"out_sharding": jax.typeof(leaf).sharding} if takes_sharding else {}
        return sampler(key, jnp.shape(leaf), dtype or jnp.result_type(leaf), **placed)

    return jax.tree.map(sample, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: Any) -> Any:
    """The raw data of every random key; other leaves as they are."""

    def unwrap(x: Any) -> Any:
        is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(x) if is_key else x

    return jax.tree.map(unwrap, input_tree)
