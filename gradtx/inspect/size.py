"""How many bytes a state takes, without the memory for it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax

from gradtx.core.leaf import is_optimised
from gradtx.core.slot import Blocks, Params, State
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.memory.layout import layout_like
from gradtx.memory.leaves import divided_as, shards_of


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


def bytes_on_a_device(param: Any, stored: Any, origin: Any = None) -> int:
    """The bytes of what is stored that one device holds, its axes divided as its parameter's are.

    Scales have the first axes of the parameter, and one for the blocks along its last, or along
    last ones that are whole; where parts do not divide an axis, it is whole. Codes that share
    bytes within a block are divided as the blocks that they fill.

    Args:
      param: the parameter, with its sharding; `None` for what is not like one.
      stored: an array, or what is stored in the place of one.
      origin: the parameter that an array of another shape is formed from, if it is known.
    """
    if param is None:
        return bytes_of(stored) // _parts(stored, origin)
    shards = shards_of(param)

    def held(x: Any) -> int:
        parts = zip(x.shape, shards, strict=False)
        return math.prod([n // m if n % m == 0 else n for n, m in parts])

    if (
        isinstance(stored, Blocks)
        and stored.codes.shape != param.shape
        and layout_like(param.shape, stored).paired is None
    ):
        return bytes_of(stored) * held(stored.scales) // stored.scales.size
    return sum(held(x) * x.dtype.itemsize for x in jax.tree.leaves(stored))


def _parts(stored: Any, origin: Any) -> int:
    """Into how many parts an array is divided that keeps some axes of the parameter it is from.

    One, where its shape does not tell which.
    """
    if origin is None:
        return 1
    shape, shards = origin.shape, shards_of(origin)
    own = stored.shape
    own = own[1:] if own[1:] == shape else own  # a history
    ways = {
        math.prod(shards[i] for i in axes)
        for axes in itertools.combinations(range(len(shape)), len(own))
        if tuple(shape[i] for i in axes) == own
    }
    return ways.pop() if len(ways) == 1 else 1


def abstract_state(tx: GradientTransformation, params: Params) -> State:
    """The shapes and dtypes of what `init` returns of arrays that lie as these do.

    Functions among the parameters stay.
    """
    check_holds_arrays(params)
    leaves, treedef = jax.tree.flatten(params)
    operands = [leaf if hasattr(leaf, "dtype") else None for leaf in leaves]

    def init(operands: list[Any]) -> State:
        pairs = zip(operands, leaves, strict=True)
        merged = [leaf if operand is None else operand for operand, leaf in pairs]
        return tx.init(jax.tree.unflatten(treedef, merged))

    with divided_as(params):
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
