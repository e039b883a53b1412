"""How many bytes a state takes, without the memory for it."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.leaf import is_optimised
from gradtx.core.slot import Params, State
from gradtx.core.transformation import GradientTransformation, as_transformation


def state_bytes(tx: Any, params: Params) -> int:
    """The number of bytes that a transformation's state takes for these parameters.

    Args:
      tx: a transformation, gradtx's or Optax's.
      params: tree of arrays, or of `jax.ShapeDtypeStruct`; nothing is computed or allocated.

    Raises:
      TypeError: `tx` is not a transformation; `params` is not empty and has no array.

    >>> gradtx.state_bytes(gradtx.adam(1e-3), jax.ShapeDtypeStruct((1000, 1000), jnp.float32))
    8000004
    """
    return bytes_of(abstract_state(as_transformation(tx), params))


def bytes_of(tree: Any) -> int:
    """The bytes of all arrays in a tree, concrete or abstract."""
    sizes: list[int] = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)]
    return sum(sizes)


def abstract_state(tx: GradientTransformation, params: Params) -> State:
    """The shapes and dtypes of what `init` returns; functions among the parameters stay."""
    check_holds_arrays(params)
    leaves, treedef = jax.tree.flatten(params)
    operands = [leaf if hasattr(leaf, "dtype") else None for leaf in leaves]

    def init(operands: list[Any]) -> State:
        pairs = zip(operands, leaves, strict=True)
        merged = [leaf if operand is None else operand for operand, leaf in pairs]
        return tx.init(jax.tree.unflatten(treedef, merged))

    return jax.eval_shape(init, operands)


def check_holds_arrays(params: Params) -> None:
    """Raises TypeError if there are parameters, and no array, float or shape among them.

    `init` takes such a tree, as a part of another; as a whole it is a size or a shape.
    """
    leaves = jax.tree.leaves(params)
    if leaves and not any(hasattr(leaf, "dtype") or is_optimised(leaf) for leaf in leaves):
        raise TypeError(
            f"params must be a tree of arrays, and {params!r:.60} has none; for a shape alone: "
            "jax.ShapeDtypeStruct((1000, 1000), jnp.float32)"
        )
