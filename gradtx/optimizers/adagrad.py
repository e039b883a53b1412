"""AdaGrad (Duchi, Hazan, Singer, 2011).

s_t = s_{t-1} + g_t^2
u_t = g_t / sqrt(s_t + eps)            eps inside the root (Optax), or
u_t = g_t / (sqrt(s_t) + eps)          outside (the lecture, PyTorch)
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_nonnegative
from gradtx.core.leaf import full_like, map_leaves
from gradtx.core.numerics import abs_sq
from gradtx.core.slot import Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static
from gradtx.transforms.decay import WithDecay, descend


class ScaleByRssState(NamedTuple):
    """The running sum of squares."""

    sum_of_squares: Annotated[Updates, Slot(nonnegative=True)]


def adagrad_rule(g: jax.Array, s: jax.Array, *, eps: Hyper) -> tuple[jax.Array, jax.Array]:
    s = s + abs_sq(g)
    return g / (jnp.sqrt(s) + eps), s


def adagrad_eps_in_sqrt_rule(
    g: jax.Array, s: jax.Array, *, eps: Hyper
) -> tuple[jax.Array, jax.Array]:
    s = s + abs_sq(g)
    return g * jnp.where(s > 0, jax.lax.rsqrt(s + eps), 0), s


class scale_by_rss(GradientTransformation):
    """Divides by the root of the sum of all squared gradients so far: AdaGrad's stage.

        s <- s + |g|^2;  u = g / sqrt(s + eps), or g / (sqrt(s) + eps)

    Source: Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011.

    Args:
      initial_accumulator_value: s before the first step, >= 0.
      eps: keeps the quotient bounded, >= 0; with `eps_in_sqrt=False` it must be positive
        where a gradient can be zero and `initial_accumulator_value` is 0.
      eps_in_sqrt: eps inside the root (Optax, Keras) or outside (the lecture, PyTorch).

    Raises:
      TypeError, ValueError: an argument is not a number, or negative.

    >>> tx = gradtx.scale_by_rss()
    >>> tx = gradtx.scale_by_rss(initial_accumulator_value=0.0, eps_in_sqrt=False)
    """

    initial_accumulator_value: Hyper = 0.1
    eps: Hyper = 1e-7
    eps_in_sqrt: bool = static(default=True)

    def validate(self) -> None:
        check_nonnegative("initial_accumulator_value", self.initial_accumulator_value)
        check_nonnegative("eps", self.eps)

    def init(self, params: Params) -> ScaleByRssState:
        return ScaleByRssState(full_like(params, self.initial_accumulator_value, real=True))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        rule = adagrad_eps_in_sqrt_rule if self.eps_in_sqrt else adagrad_rule
        updates, s = map_leaves(rule, updates, state.sum_of_squares, eps=self.eps)
        return updates, ScaleByRssState(s)


class adagrad(WithDecay):
    """AdaGrad: each parameter's rate falls with the gradients that it has seen.

        s <- s + g^2;  x <- x - lr g / sqrt(s + eps), or x - lr g / (sqrt(s) + eps)

    The defaults are Optax's. The lecture's form is
    `adagrad(lr, initial_accumulator_value=0.0, eps=1e-7, eps_in_sqrt=False)`; PyTorch's is
    the same with `eps=1e-10`.

    Source: Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and
    stochastic optimization", JMLR 12, 2011.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      initial_accumulator_value, eps, eps_in_sqrt: as for `scale_by_rss`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or negative.

    >>> tx = gradtx.adagrad(0.1)
    >>> tx = gradtx.adagrad(0.1, initial_accumulator_value=0.0, eps_in_sqrt=False)
    """

    learning_rate: ScalarOrSchedule
    initial_accumulator_value: Hyper = 0.1
    eps: Hyper = 1e-7
    eps_in_sqrt: bool = static(default=True)

    def compose(self) -> GradientTransformation:
        return descend(
            self, scale_by_rss(self.initial_accumulator_value, self.eps, self.eps_in_sqrt)
        )
