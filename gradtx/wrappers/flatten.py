"""Running a transformation on one long vector instead of many small arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.apply import T
from gradtx.core.join import apart, joined
from gradtx.core.leaf import common_precision, is_optimised, match, narrow, wide_dtype
from gradtx.core.slot import Opaque, Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation


class FlattenState(NamedTuple):
    """State of `flatten`: the inner transformation's, for the long vector."""

    inner_state: Annotated[State, Opaque()]


class flatten(GradientTransformation):
    """Hands the inner transformation all updates, and parameters, as one vector.

    Worth it for hundreds of small arrays: a step on them takes as long as the runtime needs to
    hand over one buffer after another, and the state is then a few large ones. What the inner
    transformation does leaf by leaf (masks, norms of layers) it does to the whole vector.
    The vector is in the widest precision of its parts, at least float32. Complex parameters,
    where there are any, make a second vector: the inner transformation then sees the pair
    (real, complex). A `None` update of a parameter counts as zero, and comes out as `None`.

    On a mesh with explicit axes every device holds the whole vector, and so the state.

    Args:
      inner: the transformation for the vector.

    Raises:
      TypeError: `inner` is not a transformation.

    >>> tx = gradtx.flatten(gradtx.adam(0.1))
    >>> state = tx.init({"w": jnp.zeros((2, 2)), "b": jnp.zeros(3)})
    >>> state.inner_state[0].mu.shape
    (7,)
    """

    inner: GradientTransformation

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))

    def init(self, params: Params) -> FlattenState:
        return FlattenState(self.inner.init(_ravel(params, params)))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        like = updates if params is None else params
        flat, inner_state = self.inner.transform(
            _ravel(updates, like),
            state.inner_state,
            None if params is None else _ravel(params, like),
            **extra_args,
        )
        return _unravel(flat, updates, like, updates), FlattenState(inner_state)

    def step(self, updates: Updates, state: State, params: T, **extra_args: Any) -> tuple[T, State]:
        optimised = [leaf for leaf in jax.tree.leaves(params) if is_optimised(leaf)]
        if any(wide_dtype(jnp.result_type(x)) != jnp.result_type(x) for x in optimised):
            # Updates are rounded to the dtype of such leaves before they are added.
            return super().step(updates, state, params, **extra_args)
        updates = self._checked(updates, state, params, extra_args)
        flat, inner_state = self.inner.step(
            _ravel(updates, params), state.inner_state, _ravel(params, params), **extra_args
        )
        return _unravel(flat, updates, params, params), FlattenState(inner_state)

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        return {"inner": (self.inner, state.inner_state)}

    def inner_params(self, name: str, params: Params) -> Params:
        """The shapes and dtypes of the vectors."""
        return jax.eval_shape(lambda tree: _ravel(tree, tree), params)

    def lookahead_point(self, state: State, params: Params) -> Params:
        point = self.inner.lookahead_point(state.inner_state, _ravel(params, params))
        return narrow(_unravel(point, params, params, params), like=params)


def _is_none(x: Any) -> bool:
    return x is None


def _parts(like: Any) -> list[list[int]]:
    """Indices of the leaves that make each vector: the real ones, the complex ones."""
    leaves = jax.tree.leaves(like, is_leaf=_is_none)
    optimised = [i for i, leaf in enumerate(leaves) if is_optimised(leaf)]
    parts = [[i for i in optimised if jnp.iscomplexobj(leaves[i]) == c] for c in (False, True)]
    return [part for part in parts if part]


def _ravel(tree: Any, like: Any) -> Any:
    likes = jax.tree.leaves(like, is_leaf=_is_none)
    leaves = match(like, tree, "params", "updates")
    vectors = []
    for part in _parts(like):
        chosen = [jnp.zeros_like(likes[i]) if leaves[i] is None else leaves[i] for i in part]
        cast = common_precision(chosen)
        vectors.append(joined([_gathered(cast(leaf)) for leaf in chosen]))
    return vectors[0] if len(vectors) == 1 else tuple(vectors)


def _unravel(flat: Any, updates: Updates, like: Any, others: Any) -> Any:
    """The pieces of the vectors, but the leaves of `others` where there is no update."""
    given = jax.tree.leaves(updates, is_leaf=_is_none)
    leaves, treedef = jax.tree.flatten(others, is_leaf=_is_none)
    likes = jax.tree.leaves(like, is_leaf=_is_none)
    parts = _parts(like)
    for part, vector in zip(parts, [flat] if len(parts) == 1 else flat, strict=True):
        pieces = apart(vector, [np.shape(likes[i]) for i in part])
        for i, piece in zip(part, pieces, strict=True):
            if given[i] is not None:
                leaves[i] = _placed_like(piece, likes[i])
    return jax.tree.unflatten(treedef, leaves)


def _axes(leaf: Any) -> tuple[Any, ...]:
    """The axes of an explicit mesh over which the leaf's own axes are spread."""
    return tuple(jax.typeof(jnp.asarray(leaf)).sharding.spec)


def _gathered(leaf: jax.Array) -> jax.Array:
    return _placed(leaf, (None,) * leaf.ndim) if any(_axes(leaf)) else leaf


def _placed_like(piece: jax.Array, leaf: Any) -> jax.Array:
    return _placed(piece, _axes(leaf)) if any(_axes(leaf)) else piece


def _placed(array: jax.Array, axes: tuple[Any, ...]) -> jax.Array:
    sharding: Any = jax.sharding
    placed: jax.Array = sharding.reshard(array, sharding.PartitionSpec(*axes))
    return placed
