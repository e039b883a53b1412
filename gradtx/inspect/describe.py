"""What a transformation is and holds, in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.leaf import is_optimised
from gradtx.core.partition import leaves_with_paths
from gradtx.core.slot import Params, State
from gradtx.core.transformation import GradientTransformation, as_transformation


@dataclasses.dataclass(frozen=True)
class Description:
    """What `describe` found; `print` shows it as text.

    Attributes:
      stages: depth, text and bytes of state of each transformation, from the outside in.
      leaves: path, shape, dtype and label of each optimised leaf; the label is that of the
        `partition` or `groups` it falls under, with slashes where one is inside another, and
        `frozen` where `freeze` keeps it.
      parameters: their number.
      state_bytes: bytes of the whole state.
    """

    stages: tuple[tuple[int, str, int], ...]
    leaves: tuple[tuple[str, tuple[int, ...], str, str], ...]
    parameters: int
    state_bytes: int

    def __str__(self) -> str:
        each = self.state_bytes / self.parameters if self.parameters else 0.0
        lines = [
            f"{self.parameters:,} parameters in {len(self.leaves)} leaves; "
            f"{self.state_bytes:,} bytes of state, {each:.2f} per parameter"
        ]
        rows = [("  " * depth + text, f"{size:,} bytes") for depth, text, size in self.stages]
        lines += _aligned(rows)
        if any(label for *_, label in self.leaves):
            lines += ["", *_aligned([(p, str(s), d, label) for p, s, d, label in self.leaves])]
        return "\n".join(lines)


def describe(tx: Any, params: Params) -> Description:
    """Tells what a transformation does with these parameters, and what it holds for them.

    Args:
      tx: a transformation.
      params: tree of arrays, or of `jax.ShapeDtypeStruct`; nothing is computed or allocated.

    Returns:
      Its stages with their hyperparameters and bytes of state; and, where a `partition`,
      `groups` or `freeze` is among them, which leaf falls under which label.

    Raises:
      TypeError: `tx` is not a transformation.

    >>> tx = gradtx.groups([("bias", gradtx.sgd(0.1))], default=gradtx.sgd(0.1, momentum=0.9))
    >>> print(gradtx.describe(tx, {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}))
    8 parameters in 2 leaves; 24 bytes of state, 3.00 per parameter
    groups                                            24 bytes
      bias: sgd(learning_rate=0.1)                    0 bytes
      default: sgd(learning_rate=0.1, momentum=0.9)   24 bytes
    <BLANKLINE>
    bias     (2,)     float32   bias
    kernel   (3, 2)   float32   default
    """
    tx = as_transformation(tx)
    state = jax.eval_shape(tx.init, params)
    flat = [(path, leaf) for path, leaf in leaves_with_paths(params) if is_optimised(leaf)]
    labels: dict[str, str] = {}
    stages = tuple(_stages(tx, state, params, "", 0, labels))
    leaves = tuple(
        (path, np.shape(leaf), jnp.result_type(leaf).name, labels.get(path, ""))
        for path, leaf in flat
    )
    parameters = sum(math.prod(np.shape(leaf)) for _, leaf in flat)
    return Description(stages, leaves, parameters, state_bytes(state))


def state_bytes(state: State) -> int:
    """The bytes of all arrays in a state, concrete or abstract."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def _stages(
    tx: GradientTransformation,
    state: State,
    params: Params,
    name: str,
    depth: int,
    labels: dict[str, str],
) -> Iterator[tuple[int, str, int]]:
    inner = tx.inner_states(state)
    text = type(tx).__name__ if inner else repr(tx)
    yield depth, f"{name}: {text}" if name else text, state_bytes(state)
    for path, label in tx.assignment(params).items():
        labels[path] = f"{labels[path]}/{label}" if path in labels else str(label)
    for part, (inner_tx, inner_state) in inner.items():
        inside = tx.inner_params(part, params)
        shown = "" if part.isdigit() or len(inner) == 1 else part
        yield from _stages(inner_tx, inner_state, inside, shown, depth + 1, labels)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
