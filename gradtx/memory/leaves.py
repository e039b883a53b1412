"""What is known of the parameters, leaf by leaf, and trees in whose leaves blocks stand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from gradtx.core.leaf import is_optimised
from gradtx.core.partition import leaves_with_paths
from gradtx.core.slot import Blocks, Params
from gradtx.memory.halves import Halved


@dataclasses.dataclass(frozen=True)
class KnownLeaf:
    """What is known of a parameter: its path, shape, dtype, and parts of each axis.

    `explicit`: whether its type says so, and every result's has to.
    """

    path: str
    shape: tuple[int, ...]
    dtype: Any
    shards: tuple[int, ...]
    explicit: bool = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def known_leaves(params: Params) -> Any:
    """The tree of parameters with a `KnownLeaf` in the place of each."""
    treedef: Any = jax.tree.structure(params, is_leaf=lambda x: x is None)
    leaves = [
        KnownLeaf(path, np.shape(x), getattr(x, "dtype", None), _shards(x), _is_explicit(x))
        if is_optimised(x)
        else KnownLeaf(path, (), None, ())
        for path, x in leaves_with_paths(params)
    ]
    return jax.tree.unflatten(treedef, leaves)


def _shards(x: Any) -> tuple[int, ...]:
    """Into how many parts each axis of an array is divided, as far as it is known."""
    shape = np.shape(x)
    sharding = getattr(x, "sharding", None)
    if isinstance(x, jax.core.Tracer):
        sharding = jax.typeof(x).sharding
        axes = dict(sharding.mesh.shape)
        names = [() if part is None else part for part in sharding.spec]
        names = [(part,) if isinstance(part, str) else part for part in names]
        return tuple(math.prod(axes[name] for name in part) for part in names)
    if sharding is None or not shape:
        return (1,) * len(shape)
    part = sharding.shard_shape(shape)
    return tuple(n // max(m, 1) for n, m in zip(shape, part, strict=True))


def _is_explicit(x: Any) -> bool:
    return isinstance(x, jax.Array) and any(jax.typeof(x).sharding.spec)


def is_in_place(node: Any) -> bool:
    """Whether a node stands in the place of a parameter: a whole array's parts, or nothing."""
    return isinstance(node, Blocks | Halved) or not jax.tree.leaves(node)


def with_blocks(tree: Any, leaves: Any) -> Any:
    """The tree with `Blocks` where a framework has put another container in the place of them.

    `flax.nnx.Optimizer` makes an `nnx.State` of every container that stands inside a variable.
    """
    treedef: Any = jax.tree.structure(leaves)
    try:
        nodes = treedef.flatten_up_to(tree)
    except (ValueError, TypeError):
        return tree  # of a part of the parameters
    return jax.tree.unflatten(
        treedef,
        [Blocks(*arrays) if len(arrays := jax.tree.leaves(node)) == 2 else node for node in nodes],
    )
