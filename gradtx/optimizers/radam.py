"""RAdam (Liu et al., 2019, arXiv:1908.03265, Algorithm 2).

rho_inf = 2 / (1 - b2) - 1
rho_t   = rho_inf - 2 t b2^t / (1 - b2^t)
r_t     = sqrt((rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t))
u_t     = r_t mu_hat_t / (sqrt(nu_hat_t + eps_root) + eps)    if rho_t >= threshold
u_t     = mu_hat_t                                            otherwise
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    as_float,
    check_fraction,
    check_nonnegative,
    check_number,
)
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import abs_sq, bias_correction, log_decay, safe_increment, zero_count
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import WithDecay, descend


def langevin(z: jax.Array) -> jax.Array:
    """coth(z) - 1/z for 0 <= z <= 1/4, by its series."""
    series = jnp.zeros_like(z)
    for c in (4 / 18243225, -1382 / 638512875, 2 / 93555, -1 / 4725, 2 / 945, -1 / 45, 1 / 3):
        series = series * z**2 + c
    return series * z


def rectification(t: jax.Array, b2: Hyper, threshold: Hyper) -> tuple[jax.Array, jax.Array]:
    """Whether the variance of nu is tractable at step t, and then r_t (else 1)."""
    rho_inf = 2 / (1 - b2) - 1
    # The difference of the definition cancels at the first steps: in float32 and b2 = 0.9999,
    # rho_5 = 4.9996 would come out above 5. With L(z) = coth z - 1/z, it is t - t L(z) + L(z/t).
    z = -0.5 * t * log_decay(b2)
    early = t - t * langevin(jnp.minimum(z, 0.25)) + langevin(jnp.minimum(z / t, 0.25))
    late = rho_inf + 2 * t * jnp.exp(-2 * z) / jnp.expm1(-2 * z)
    rho = jnp.where(z < 0.25, early, late)
    tractable = rho >= threshold
    safe = jnp.where(tractable, rho, rho_inf)
    r = jnp.sqrt((safe - 4) * (safe - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * safe))
    return tractable, jnp.where(tractable, r, 1.0)


def radam_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array, tractable: jax.Array, r: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * abs_sq(g)
    mu_hat = mu / bias_correction(b1, t)
    nu_hat = nu / bias_correction(b2, t)
    return mu_hat * jnp.where(tractable, r / (jnp.sqrt(nu_hat + eps_root) + eps), 1), mu, nu


def nesterov_radam_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array, tractable: jax.Array, r: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * abs_sq(g)
    mu_hat = b1 * mu / bias_correction(b1, t + 1) + (1 - b1) * g / bias_correction(b1, t)
    nu_hat = nu / bias_correction(b2, t)
    return mu_hat * jnp.where(tractable, r / (jnp.sqrt(nu_hat + eps_root) + eps), 1), mu, nu


class scale_by_radam(GradientTransformation):
    """RAdam's stage: Adam's, rectified, and plain momentum until that is defined.

        mu <- b1 mu + (1 - b1) g;  nu <- b2 nu + (1 - b2) |g|^2
        rho_t = rho_inf - 2 t b2^t / (1 - b2^t),  rho_inf = 2 / (1 - b2) - 1
        u = r_t mu_hat / (sqrt(nu_hat + eps_root) + eps) if rho_t >= threshold, else mu_hat

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", 2019,
    arXiv:1908.03265, Algorithm 2.

    Args:
      b1, b2, eps, eps_root, nesterov: as for `scale_by_adam`; b2 > 0.6, below which
        rho_inf <= 4 and r_t is not defined.
      threshold: the least rho_t for which the step is rectified, > 4. PyTorch takes rho_t > 5
        and Optax rho_t >= 5; the paper rho_t > 4.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_radam()
    >>> tx = gradtx.scale_by_radam(b2=0.9, nesterov=True)
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    threshold: Hyper = 5.0
    nesterov: bool = static(default=False, kw_only=True)

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_number("b2", self.b2, 0.6, 1.0, open_low=True, open_high=True)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)
        check_number("threshold", self.threshold, 4.0, open_low=True)

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(zero_count(), zeros_like(params), zeros_like(params, real=True))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        rule = nesterov_radam_rule if self.nesterov else radam_rule
        count = safe_increment(state.count)
        t = as_float(count)
        tractable, r = rectification(t, self.b2, self.threshold)
        updates, mu, nu = map_leaves(
            rule, updates, state.mu, state.nu, t=t, tractable=tractable, r=r,
            b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip
        return updates, ScaleByAdamState(count, mu, nu)


class radam(WithDecay):
    """RAdam: Adam that begins as momentum until its second moment can be trusted.

        x <- x - lr r_t mu_hat / (sqrt(nu_hat + eps_root) + eps)   if rho_t >= threshold
        x <- x - lr mu_hat                                         otherwise

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", 2019,
    arXiv:1908.03265, Algorithm 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root, threshold, nesterov: as for `scale_by_radam`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.radam(1e-3)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    threshold: Hyper = 5.0
    nesterov: bool = static(default=False, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(
            self,
            scale_by_radam(
                self.b1, self.b2, self.eps, self.eps_root, self.threshold, nesterov=self.nesterov
            ),
        )
