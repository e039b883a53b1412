"""Adadelta (Zeiler, 2012, arXiv:1212.5701, Algorithm 1).

e_g_t = rho e_g_{t-1} + (1 - rho) g_t^2
u_t   = sqrt(e_x_{t-1} + eps) / sqrt(e_g_t + eps) g_t
e_x_t = rho e_x_{t-1} + (1 - rho) u_t^2

The update is formed from the new mean of squares, as then the old one can be overwritten in
place. With r = g_t^2 / (e_g_t + eps) the last two lines are

e_x_t = rho e_x_{t-1} + (1 - rho) (e_x_{t-1} + eps) r
u_t   = g_t sqrt((e_x_t + rho eps) / ((e_g_t + eps) (rho + (1 - rho) r)))
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction, check_positive
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import abs_sq
from gradtx.core.slot import Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import hyper, static
from gradtx.transforms.decay import alias, descend


class ScaleByAdaDeltaState(NamedTuple):
    """The running means of squared gradients and of squared updates."""

    e_g: Annotated[Updates, Slot(nonnegative=True)]
    e_x: Annotated[Updates, Slot(nonnegative=True)]


def adadelta_rule(
    g: jax.Array, e_g: jax.Array, e_x: jax.Array, *, rho: Hyper, eps: Hyper
) -> tuple[jax.Array, jax.Array, jax.Array]:
    square = abs_sq(g)
    e_g = rho * e_g + (1 - rho) * square
    if not (isinstance(rho, float) and rho > 0):  # a traced rho may be 0, and so may g
        u = jnp.sqrt(e_x + eps) / jnp.sqrt(e_g + eps) * g
        return u, e_g, rho * e_x + (1 - rho) * abs_sq(u)
    r = (g / (e_g + eps) * g.conj()).real
    e_x = rho * e_x + (1 - rho) * ((e_x + eps) * r)
    return g * jnp.sqrt((e_x + rho * eps) / (rho * (e_g + eps) + (1 - rho) * square)), e_g, e_x


class scale_by_adadelta(GradientTransformation):
    """Adadelta's stage: the update in units of past updates over those of past gradients.

        e_g <- rho e_g + (1 - rho) |g|^2;  u = sqrt(e_x + eps) / sqrt(e_g + eps) g
        e_x <- rho e_x + (1 - rho) |u|^2

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, arXiv:1212.5701,
    Algorithm 1.

    Args:
      rho: decay of both means, in [0, 1).
      eps: > 0; the first updates are of the size of its root.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_adadelta()
    """

    rho: Hyper = 0.9
    eps: Hyper = 1e-6

    def validate(self) -> None:
        check_fraction("rho", self.rho)
        check_positive("eps", self.eps)

    def init(self, params: Params) -> ScaleByAdaDeltaState:
        return ScaleByAdaDeltaState(zeros_like(params, real=True), zeros_like(params, real=True))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, e_g, e_x = map_leaves(
            adadelta_rule, updates, state.e_g, state.e_x, rho=self.rho, eps=self.eps
        )
        return updates, ScaleByAdaDeltaState(e_g, e_x)


class adadelta(Composed):
    """Adadelta: needs no learning rate, though it takes one.

        e_g <- rho e_g + (1 - rho) g^2;  u = sqrt(e_x + eps) / sqrt(e_g + eps) g
        e_x <- rho e_x + (1 - rho) u^2;  x <- x - lr u

    Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, arXiv:1212.5701,
    Algorithm 1.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule. With `None` there is no scaling and,
        as in Optax, no minus sign either: chain with `scale(-1)`. The paper's is 1.0.
      rho, eps: as for `scale_by_adadelta`.
      weight_decay, coupling, peak_learning_rate: as for `adamw`; L2 by default, as in Optax
        and PyTorch, and with `learning_rate=None` nothing else.
      weight_decay_mask, mask: two names for which leaves decay, as for `adamw`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; both masks
        are given. In `update`: `params` is missing.

    >>> tx = gradtx.adadelta(1.0)
    """

    learning_rate: ScalarOrSchedule | None = None
    rho: Hyper = 0.9
    eps: Hyper = 1e-6
    weight_decay: ScalarOrSchedule = 0.0
    weight_decay_mask: Any = static(default=None)
    mask: Any = static(default=None, kw_only=True)
    coupling: str = static(default="l2", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        mask = alias("mask", self.mask, "weight_decay_mask", self.weight_decay_mask)
        return descend(self, scale_by_adadelta(self.rho, self.eps), mask=mask)
