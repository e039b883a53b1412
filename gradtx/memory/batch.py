"""Calls of one function that are collected from a tree, and made together."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.leaf import call_each


@dataclasses.dataclass(frozen=True)
class _Mark:
    """Stands in a tree for the result of a call that is still to be made."""

    index: int


class Batch:
    """Calls of one jitted function, collected so that calls alike are traced together."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []

    def add(self, how: tuple[Any, ...], *row: Any) -> _Mark:
        self.calls.append((how, row))
        return _Mark(len(self.calls) - 1)

    def results(self) -> list[Any]:
        alike = collections.defaultdict(list)
        for i, (how, _) in enumerate(self.calls):
            alike[how].append(i)
        found: list[Any] = [None] * len(self.calls)
        for how, places in alike.items():
            rows = [self.calls[i][1] for i in places]
            for i, result in zip(places, call_each(self.function, how, None, rows), strict=True):
                found[i] = result
        return found


def put_into(marked: Any, results: list[Any]) -> Any:
    """The tree with the results in the place of the marks."""
    return jax.tree.map(lambda x: results[x.index] if isinstance(x, _Mark) else x, marked)
