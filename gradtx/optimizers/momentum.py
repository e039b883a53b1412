"""Classical momentum, the second form (Sutskever et al., 2013, equations 1 and 2).

    v_t     = rho v_{t-1} - lr g_t
    x_{t+1} = x_t + v_t

The learning rate is inside the velocity. At a constant rate this is `sgd(lr, momentum=rho)`
step by step; under a schedule it is not, because past gradients keep the rate they came with.
"""

from __future__ import annotations

from gradtx.core.compose import chain
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_number
from gradtx.core.transformation import Composed, GradientTransformation
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.trace import trace


class classical_momentum(Composed):
    """Momentum with the learning rate inside the velocity.

        v <- rho v - lr g;  x <- x + v

    Source: Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and
    momentum in deep learning", 2013, equations 1 and 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      momentum: rho, from 0 to 1. Number or 0-d array.

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
        return chain(scale_by_learning_rate(self.learning_rate), trace(self.momentum))
