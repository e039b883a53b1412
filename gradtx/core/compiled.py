"""Loops that are compiled once, also where the caller does not use `jit`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def call_compiled(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` under `jit`: arrays in `args` are traced, all other leaves are constants.

    A loop of JAX that is reached eagerly is compiled again by every call, since its body is a
    new function each time. Here a call is compiled again only where shapes, dtypes, or leaves
    that are not arrays differ; functions compare by identity.

    Args:
      function: a module-level function from trees to a tree of arrays.
      *args: trees; their leaves that are not arrays are hashable.

    >>> def twice(x, how):
    ...     return how(x) * 2.0
    >>> float(call_compiled(twice, jnp.asarray(-1.0), jnp.abs))
    2.0
    """
    leaves, treedef = jax.tree.flatten(args)
    arrays = [leaf if hasattr(leaf, "dtype") else None for leaf in leaves]
    constants = tuple(None if hasattr(leaf, "dtype") else _Constant(leaf) for leaf in leaves)
    return _call(function, treedef, constants, arrays)


class _Constant:
    """A leaf that is not an array; 1, 1.0 and True differ, as they do in a program."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Constant) or type(self.value) is not type(other.value):
            return False
        return bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _call(
    function: Callable[..., Any],
    treedef: Any,
    constants: tuple[_Constant | None, ...],
    arrays: list[Any],
) -> Any:
    leaves = [
        array if constant is None else constant.value
        for array, constant in zip(arrays, constants, strict=True)
    ]
    return function(*jax.tree.unflatten(treedef, leaves))
