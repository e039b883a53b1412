"""Adan (Xie et al., 2022, arXiv:2208.06677, Algorithm 1), with the decays b = 1 - beta.

    d_t = g_t - g_{t-1}   (0 at the first step)
    m_t = b1 m_{t-1} + (1 - b1) g_t
    v_t = b2 v_{t-1} + (1 - b2) d_t
    n_t = b3 n_{t-1} + (1 - b3) (g_t + b2 d_t)^2
    u_t = (m_hat_t + b2 v_hat_t) / (sqrt(n_hat_t + eps_root) + eps)

Each hat divides by 1 - b^t, as in the authors' code; the paper starts m and n at g_1 and g_1^2
instead. The difference weighs 1 - beta2 = b2 in both places.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction, check_nonnegative
from gradtx.core.leaf import map_leaves, written_after, zeros_like
from gradtx.core.numerics import abs_sq, bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import hyper, static
from gradtx.transforms.decay import descend


class ScaleByAdanState(NamedTuple):
    """Means of gradients, of their differences and of squares; the last gradient; the steps."""

    m: Annotated[Updates, Slot()]
    v: Annotated[Updates, Slot()]
    n: Annotated[Updates, Slot(nonnegative=True)]
    g: Annotated[Updates, Slot()]
    t: Count


def adan_rule(
    g: jax.Array, m: jax.Array, v: jax.Array, n: jax.Array, g_old: jax.Array, *,
    t: jax.Array, b1: Hyper, b2: Hyper, b3: Hyper, eps: Hyper, eps_root: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:  # fmt: skip
    d = jnp.where(t == 1, 0, g - g_old)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * d
    n = b3 * n + (1 - b3) * abs_sq(g + b2 * d)
    m_hat = m / bias_correction(b1, t)
    v_hat = v / bias_correction(b2, t)
    n_hat = n / bias_correction(b3, t)
    u = (m_hat + b2 * v_hat) / (jnp.sqrt(n_hat + eps_root) + eps)
    return u, m, v, n, written_after(g, v, n)


class scale_by_adan(GradientTransformation):
    """Adan's stage: Adam with Nesterov's momentum from differences of gradients.

        d = g - g_old;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) d
        n <- b3 n + (1 - b3) |g + b2 d|^2
        u = (m_hat + b2 v_hat) / (sqrt(n_hat + eps_root) + eps)

    Source: Xie, Zhou, Li, Lin, Yan, "Adan: adaptive Nesterov momentum algorithm for faster
    optimizing deep models", 2022, arXiv:2208.06677, Algorithm 1; the bias corrections as in
    the authors' code. Optax weighs d by 1 - b2 where the paper's weight is b2 (optax#1715).

    Args:
      b1, b2, b3: decays of m, v and n, in [0, 1); one minus the paper's betas.
      eps: added outside the root, >= 0.
      eps_root: added inside the root, >= 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_adan()
    """

    b1: Hyper = 0.98
    b2: Hyper = 0.92
    b3: Hyper = 0.99
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_fraction("b3", self.b3)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)

    def init(self, params: Params) -> ScaleByAdanState:
        return ScaleByAdanState(
            m=zeros_like(params),
            v=zeros_like(params),
            n=zeros_like(params, real=True),
            g=zeros_like(params),
            t=zero_count(),
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        t = safe_increment(state.t)
        updates, m, v, n, g = map_leaves(
            adan_rule, updates, state.m, state.v, state.n, state.g,
            t=t, b1=self.b1, b2=self.b2, b3=self.b3, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip
        return updates, ScaleByAdanState(m, v, n, g, t)


class adan(Composed):
    """Adan: adaptive Nesterov momentum, with decoupled weight decay.

        x <- x - lr ((m_hat + b2 v_hat) / (sqrt(n_hat + eps_root) + eps) + weight_decay x)

    Source: Xie, Zhou, Li, Lin, Yan, "Adan: adaptive Nesterov momentum algorithm for faster
    optimizing deep models", 2022, arXiv:2208.06677, Algorithm 1; the decay as in AdamW, not
    the paper's division by 1 + lr weight_decay.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, b3, eps, eps_root: as for `scale_by_adan`; Optax's default of eps_root here acts
        like an eps of 1e-4.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `params` is missing.

    >>> tx = gradtx.adan(1e-3)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.98
    b2: Hyper = 0.92
    b3: Hyper = 0.99
    eps: Hyper = 1e-8
    eps_root: Hyper = 1e-8
    weight_decay: ScalarOrSchedule = 0.0
    mask: Any = static(default=None)
    coupling: str = static(default="learning_rate", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_adan(self.b1, self.b2, self.b3, self.eps, self.eps_root))
