"""AMSGrad (Reddi, Kale, Kumar, 2018, arXiv:1904.09237, Algorithm 2).

    mu_t     = b1 mu_{t-1} + (1 - b1) g_t
    nu_t     = b2 nu_{t-1} + (1 - b2) g_t^2
    nu_max_t = max(nu_max_{t-1}, nu_t)
    u_t      = mu_t / sqrt(nu_max_t)

The paper corrects no bias. Optax takes the maximum of the corrected nu_t, so that
nu_max >= g_1^2 for ever; PyTorch takes that of the raw nu_t and corrects nu_max.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    as_float,
    check_fraction,
    check_nonnegative,
)
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import abs_sq, bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, static
from gradtx.transforms.decay import WithDecay, descend


class ScaleByAmsgradState(NamedTuple):
    """The number of steps, the two moments, and the largest second moment so far."""

    count: Count  # type: ignore[assignment]
    mu: Annotated[Updates, Slot()]
    nu: Annotated[Updates, Slot(nonnegative=True)]
    nu_max: Annotated[Updates, Slot(nonnegative=True)]


def amsgrad_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, nu_max: jax.Array, *,
    mu_correction: Hyper, nu_correction: Hyper, b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * abs_sq(g)
    nu_max = jnp.maximum(nu_max, nu / nu_correction)
    return mu / mu_correction / (jnp.sqrt(nu_max + eps_root) + eps), mu, nu, nu_max


def amsgrad_max_first_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, nu_max: jax.Array, *,
    mu_correction: Hyper, nu_correction: Hyper, b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * abs_sq(g)
    nu_max = jnp.maximum(nu_max, nu)
    nu_hat = nu_max / nu_correction
    return mu / mu_correction / (jnp.sqrt(nu_hat + eps_root) + eps), mu, nu, nu_max


class scale_by_amsgrad(GradientTransformation):
    """AMSGrad's stage: Adam's, with a second moment that never falls.

        mu <- b1 mu + (1 - b1) g;  nu <- b2 nu + (1 - b2) |g|^2
        nu_max <- max(nu_max, nu / (1 - b2^t))
        u = (mu / (1 - b1^t)) / (sqrt(nu_max + eps_root) + eps)

    Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", 2018,
    arXiv:1904.09237, Algorithm 2 (which has neither correction).

    Args:
      b1, b2, eps, eps_root, mu_dtype: as for `scale_by_adam`.
      bias_correction_mu: whether mu is divided by 1 - b1^t.
      bias_correction_nu: whether nu is divided by 1 - b2^t.
      max_before_correction: PyTorch's order: nu_max <- max(nu_max, nu), and the step uses
        nu_max / (1 - b2^t).

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_amsgrad()
    >>> tx = gradtx.scale_by_amsgrad(max_before_correction=True)
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    bias_correction_mu: bool = static(default=True)
    bias_correction_nu: bool = static(default=True)
    max_before_correction: bool = static(default=False, kw_only=True)

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)

    def init(self, params: Params) -> ScaleByAmsgradState:
        return ScaleByAmsgradState(
            zero_count(),
            zeros_like(params, self.mu_dtype),
            zeros_like(params, real=True),
            zeros_like(params, real=True),
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        rule = amsgrad_max_first_rule if self.max_before_correction else amsgrad_rule
        count = safe_increment(state.count)
        t = as_float(count)
        updates, mu, nu, nu_max = map_leaves(
            rule, updates, state.mu, state.nu, state.nu_max,
            mu_correction=bias_correction(self.b1, t) if self.bias_correction_mu else 1.0,
            nu_correction=bias_correction(self.b2, t) if self.bias_correction_nu else 1.0,
            b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip
        return updates, ScaleByAmsgradState(count, mu, nu, nu_max)


class amsgrad(WithDecay):
    """AMSGrad: Adam whose per-parameter rate never rises.

        nu_max <- max(nu_max, nu / (1 - b2^t))
        x <- x - lr (mu / (1 - b1^t)) / (sqrt(nu_max + eps_root) + eps)

    Source: Reddi, Kale, Kumar, "On the convergence of Adam and beyond", 2018,
    arXiv:1904.09237, Algorithm 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu,
        max_before_correction: as for `scale_by_amsgrad`; the last selects PyTorch's form.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.amsgrad(1e-3)
    >>> tx = gradtx.amsgrad(1e-3, max_before_correction=True)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    bias_correction_mu: bool = static(default=True)
    bias_correction_nu: bool = static(default=True)
    max_before_correction: bool = static(default=False, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(
            self,
            scale_by_amsgrad(
                self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype,
                self.bias_correction_mu, self.bias_correction_nu,
                max_before_correction=self.max_before_correction,
            ),
        )  # fmt: skip
