"""signSGD and Signum (Bernstein et al., 2018, arXiv:1802.04434, Algorithms 1 and 2).

u_t = sign(g_t)                                           signSGD

m_t = beta m_{t-1} + (1 - beta) g_t                       Signum
u_t = sign(m_t)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction
from gradtx.core.leaf import map_leaves
from gradtx.core.slot import Params, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype
from gradtx.transforms.decay import WithDecay, descend
from gradtx.transforms.stateless import Stateless
from gradtx.transforms.trace import ema


def sign_rule(u: jax.Array) -> jax.Array:
    return jnp.sign(u)


class scale_by_sign(Stateless):
    """u <- sign(u); zero stays zero, and a complex u becomes u / |u|.

    Source: Bernstein et al., "signSGD: compressed optimisation for non-convex problems",
    2018, arXiv:1802.04434.

    >>> tx = gradtx.scale_by_sign()
    """

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(sign_rule, updates)


class sign_sgd(WithDecay):
    """signSGD: every parameter moves by the learning rate.

        x <- x - lr sign(g)

    Source: Bernstein et al., "signSGD: compressed optimisation for non-convex problems",
    2018, arXiv:1802.04434, Algorithm 1.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: `learning_rate` is not a number, or negative.

    >>> tx = gradtx.sign_sgd(1e-3)
    """

    learning_rate: ScalarOrSchedule

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_sign())


class signum(WithDecay):
    """Signum: signSGD on a running mean of gradients.

        m <- beta m + (1 - beta) g;  x <- x - lr sign(m)

    Source: Bernstein et al., "signSGD: compressed optimisation for non-convex problems",
    2018, arXiv:1802.04434, Algorithm 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      beta: decay of the mean, in [0, 1).
      accumulator_dtype: dtype of the mean; by default the parameter's, at least float32.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.signum(1e-3)
    """

    learning_rate: ScalarOrSchedule
    beta: Hyper = 0.9
    accumulator_dtype: DTypeLike | None = dtype(default=None)

    def validate(self) -> None:
        check_fraction("beta", self.beta)
        super().validate()

    def compose(self) -> GradientTransformation:
        return descend(self, ema(self.beta, False, self.accumulator_dtype), scale_by_sign())
