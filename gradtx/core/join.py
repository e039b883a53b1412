"""Many small arrays as one vector, and back, in programs that compile fast.

XLA compiles every kernel that differs from all others, and its compile time grows faster than the
number of a kernel's operands. Both ways therefore go through about sqrt(n) blocks.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradtx.core.leaf import never_false

_FEW = 64  # pieces that are not worth a second level


@jax.jit
def joined(arrays: Sequence[jax.Array]) -> jax.Array:
    """The arrays, of one dtype, as one vector.

    >>> print(joined([jnp.asarray([[1, 2]]), jnp.asarray(3)]))
    [1 2 3]
    """
    vectors = [array.ravel() for array in arrays]
    if len(vectors) > _FEW:
        size = math.isqrt(len(vectors))
        blocks = [jnp.concatenate(vectors[i : i + size]) for i in range(0, len(vectors), size)]
        # Or XLA would make one concatenation of the two levels.
        vectors = jax.lax.optimization_barrier(blocks)  # type: ignore[no-untyped-call]
    return jnp.concatenate(vectors) if len(vectors) > 1 else vectors[0]


def apart(vector: jax.Array, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """Arrays of these shapes from one vector: undoes `joined`.

    >>> apart(jnp.arange(3), [(1, 2), ()])
    [Array([[0, 1]], dtype=int32), Array(2, dtype=int32)]
    """
    sizes = tuple(map(math.prod, shapes))
    if len(sizes) <= _FEW or not isinstance(vector, jax.core.Tracer):
        pieces = _cut(vector, sizes)
    else:
        pieces = jax.lax.platform_dependent(
            vector,
            cpu=functools.partial(_cut_twice, sizes=sizes),
            default=functools.partial(_cut, sizes=sizes),
        )
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _cut(vector: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    ends = [*itertools.accumulate(sizes, initial=0)]
    return [vector[a:b] for a, b in itertools.pairwise(ends)]


def _cut_twice(vector: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """Cuts blocks from the vector, and pieces from the blocks.

    A cut at another place is another kernel, so a thousand cuts of one vector take XLA's CPU
    backend 8 s. Cuts at the same places of many blocks are one. The blocks are the results of
    a conditional, or XLA would make one cut of the two.
    """
    length = _block_length(sizes)
    blocks = [sizes[i : i + length] for i in range(0, len(sizes), length)]
    totals = [sum(block) for block in blocks]
    cut = jax.lax.cond(
        jnp.all(never_false(vector[:1])),
        lambda vector: _cut(vector, totals),
        lambda vector: [jnp.zeros(total, vector.dtype) for total in totals],
        vector,
    )
    return [piece for part, block in zip(cut, blocks, strict=True) for piece in _cut(part, block)]


def _block_length(sizes: Sequence[int]) -> int:
    """How many pieces to a block make the fewest different cuts."""

    def cuts(length: int) -> int:
        blocks = [sizes[i : i + length] for i in range(0, len(sizes), length)]
        places = {
            (sum(block), start, size)
            for block in blocks
            for start, size in zip(itertools.accumulate(block, initial=0), block, strict=False)
        }
        return len(blocks) + len(places)

    return min(range(1, 4 * math.isqrt(len(sizes))), key=cuts)
