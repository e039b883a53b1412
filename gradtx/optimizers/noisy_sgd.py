"""Gradient descent with annealed noise (Neelakantan et al., 2015, arXiv:1511.06807).

u_t = g_t + sqrt(eta / t^gamma) n_t,   n_t ~ N(0, 1)
"""

from __future__ import annotations

from typing import Any

from gradtx.core.hyper import Hyper, ScalarOrSchedule
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static
from gradtx.transforms.decay import WithDecay, descend
from gradtx.transforms.noise import add_noise


class noisy_sgd(WithDecay):
    """Gradient descent with annealed Gaussian noise.

        x <- x - lr (g + sqrt(eta / t^gamma) n),  n ~ N(0, 1)

    Source: Neelakantan et al., "Adding gradient noise improves learning for very deep
    networks", 2015, arXiv:1511.06807.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      eta, gamma, key: as for `add_noise`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.noisy_sgd(0.1, key=0)
    """

    learning_rate: ScalarOrSchedule
    eta: Hyper = 0.01
    gamma: Hyper = 0.55
    key: Any = static(default=0)

    def compose(self) -> GradientTransformation:
        return descend(self, add_noise(self.eta, self.gamma, self.key))
