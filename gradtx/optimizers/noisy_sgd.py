"""Gradient descent with annealed noise (Neelakantan et al., 2015, arXiv:1511.06807).

u_t = g_t + sqrt(eta / t^gamma) n_t,   n_t ~ N(0, 1)
"""

from __future__ import annotations

from typing import Any

from gradtx.core.compose import chain
from gradtx.core.hyper import Hyper, ScalarOrSchedule
from gradtx.core.transformation import Composed, GradientTransformation
from gradtx.core.value import static
from gradtx.transforms.noise import add_noise
from gradtx.transforms.scale import scale_by_learning_rate


class noisy_sgd(Composed):
    """Gradient descent with annealed Gaussian noise.

        x <- x - lr (g + sqrt(eta / t^gamma) n),  n ~ N(0, 1)

    Source: Neelakantan et al., "Adding gradient noise improves learning for very deep
    networks", 2015, arXiv:1511.06807.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      eta, gamma, key: as for `add_noise`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.noisy_sgd(0.1, key=0)
    """

    learning_rate: ScalarOrSchedule
    eta: Hyper = 0.01
    gamma: Hyper = 0.55
    key: Any = static(default=0)

    def compose(self) -> GradientTransformation:
        return chain(
            add_noise(self.eta, self.gamma, self.key), scale_by_learning_rate(self.learning_rate)
        )
