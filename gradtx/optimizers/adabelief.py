"""AdaBelief (Zhuang et al., 2020, arXiv:2010.07468, Algorithm 2).

    mu_t = b1 mu_{t-1} + (1 - b1) g_t
    nu_t = b2 nu_{t-1} + (1 - b2) (g_t - mu_t)^2 + eps_root
    u_t  = (mu_t / (1 - b1^t)) / (sqrt(nu_t / (1 - b2^t)) + eps)

eps_root is added into the state at every step, as in the paper.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction, check_nonnegative
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import abs_sq, bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static
from gradtx.transforms.decay import WithDecay, descend


class ScaleByBeliefState(NamedTuple):
    """The number of steps, the mean gradient, and the mean squared deviation from it."""

    count: Count  # type: ignore[assignment]
    mu: Annotated[Updates, Slot()]
    nu: Annotated[Updates, Slot(nonnegative=True)]


def belief_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + ((1 - b2) * abs_sq(g - mu) + eps_root)
    mu_hat = mu / bias_correction(b1, t)
    nu_hat = nu / bias_correction(b2, t)
    return mu_hat / (jnp.sqrt(nu_hat) + eps), mu, nu


def nesterov_belief_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + ((1 - b2) * abs_sq(g - mu) + eps_root)
    mu_hat = b1 * mu / bias_correction(b1, t + 1) + (1 - b1) * g / bias_correction(b1, t)
    nu_hat = nu / bias_correction(b2, t)
    return mu_hat / (jnp.sqrt(nu_hat) + eps), mu, nu


class scale_by_belief(GradientTransformation):
    """AdaBelief's stage: Adam's, with the variance of the gradient in the place of its square.

        mu <- b1 mu + (1 - b1) g;  nu <- b2 nu + (1 - b2) |g - mu|^2 + eps_root
        u = (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)

    Source: Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed
    gradients", 2020, arXiv:2010.07468, Algorithm 2.

    Args:
      b1, b2: decays of the moments, in [0, 1).
      eps: added outside the root, >= 0.
      eps_root: added into nu at every step, >= 0.
      nesterov: whether the first moment looks one step ahead.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_belief()
    >>> tx = gradtx.scale_by_belief(nesterov=True)
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-16
    eps_root: Hyper = 1e-16
    nesterov: bool = static(default=False, kw_only=True)

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)

    def init(self, params: Params) -> ScaleByBeliefState:
        return ScaleByBeliefState(zero_count(), zeros_like(params), zeros_like(params, real=True))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        rule = nesterov_belief_rule if self.nesterov else belief_rule
        t = safe_increment(state.count)
        updates, mu, nu = map_leaves(
            rule, updates, state.mu, state.nu,
            t=t, b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip
        return updates, ScaleByBeliefState(t, mu, nu)


class adabelief(WithDecay):
    """AdaBelief: steps are long where the gradient is as its mean predicts.

        nu <- b2 nu + (1 - b2) (g - mu)^2 + eps_root
        x <- x - lr (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)

    Source: Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed
    gradients", 2020, arXiv:2010.07468, Algorithm 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root, nesterov: as for `scale_by_belief`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.adabelief(1e-3)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-16
    eps_root: Hyper = 1e-16
    nesterov: bool = static(default=False, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(
            self, scale_by_belief(self.b1, self.b2, self.eps, self.eps_root, nesterov=self.nesterov)
        )
