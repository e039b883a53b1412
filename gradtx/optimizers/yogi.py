"""Yogi (Zaheer et al., 2018, Algorithm 2).

mu_t = b1 mu_{t-1} + (1 - b1) g_t
nu_t = nu_{t-1} - (1 - b2) sign(nu_{t-1} - g_t^2) g_t^2
u_t  = (mu_t / (1 - b1^t)) / (sqrt(nu_t / (1 - b2^t) + eps_root) + eps)

The paper has neither the bias corrections nor eps_root.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction, check_nonnegative
from gradtx.core.leaf import full_like, map_leaves
from gradtx.core.numerics import abs_sq, bias_correction, safe_increment, zero_count
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import WithDecay, descend


def yogi_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = nu - (1 - b2) * jnp.sign(nu - abs_sq(g)) * abs_sq(g)
    mu_hat = mu / bias_correction(b1, t)
    nu_hat = nu / bias_correction(b2, t)
    return mu_hat / (jnp.sqrt(nu_hat + eps_root) + eps), mu, nu


class scale_by_yogi(GradientTransformation):
    """Yogi's stage: Adam's, with a second moment that changes by at most (1 - b2) g^2 a step.

        mu <- b1 mu + (1 - b1) g;  nu <- nu - (1 - b2) sign(nu - |g|^2) |g|^2
        u = (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Source: Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive methods for nonconvex optimization",
    NeurIPS 2018, Algorithm 2; the bias corrections as in Optax.

    Args:
      b1, b2: decays, in [0, 1).
      eps: added outside the root, >= 0.
      eps_root: added inside the root, >= 0.
      initial_accumulator_value: both moments before the first step, as in Optax, >= 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_yogi()
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-3
    eps_root: Hyper = 0.0
    initial_accumulator_value: Hyper = 1e-6

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)
        check_nonnegative("initial_accumulator_value", self.initial_accumulator_value)

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(
            zero_count(),
            full_like(params, self.initial_accumulator_value),
            full_like(params, self.initial_accumulator_value, real=True),
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        t = safe_increment(state.count)
        updates, mu, nu = map_leaves(
            yogi_rule, updates, state.mu, state.nu,
            t=t, b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip
        return updates, ScaleByAdamState(t, mu, nu)


class yogi(WithDecay):
    """Yogi: Adam whose second moment forgets slowly.

        nu <- nu - (1 - b2) sign(nu - g^2) g^2
        x <- x - lr (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)

    Source: Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive methods for nonconvex optimization",
    NeurIPS 2018, Algorithm 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps: as for `scale_by_yogi`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.yogi(1e-2)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-3

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_yogi(self.b1, self.b2, self.eps))
