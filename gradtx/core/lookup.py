"""Finding and replacing values in a state, or in any tree, by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from jax.tree_util import DictKey

T = TypeVar("T")
Path = tuple[Any, ...]
Filtering = Callable[[Path, Any], bool]


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """A step of a path into a field of a NamedTuple.

    Attributes:
      tuple_name: name of the NamedTuple's class.
      name: name of the field.

    >>> print(NamedTupleKey("ScaleByAdamState", "count"))
    ScaleByAdamState.count
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def children(node: Any) -> tuple[list[tuple[Any, Any]], Callable[[list[Any]], Any]]:
    """The children of a node, each with the step that leads to it, and how to put others there.

    A leaf has none.
    """
    if _is_namedtuple(node):
        keys = [NamedTupleKey(type(node).__name__, field) for field in node._fields]
        return list(zip(keys, node, strict=True)), lambda new: type(node)(*new)
    flat, treedef = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    if jax.tree_util.treedef_is_leaf(treedef):
        return [], lambda new: node
    return [(path[0], child) for path, child in flat], functools.partial(
        jax.tree.unflatten, treedef
    )


def _is_namedtuple(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _names(path: Path, node: Any) -> tuple[Any, ...]:
    """What a node is found by: its field or key in what holds it, and its class."""
    own = (type(node).__name__,) if _is_namedtuple(node) else ()
    if path and isinstance(path[-1], NamedTupleKey):
        return (path[-1].name, *own)
    if path and isinstance(path[-1], DictKey):
        return (path[-1].key, *own)
    return own


def _walk(path: Path, node: Any) -> Iterator[tuple[Path, Any]]:
    yield path, node
    for key, child in children(node)[0]:
        yield from _walk((*path, key), child)


def get_all_with_path(
    tree: Any, key: Any, filtering: Filtering | None = None
) -> list[tuple[Path, Any]]:
    """Every value with this name at any depth, with its path, in the order of the tree.

    Args:
      tree: a state, or any tree.
      key: a field of a NamedTuple, a key of a dict, or the name of a NamedTuple's class.
      filtering: called with the path and the value of each; only those where it is true are
        returned. Steps into NamedTuples are `NamedTupleKey`s, others JAX's.

    >>> state = gradtx.adam(0.1).init(jnp.zeros(2))
    >>> [(path, count)] = gradtx.tree.get_all_with_path(state, "count")
    >>> print(jax.tree_util.keystr(path), count)
    [0]ScaleByAdamState.count 0
    """
    return [
        (path, node)
        for path, node in _walk((), tree)
        if key in _names(path, node) and (filtering is None or filtering(path, node))
    ]


def get(tree: Any, key: Any, default: Any = None, filtering: Filtering | None = None) -> Any:
    """The one value with this name, or `default` where there is none.

    Args:
      tree: a state, or any tree.
      key: as for `get_all_with_path`.
      default: what to return where there is no such value.
      filtering: as for `get_all_with_path`.

    Raises:
      KeyError: there are several; the message lists their paths.

    >>> state = gradtx.adam(0.1).init(jnp.zeros(2))
    >>> print(gradtx.tree.get(state, "mu"))
    [0. 0.]
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        paths = ", ".join(jax.tree_util.keystr(path) for path, _ in found)
        raise KeyError(f"{key!r} stands at {len(found)} places: {paths}; choose one by filtering=")
    return found[0][1] if found else default


def replace(tree: T, filtering: Filtering | None = None, /, **kwargs: Any) -> T:
    """A copy of the tree, with every value of these names replaced, at any depth.

    Args:
      tree: a state, or any tree.
      filtering: as for `get_all_with_path`.
      **kwargs: from name to new value.

    Raises:
      KeyError: nothing has one of the names; the message lists the names that there are.

    >>> state = gradtx.adam(0.1).init(jnp.zeros(2))
    >>> gradtx.tree.set(state, count=jnp.asarray(5))[0].count
    Array(5, dtype=int32, weak_type=True)
    """
    replaced = set()

    def put(path: Path, node: Any) -> Any:
        for name in _names(path, node):
            if name in kwargs and (filtering is None or filtering(path, node)):
                replaced.add(name)
                return kwargs[name]
        below, rebuild = children(node)
        return rebuild([put((*path, key), child) for key, child in below])

    new: T = put((), tree)
    for name in kwargs:
        if name not in replaced:
            there = dict.fromkeys(
                str(name) for path, node in _walk((), tree) for name in _names(path, node)
            )
            passed = " passes filtering" if filtering else ""
            listed = ", ".join([*there][:30]) or "none"
            raise KeyError(f"nothing named {name!r}{passed} in the tree; the names are: {listed}")
    return new
