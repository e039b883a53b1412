"""Fromage (Bernstein et al., 2020, arXiv:2002.03432, Algorithm 1).

x_{t+1} = (x_t - lr (|x_t| / |g_t|) g_t) / sqrt(1 + lr^2)         norms of each leaf
"""

from __future__ import annotations

from typing import Any

from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, Schedule, check_rate, value_at
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.trust import scale_by_trust_ratio


class _ShrunkRate(Schedule):
    """lr / sqrt(1 + lr^2) for a scheduled lr."""

    learning_rate: ScalarOrSchedule

    def __call__(self, count: Any) -> Any:
        rate = value_at(self.learning_rate, count)
        return rate * (1 + rate * rate) ** -0.5


class _Shrinkage(Schedule):
    """1 / sqrt(1 + lr^2) - 1 for a scheduled lr."""

    learning_rate: ScalarOrSchedule

    def __call__(self, count: Any) -> Any:
        rate = value_at(self.learning_rate, count)
        square = rate * rate
        root = (1 + square) ** 0.5
        return -square / (root + 1 + square)  # 1 / root - 1 without its cancellation


class _shrink(add_decayed_weights):
    """`add_decayed_weights` with the negative rate that shrinks parameters."""

    def validate(self) -> None:
        pass


class fromage(Composed):
    """Fromage: turns each leaf by an angle, and keeps its norm from growing.

        x <- (x - lr (|x| / |g|) g) / sqrt(1 + lr^2)

    The ratio of the norms, each of one leaf, is 1 where one of them is 0.

    Source: Bernstein, Vahdat, Yue, Liu, "On the distance between two neural networks and the
    stability of learning", 2020, arXiv:2002.03432, Algorithm 1.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      min_norm: the least value of both norms, >= 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or negative. In `update`: `params`
        is missing.

    >>> tx = gradtx.fromage(0.01)
    """

    learning_rate: ScalarOrSchedule
    min_norm: Hyper = 1e-6

    def validate(self) -> None:
        check_rate("learning_rate", self.learning_rate)
        super().validate()

    def compose(self) -> GradientTransformation:
        rate = self.learning_rate
        scheduled = callable(rate)
        return chain(
            scale_by_trust_ratio(self.min_norm),
            scale_by_learning_rate(_ShrunkRate(rate) if scheduled else _ShrunkRate(rate)(0)),
            _shrink(_Shrinkage(rate) if scheduled else _Shrinkage(rate)(0)),
        )
