"""What is known of the parameters, leaf by leaf, and trees in whose leaves blocks stand."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator, Mapping
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


_TOLD: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("told")


@contextlib.contextmanager
def divided_as(params: Params) -> Iterator[None]:
    """Within, tracers at the paths of these parameters are known to be divided as they are.

    A tracer does not say how what it stands for is divided over a mesh, unless its axes are
    explicit; and without tracing there is no state without memory for it.

    Args:
      params: tree of `jax.ShapeDtypeStruct` with shardings, or of arrays.
    """
    token = _TOLD.set(dict(leaves_with_paths(params)))
    try:
        yield
    finally:
        _TOLD.reset(token)


def known_leaves(params: Params) -> Any:
    """The tree of parameters with a `KnownLeaf` in the place of each."""
    treedef: Any = jax.tree.structure(params, is_leaf=lambda x: x is None)
    told = _TOLD.get({})

    def known(path: str, x: Any) -> KnownLeaf:
        if not is_optimised(x):
            return KnownLeaf(path, (), None, ())
        shape, seen = np.shape(x), x
        if isinstance(x, jax.core.Tracer) and path in told and np.shape(told[path]) == shape:
            seen = told[path]
        return KnownLeaf(path, shape, getattr(x, "dtype", None), shards_of(seen), _explicit(seen))

    return jax.tree.unflatten(treedef, [known(*pair) for pair in leaves_with_paths(params)])


def shards_of(x: Any) -> tuple[int, ...]:
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
    return tuple(n // m if m else 1 for n, m in zip(shape, part, strict=True))


def _explicit(x: Any) -> bool:
    typed = isinstance(x, jax.Array | jax.ShapeDtypeStruct)
    return typed and any(jax.typeof(x).sharding.spec)


def check_on_device(x: jax.Array, path: str, wrapper: str) -> None:
    """Raises ValueError if an array of the state is in the host's memory.

    Args:
      x: the array, which may be traced.
      path: of its parameter.
      wrapper: the transformation that is to store it otherwise.
    """
    if jax.typeof(x).memory_space == jax.memory.Space.Host:
        raise ValueError(
            f"the state of {path!r} is in the host's memory, where {wrapper} cannot compute; "
            f"put offload_state outside: offload_state({wrapper}(tx, ...))"
        )


def is_in_place(node: Any) -> bool:
    """Whether a node stands in the place of a parameter: a whole array's parts, or nothing."""
    return isinstance(node, Blocks | Halved) or not jax.tree.leaves(node)


def holds_arrays(tree: Any, leaves: Any) -> bool:
    """Whether an array, what is stored of one, or nothing stands in the place of each parameter.

    A foreign state may have a container of arrays there.
    """
    treedef: Any = jax.tree.structure(leaves)
    try:
        nodes = treedef.flatten_up_to(tree)
    except (ValueError, TypeError):
        return True  # of a part of the parameters
    return all(is_in_place(node) or jax.tree_util.all_leaves([node]) for node in nodes)


def with_blocks(tree: Any, leaves: Any) -> Any:
    """The tree with `Blocks` where a framework has put another container in the place of them.

    `flax.nnx.Optimizer` makes an `nnx.State` of every container that stands inside a variable.
    """
    treedef: Any = jax.tree.structure(leaves)
    try:
        nodes = treedef.flatten_up_to(tree)
    except (ValueError, TypeError):
        return tree  # of a part of the parameters
    return jax.tree.unflatten(treedef, map(_with_blocks, nodes))


def _with_blocks(node: Any) -> Any:
    arrays = jax.tree.leaves(node)
    if len(arrays) == 2 and arrays[0].dtype.itemsize == 1:
        return Blocks(*arrays)
    return node
