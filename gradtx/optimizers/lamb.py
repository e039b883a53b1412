"""LAMB (You et al., 2019, arXiv:1904.00962, Algorithm 2).

u_t     = adam's u_t + weight_decay x_t
x_{t+1} = x_t - lr (|x_t| / |u_t|) u_t            norms of each leaf on its own
"""

from __future__ import annotations

from typing import Any

from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import hyper, static
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights, descend
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.trust import scale_by_trust_ratio


class lamb(Composed):
    """LAMB: AdamW whose step for each leaf is as long as the leaf, for large batches.

        u = adam's u + weight_decay x;  x <- x - lr (|x| / |u|) u

    The ratio is 1 where one of the norms is 0.

    Source: You et al., "Large batch optimization for deep learning: training BERT in 76
    minutes", 2019, arXiv:1904.00962, Algorithm 2, with phi the identity.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root: as for `scale_by_adam`.
      weight_decay, mask, peak_learning_rate: as for `adamw`.
      coupling: `'trust_ratio'`, which is the paper's: the decay is part of u; or one of
        those of `adamw`, which decay outside the ratio.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `params` is missing.

    >>> tx = gradtx.lamb(1e-3)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-6
    eps_root: Hyper = 0.0
    weight_decay: ScalarOrSchedule = 0.0
    mask: Any = static(default=None)
    coupling: str = static(default="trust_ratio", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        adam, ratio = (
            scale_by_adam(self.b1, self.b2, self.eps, self.eps_root),
            scale_by_trust_ratio(),
        )
        if self.coupling == "trust_ratio":
            decay = add_decayed_weights(self.weight_decay, self.mask)
            return chain(adam, decay, ratio, scale_by_learning_rate(self.learning_rate))
        return descend(self, adam, ratio)
