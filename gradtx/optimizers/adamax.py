"""Adamax (Kingma & Ba, 2014, arXiv:1412.6980, Algorithm 2): Adam in the infinity norm.

mu_t = b1 mu_{t-1} + (1 - b1) g_t
nu_t = max(b2 nu_{t-1}, |g_t| + eps)
u_t  = (mu_t / (1 - b1^t)) / nu_t
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction, check_positive
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import bias_correction, safe_increment, zero_count
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import hyper, static
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import WithDecay, descend


def adamax_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array, b1: Hyper, b2: Hyper, eps: Hyper
) -> tuple[jax.Array, jax.Array, jax.Array]:
    mu = b1 * mu + (1 - b1) * g
    nu = jnp.maximum(b2 * nu, jnp.abs(g) + eps)
    return mu / bias_correction(b1, t) / nu, mu, nu


class scale_by_adamax(GradientTransformation):
    """Adamax's stage: the mean gradient over a decaying maximum of absolute gradients.

        mu <- b1 mu + (1 - b1) g;  nu <- max(b2 nu, |g| + eps);  u = (mu / (1 - b1^t)) / nu

    Source: Kingma, Ba, "Adam: a method for stochastic optimization", 2014, arXiv:1412.6980,
    Algorithm 2; eps, which the paper does not have, as in Optax and PyTorch.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the maximum, in [0, 1).
      eps: > 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_adamax()
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_positive("eps", self.eps)

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(zero_count(), zeros_like(params), zeros_like(params, real=True))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        t = safe_increment(state.count)
        updates, mu, nu = map_leaves(
            adamax_rule, updates, state.mu, state.nu, t=t, b1=self.b1, b2=self.b2, eps=self.eps
        )
        return updates, ScaleByAdamState(t, mu, nu)


class adamax(WithDecay):
    """Adamax: Adam with a decaying maximum in the place of the second moment.

        mu <- b1 mu + (1 - b1) g;  nu <- max(b2 nu, |g| + eps)
        x <- x - lr (mu / (1 - b1^t)) / nu

    Source: Kingma, Ba, "Adam: a method for stochastic optimization", 2014, arXiv:1412.6980,
    Algorithm 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps: as for `scale_by_adamax`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.adamax(2e-3)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_adamax(self.b1, self.b2, self.eps))


class adamaxw(Composed):
    """AdamaxW: Adamax with decoupled weight decay.

        x <- x - lr (adamax's u + weight_decay x)

    Source: Kingma, Ba, 2014, arXiv:1412.6980, Algorithm 2; Loshchilov, Hutter, 2017,
    arXiv:1711.05101.

    Args:
      learning_rate, b1, b2, eps: as for `adamax`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `params` is missing.

    >>> tx = gradtx.adamaxw(2e-3, weight_decay=0.01)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    weight_decay: ScalarOrSchedule = 1e-4
    mask: Any = static(default=None)
    coupling: str = static(default="learning_rate", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_adamax(self.b1, self.b2, self.eps))
