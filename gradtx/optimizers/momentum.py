"""Classical momentum, the second form (Sutskever et al., 2013, equations 1 and 2).

    v_t     = rho v_{t-1} - lr g_t
    x_{t+1} = x_t + v_t

The learning rate is inside the velocity. At a constant rate this is `sgd(lr, momentum=rho)`
step by step; under a schedule it is not, because past gradients keep the rate they came with.
"""

from __future__ import annotations

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_number
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import WithDecay, descend
from gradtx.transforms.trace import trace


class classical_momentum(WithDecay):
    """Momentum with the learning rate inside the velocity.

        v <- rho v - lr g;  x <- x + v

    Source: Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and
    momentum in deep learning", 2013, equations 1 and 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      momentum: rho, from 0 to 1. Number or 0-d array.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.classical_momentum(0.1, momentum=0.9)
    >>> tx = gradtx.classical_momentum(gradtx.linear_schedule(0.1, 0.0, 100))
    """

    learning_rate: ScalarOrSchedule
    momentum: Hyper = 0.9

    def validate(self) -> None:
        check_number("momentum", self.momentum, 0.0, 1.0)
        super().validate()

    def compose(self) -> GradientTransformation:
        return descend(self, momentum=trace(self.momentum))
