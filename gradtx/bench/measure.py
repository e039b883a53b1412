"""Timing in turns: every contender once, then every contender once more, and so on.

What else the machine does then hits all of them alike, and ratios are taken round by round.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")

BANDWIDTH_ELEMENTS = 2**26
"""Size of the array that the bandwidth is measured with: 256 MiB, larger than caches are."""

_REST = 0.02  # idle threads of PyTorch spin for up to so long, on a core that the next one needs
_BUDGET = 3.0
_FEWEST, _MOST = 7, 50


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value.

        >>> Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
        Spread(median=3.0, low=2.0, high=4.0)
        """
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        return cls(float(median), float(low), float(high))


def interleave(
    contenders: Mapping[str, Callable[[], T]], rounds: int, *, warm: bool = False
) -> dict[str, list[T]]:
    """What each contender returned in each round; all are called in turn.

    Args:
      contenders: from label to what is measured.
      rounds: how often each is measured.
      warm: calls each once more before, for what a program does again and again, such as the
        steps of a training loop: after a rest the processor is slow for some milliseconds.
    """
    results: dict[str, list[T]] = {label: [] for label in contenders}
    for _ in range(rounds):
        for label, run in contenders.items():
            time.sleep(_REST)
            if warm:
                run()
            results[label].append(run())
    return results


def enough_rounds(contenders: Mapping[str, Callable[[], float]]) -> int:
    """Warms the contenders up, and says how many rounds fit into a few seconds.

    The first call compiles, and the second may do so again where a state changes its types.
    """
    interleave(contenders, 2)
    third = interleave(contenders, 1)
    seconds = sum(2 * spent + _REST for (spent,) in third.values())
    return int(np.clip(_BUDGET / seconds, _FEWEST, _MOST))


def ratios(own: Sequence[float], others: Sequence[float]) -> Spread:
    """Own time over the other's, round by round.

    >>> ratios([1.0, 2.0, 1.0], [2.0, 4.0, 2.0]).median
    0.5
    """
    return Spread.of([a / b for a, b in zip(own, others, strict=True)])


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a jitted `x + 1` on a large donated array."""
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = add_one(jnp.zeros(BANDWIDTH_ELEMENTS, jnp.float32)).block_until_ready()
    seconds = []
    for _ in range(_FEWEST):
        begin = time.perf_counter()
        x = add_one(x).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    moved: int = 2 * x.nbytes
    return moved / Spread.of(seconds).median
