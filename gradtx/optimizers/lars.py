"""LARS (You, Gitman, Ginsburg, 2017, arXiv:1708.03888, Algorithm 1).

u_t     = g_t + weight_decay x_t
v_t     = rho v_{t-1} - lr trust_coefficient (|x_t| / |u_t|) u_t     norms of each leaf
x_{t+1} = x_t + v_t

The paper divides by |g_t| + weight_decay |x_t| where this, as Optax's, divides by |u_t|.
"""

from __future__ import annotations

from typing import Any

from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_number
from gradtx.core.select import masked
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import hyper, static
from gradtx.transforms.decay import alias, descend
from gradtx.transforms.trace import trace
from gradtx.transforms.trust import scale_by_trust_ratio


class lars(Composed):
    """LARS: momentum whose rate for each leaf follows the leaf's norm, for large batches.

        u = g + weight_decay x
        v <- rho v - lr trust_coefficient (|x| / (|u| + eps)) u;  x <- x + v

    The ratio, with its coefficient, is 1 where one of the norms is 0. The learning rate is
    inside the momentum. As in Optax the norm below is that of g + weight_decay x; the paper
    has |g| + weight_decay |x|, which is the same without decay.

    Source: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017,
    arXiv:1708.03888, Algorithm 1.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      weight_decay, coupling, peak_learning_rate: as for `adamw`; L2 by default, as above.
      weight_decay_mask, mask: two names for which leaves decay, as for `adamw`.
      trust_coefficient, eps: as for `scale_by_trust_ratio`.
      trust_ratio_mask: for which leaves the ratio is taken; 1 elsewhere.
      momentum: rho, from 0 to 1.
      nesterov: whether the momentum looks ahead.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; both masks
        are given. In `update`: `params` is missing.

    >>> tx = gradtx.lars(0.1)
    """

    learning_rate: ScalarOrSchedule
    weight_decay: ScalarOrSchedule = 0.0
    weight_decay_mask: Any = static(default=True)
    trust_coefficient: Hyper = 0.001
    eps: Hyper = 0.0
    trust_ratio_mask: Any = static(default=True)
    momentum: Hyper = 0.9
    nesterov: bool = static(default=False)
    mask: Any = static(default=None, kw_only=True)
    coupling: str = static(default="l2", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def validate(self) -> None:
        check_number("momentum", self.momentum, 0.0, 1.0)
        super().validate()

    def compose(self) -> GradientTransformation:
        ratio = scale_by_trust_ratio(trust_coefficient=self.trust_coefficient, eps=self.eps)
        return descend(
            self,
            masked(ratio, self.trust_ratio_mask),
            momentum=trace(self.momentum, self.nesterov),
            mask=alias("mask", self.mask, "weight_decay_mask", self.weight_decay_mask, True),
        )
