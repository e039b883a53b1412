"""NAdam (Dozat, 2016), with constant momentum or with Dozat's schedule of it.

    b_t  = b1 (1 - 0.96^(t psi) / 2)                 momentum at step t, psi = momentum_decay
    mu_t = b1 mu_{t-1} + (1 - b1) g_t
    nu_t = b2 nu_{t-1} + (1 - b2) g_t^2
    m_t  = b_{t+1} mu_t / (1 - b_1 ... b_{t+1}) + (1 - b_t) g_t / (1 - b_1 ... b_t)
    u_t  = m_t / (sqrt(nu_t / (1 - b2^t)) + eps)

With b_t = b1 throughout this is Adam with `nesterov=True`, which is Optax's NAdam; with the
schedule and psi = 0.004 it is PyTorch's.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.composed import Composed
from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    as_float,
    check_fraction,
    check_nonnegative,
)
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import abs_sq, bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Scalar, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, hyper, static
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import WithDecay, descend


class ScaleByNadamState(NamedTuple):
    """The number of steps, the product of the momenta so far, and the two moments."""

    count: Count  # type: ignore[assignment]
    momentum_product: Scalar
    mu: Annotated[Updates, Slot()]
    nu: Annotated[Updates, Slot(nonnegative=True)]


def nadam_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array,
    momentum: Hyper, next_momentum: Hyper, momentum_product: Hyper,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    mu = b1 * mu + (1 - b1) * g
    nu = b2 * nu + (1 - b2) * abs_sq(g)
    mu_hat = next_momentum * mu / (1 - momentum_product * next_momentum)
    g_hat = (1 - momentum) * g / (1 - momentum_product)
    nu_hat = nu / bias_correction(b2, t)
    return (mu_hat + g_hat) / (jnp.sqrt(nu_hat + eps_root) + eps), mu, nu


class scale_by_nadam(GradientTransformation):
    """NAdam's stage with Dozat's momentum schedule; PyTorch's NAdam.

        b_t = b1 (1 - 0.96^(t momentum_decay) / 2)
        mu <- b1 mu + (1 - b1) g;  nu <- b2 nu + (1 - b2) |g|^2
        u = (b_{t+1} mu / (1 - b_1...b_{t+1}) + (1 - b_t) g / (1 - b_1...b_t))
            / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Source: Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop, 2016,
    https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

    Args:
      b1, b2, eps, eps_root, mu_dtype: as for `scale_by_adam`.
      momentum_decay: psi, >= 0; at 0 the momentum is b1 / 2 throughout, and it reaches b1
        the sooner the larger psi is.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_nadam()
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    momentum_decay: Hyper = hyper(default=4e-3, kw_only=True)

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)
        check_nonnegative("momentum_decay", self.momentum_decay)

    def init(self, params: Params) -> ScaleByNadamState:
        mu, nu = zeros_like(params, self.mu_dtype), zeros_like(params, real=True)
        return ScaleByNadamState(zero_count(), as_float(1.0), mu, nu)

    def momentum(self, t: jax.Array) -> Hyper:
        """b_t, the momentum at step t, counted from 1."""
        return self.b1 * (1 - 0.5 * jnp.exp(math.log(0.96) * self.momentum_decay * t))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        count = safe_increment(state.count)
        t = as_float(count)
        momentum, next_momentum = self.momentum(t), self.momentum(t + 1)
        product = (state.momentum_product * momentum).astype(state.momentum_product.dtype)
        updates, mu, nu = map_leaves(
            nadam_rule, updates, state.mu, state.nu,
            t=t, momentum=momentum, next_momentum=next_momentum, momentum_product=product,
            b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip
        return updates, ScaleByNadamState(count, product, mu, nu)


class nadam(WithDecay):
    """NAdam: Adam with Nesterov's momentum.

        x <- x - lr (b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t))
                    / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Source: Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop, 2016,
    https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as for `scale_by_adam`.
      momentum_decay: `None` for constant momentum, as Optax; a number such as 4e-3 for
        Dozat's momentum schedule, as PyTorch (see `scale_by_nadam`). The two differ by as
        much as two different algorithms.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range;
        `momentum_decay` with `nesterov=False`.

    >>> tx = gradtx.nadam(1e-3)
    >>> tx = gradtx.nadam(2e-3, momentum_decay=4e-3)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    nesterov: bool = static(default=True, kw_only=True)
    momentum_decay: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(self, _stage(self))


class nadamw(Composed):
    """NAdamW: NAdam with decoupled weight decay.

        x <- x - lr (nadam's u + weight_decay x)

    Source: Dozat, 2016, and Loshchilov, Hutter, 2017, arXiv:1711.05101; used as a baseline by
    Dahl et al., "Benchmarking neural network training algorithms", 2023, arXiv:2306.07179.

    Args:
      learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov, momentum_decay: as for `nadam`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `params` is missing.

    >>> tx = gradtx.nadamw(1e-3)
    >>> tx = gradtx.nadamw(2e-3, weight_decay=0.01, momentum_decay=4e-3)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    weight_decay: ScalarOrSchedule = 1e-4
    mask: Any = static(default=None)
    nesterov: bool = static(default=True, kw_only=True)
    momentum_decay: Hyper | None = hyper(default=None, kw_only=True)
    coupling: str = static(default="learning_rate", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(self, _stage(self))


def _stage(tx: nadam | nadamw) -> GradientTransformation:
    if tx.momentum_decay is None:
        return scale_by_adam(tx.b1, tx.b2, tx.eps, tx.eps_root, tx.mu_dtype, nesterov=tx.nesterov)
    if not tx.nesterov:
        raise ValueError("momentum_decay schedules Nesterov's momentum: it needs nesterov=True")
    return scale_by_nadam(
        tx.b1, tx.b2, tx.eps, tx.eps_root, tx.mu_dtype, momentum_decay=tx.momentum_decay
    )
