"""NovoGrad (Ginsburg et al., 2019, arXiv:1905.11286, Algorithm 1).

nu_t = |g_t|^2 at t = 1,  b2 nu_{t-1} + (1 - b2) |g_t|^2 after it     one number a leaf
d_t  = g_t / (sqrt(nu_t + eps_root) + eps) + weight_decay x_t
mu_t = d_t at t = 1,      b1 mu_{t-1} + d_t after it
u_t  = mu_t
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    check_fraction,
    check_nonnegative,
    value_at,
)
from gradtx.core.leaf import map_leaves, reduced_zeros_like, zeros_like
from gradtx.core.numerics import abs_sq, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Reduced, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, hyper, static
from gradtx.transforms.decay import add_decayed_weights, descend
from gradtx.transforms.scale import scale_by_learning_rate


class ScaleByNovogradState(NamedTuple):
    """The number of steps, the momentum, and each leaf's mean squared norm."""

    count: Count  # type: ignore[assignment]
    mu: Annotated[Updates, Slot()]
    nu: Annotated[Updates, Reduced()]


def novograd_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, p: jax.Array, *, t: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper, weight_decay: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    square = jnp.sum(abs_sq(g))
    nu = jnp.where(t == 1, square, b2 * nu + (1 - b2) * square)
    d = g / (jnp.sqrt(nu + eps_root) + eps) + weight_decay * p
    mu = b1 * mu + d  # mu is 0 before the first step
    return mu, mu, nu


class scale_by_novograd(GradientTransformation):
    """NovoGrad's stage: momentum of gradients that are normalised leaf by leaf.

        nu <- b2 nu + (1 - b2) |g|^2, at first |g|^2
        mu <- b1 mu + g / (sqrt(nu + eps_root) + eps) + weight_decay x

    Source: Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for
    training of deep networks", 2019, arXiv:1905.11286, Algorithm 1.

    Args:
      b1, b2: decays, in [0, 1).
      eps, eps_root: added outside and inside the root, >= 0.
      weight_decay: number >= 0, 0-d array, or (unlike Optax's) schedule; inside the momentum.
      mu_dtype: dtype of mu; by default the parameter's, at least float32.
      mask: which leaves decay, as for `add_decayed_weights`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `params` is missing.

    >>> tx = gradtx.scale_by_novograd()
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    b1: Hyper = 0.9
    b2: Hyper = 0.25
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    weight_decay: ScalarOrSchedule = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    mask: Any = static(default=None, kw_only=True)

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)
        add_decayed_weights(self.weight_decay, self.mask)

    def init(self, params: Params) -> ScaleByNovogradState:
        mu = zeros_like(params, self.mu_dtype)
        return ScaleByNovogradState(zero_count(), mu, reduced_zeros_like(params, lambda _: ()))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        if self.mask is not None:
            # The parameters that decay, and zeros in the place of the others.
            select = add_decayed_weights(1.0, self.mask)
            params, _ = select.transform(zeros_like(params), select.init(params), params)
        t = safe_increment(state.count)
        updates, mu, nu = map_leaves(
            novograd_rule, updates, state.mu, reduced=(state.nu,), reads=(params,),
            t=t, b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
            weight_decay=value_at(self.weight_decay, state.count),
        )  # fmt: skip
        return updates, ScaleByNovogradState(t, mu, nu)


class novograd(Composed):
    """NovoGrad: one second moment a leaf, so half of Adam's state.

        nu <- b2 nu + (1 - b2) |g|^2, at first |g|^2
        mu <- b1 mu + g / (sqrt(nu) + eps) + weight_decay x;  x <- x - lr mu

    Source: Ginsburg et al., "Stochastic gradient methods with layer-wise adaptive moments for
    training of deep networks", 2019, arXiv:1905.11286, Algorithm 1.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root: as for `scale_by_novograd`.
      weight_decay, mask, peak_learning_rate: as for `adamw`.
      coupling: `'momentum'`, which is the paper's: the decay is part of mu; or one of those of
        `adamw`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `params` is missing.

    >>> tx = gradtx.novograd(1e-2)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.25
    eps: Hyper = 1e-6
    eps_root: Hyper = 0.0
    weight_decay: ScalarOrSchedule = 0.0
    mask: Any = static(default=None, kw_only=True)
    coupling: str = static(default="momentum", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        if self.coupling != "momentum":
            return descend(self, scale_by_novograd(self.b1, self.b2, self.eps, self.eps_root))
        stage = scale_by_novograd(
            self.b1, self.b2, self.eps, self.eps_root, self.weight_decay, mask=self.mask
        )
        return chain(stage, scale_by_learning_rate(self.learning_rate))
