"""Rprop (Riedmiller & Braun, 1993) without weight backtracking: iRprop- (Igel & Huesken, 2000).

s_t = g_t g_{t-1}
d_t = clip(eta_plus d_{t-1})  if s_t > 0,   clip(eta_minus d_{t-1})  if s_t < 0,   else d_{t-1}
g_t <- 0                      if s_t < 0
u_t = d_t sign(g_t)
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    check_nonnegative,
    check_number,
    check_positive,
)
from gradtx.core.leaf import full_like, map_leaves, zeros_like
from gradtx.core.slot import Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import hyper, static
from gradtx.transforms.decay import add_decayed_weights, check_mask
from gradtx.transforms.scale import scale


class ScaleByRpropState(NamedTuple):
    """The step size of every parameter, and its last update."""

    step_sizes: Annotated[Updates, Slot(nonnegative=True)]
    prev_updates: Annotated[Updates, Slot()]


def rprop_rule(
    g: jax.Array, d: jax.Array, u_old: jax.Array, *,
    eta_minus: Hyper, eta_plus: Hyper, min_step_size: Hyper, max_step_size: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    # The last update has the last gradient's sign. Signs, since g u_old may underflow.
    s = (jnp.sign(g) * jnp.sign(u_old).conj()).real
    factor = jnp.where(s > 0, eta_plus, eta_minus)
    d = jnp.where(s == 0, d, jnp.clip(d * factor, min_step_size, max_step_size))
    u = jnp.where(s < 0, 0, d * jnp.sign(g))
    return u, d, u


class scale_by_rprop(GradientTransformation):
    """Rprop's stage: a step size for each parameter that follows the sign of its gradient.

        s = g g_old;  d <- clip(eta_plus d) if s > 0, clip(eta_minus d) if s < 0
        u = d sign(g), or 0 if s < 0, after which the sign is forgotten for one step

    Source: Igel, Huesken, "Improving the Rprop learning algorithm", 2000, iRprop-, which is
    PyTorch's Rprop too; after Riedmiller, Braun, "A direct adaptive method for faster
    backpropagation learning: the RPROP algorithm", 1993, where a step that changed the sign
    is taken back. Optax returns the update of the step before (optax#1725).

    Args:
      learning_rate: the first step size, >= 0; not clipped to the bounds.
      eta_minus, eta_plus: factors on a change and on a repetition of sign; 0 < eta_minus < 1
        and eta_plus > 1.
      min_step_size, max_step_size: bounds of the step sizes, >= 0 and in this order.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_rprop(0.01)
    """

    learning_rate: Hyper
    eta_minus: Hyper = 0.5
    eta_plus: Hyper = 1.2
    min_step_size: Hyper = 1e-6
    max_step_size: Hyper = 50.0

    def validate(self) -> None:
        check_nonnegative("learning_rate", self.learning_rate)
        check_number("eta_minus", self.eta_minus, 0.0, 1.0, open_low=True, open_high=True)
        check_number("eta_plus", self.eta_plus, 1.0, open_low=True)
        check_nonnegative("min_step_size", self.min_step_size)
        check_positive("max_step_size", self.max_step_size)
        bounds = self.min_step_size, self.max_step_size
        if all(isinstance(x, float) for x in bounds) and bounds[0] > bounds[1]:
            raise ValueError(
                "min_step_size must be at most max_step_size, "
                f"got {self.min_step_size} and {self.max_step_size}"
            )

    def init(self, params: Params) -> ScaleByRpropState:
        return ScaleByRpropState(
            full_like(params, self.learning_rate, real=True), zeros_like(params)
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, step_sizes, prev_updates = map_leaves(
            rprop_rule, updates, state.step_sizes, state.prev_updates,
            eta_minus=self.eta_minus, eta_plus=self.eta_plus,
            min_step_size=self.min_step_size, max_step_size=self.max_step_size,
        )  # fmt: skip
        return updates, ScaleByRpropState(step_sizes, prev_updates)


class rprop(Composed):
    """Rprop: only the sign of the gradient counts; for full batches.

        d <- clip(eta_plus d) if g g_old > 0, clip(eta_minus d) if g g_old < 0
        x <- x - d sign(g), or x if g g_old < 0

    Source: Riedmiller, Braun, "A direct adaptive method for faster backpropagation learning:
    the RPROP algorithm", 1993; the form without backtracking, iRprop-, of Igel, Huesken,
    "Improving the Rprop learning algorithm", 2000.

    Args:
      learning_rate, eta_minus, eta_plus, min_step_size, max_step_size: as for
        `scale_by_rprop`.
      weight_decay, mask: as for `adamw`; no decay by default.
      coupling: `'l2'`, the default, or `'independent'`, as for `adamw`. The others need a
        learning rate, and the step sizes of Rprop are none.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.rprop(0.01)
    """

    learning_rate: Hyper
    eta_minus: Hyper = 0.5
    eta_plus: Hyper = 1.2
    min_step_size: Hyper = 1e-6
    max_step_size: Hyper = 50.0
    weight_decay: ScalarOrSchedule | None = hyper(default=None, kw_only=True)
    mask: Any = static(default=None, kw_only=True)
    coupling: str = static(default="l2", kw_only=True)

    def compose(self) -> GradientTransformation:
        if self.coupling not in ("l2", "independent"):
            raise ValueError(
                f"coupling must be one of ['l2', 'independent'], got {self.coupling!r}: "
                "the step sizes of rprop are not a learning rate"
            )
        check_mask(self.weight_decay, self.mask)
        stage = scale_by_rprop(
            self.learning_rate,
            self.eta_minus,
            self.eta_plus,
            self.min_step_size,
            self.max_step_size,
        )
        if self.weight_decay is None:
            return chain(stage, scale(-1.0))
        decay = add_decayed_weights(self.weight_decay, self.mask)
        stages = (decay, stage) if self.coupling == "l2" else (stage, decay)
        return chain(*stages, scale(-1.0))
