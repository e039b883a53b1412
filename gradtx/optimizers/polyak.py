"""Polyak's step size (Polyak, 1987), bounded as SPS_max (Loizou et al., 2020, arXiv:2002.10542).

step_t = min((f(x_t) - f_min) / (|g_t|^2 + eps), max_learning_rate)
u_t    = step_t g_t
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp

from gradtx.core.compose import chain
from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    check_nonnegative,
    check_number,
    check_positive,
    check_rate,
)
from gradtx.core.leaf import map_leaves
from gradtx.core.numerics import global_norm
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import EmptyState, GradientTransformation
from gradtx.core.value import static
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.decay import WithDecay, add_decayed_weights
from gradtx.transforms.scale import scale_rule

# Optax's threshold, jnp.finfo(float).eps, which is that of float64 also where x64 is off.
FLAT = 2.0**-52


class scale_by_polyak(GradientTransformation):
    """Multiplies by Polyak's step size, which needs the value of the loss.

        step = min((value - f_min) / (|g|^2 + eps), max_learning_rate);  u <- step g

    The norm is over all leaves. As in Optax, the step is 0 where |g|^2 + eps <= 2^-52.

    Source: Loizou, Vaswani, Laradji, Lacoste-Julien, "Stochastic Polyak step-size for SGD",
    2020, arXiv:2002.10542.

    Args:
      f_min: a lower bound of the loss.
      max_learning_rate: the largest step, > 0.
      eps: added to the squared norm, >= 0.
      variant: `'sps'`, or `'sps+'` for max(value - f_min, 0).

    `update` takes the extra argument `value`, the loss at `params`: shape ().

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; `variant` is
        neither. In `update`: `value` is missing.

    >>> tx = gradtx.scale_by_polyak()
    >>> tx.update(jnp.asarray([2.0]), tx.init(None), value=1.0)[0]
    Array([0.5], dtype=float32)
    """

    requires: ClassVar[tuple[str, ...]] = ("value",)

    f_min: Hyper = 0.0
    max_learning_rate: Hyper = 1.0
    eps: Hyper = 0.0
    variant: str = static(default="sps")

    def validate(self) -> None:
        check_number("f_min", self.f_min)
        check_positive("max_learning_rate", self.max_learning_rate)
        check_nonnegative("eps", self.eps)
        if self.variant not in ("sps", "sps+"):
            raise ValueError(f"variant must be 'sps' or 'sps+', got {self.variant!r}")

    def init(self, params: Params) -> EmptyState:
        return EmptyState()

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        square = global_norm(updates) ** 2
        gap = jnp.asarray(extra_args["value"], square.dtype) - self.f_min
        if self.variant == "sps+":
            gap = jnp.maximum(gap, 0)
        flat = square + self.eps <= FLAT
        step = jnp.minimum(gap / jnp.where(flat, 1, square + self.eps), self.max_learning_rate)
        return map_leaves(scale_rule, updates, step_size=jnp.where(flat, 0, step)), state


class polyak_sgd(WithDecay):
    """Gradient descent with Polyak's step size.

        x <- x - scaling min((f(x) - f_min) / (|g|^2 + eps), max_learning_rate) g

    Source: Polyak, "Introduction to optimization", 1987; Loizou, Vaswani, Laradji,
    Lacoste-Julien, 2020, arXiv:2002.10542.

    Args:
      max_learning_rate, f_min, eps, variant: as for `scale_by_polyak`.
      scaling: factor of the step, >= 0; number or schedule. Optax divides by its square in
        the step size too: there it is the norm of the scaled gradient that counts.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`, with `scaling` for the
        learning rate and no Polyak step in the decay; no decay by default. With `'l2'` the step
        counts the penalty's gradient, so `value` has to hold the penalty.

    `update` takes the extra argument `value`, the loss at `params`: shape ().

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `value` is missing.

    >>> tx = gradtx.polyak_sgd()
    """

    max_learning_rate: Hyper = 1.0
    scaling: ScalarOrSchedule = 1.0
    f_min: Hyper = 0.0
    eps: Hyper = 0.0
    variant: str = static(default="sps")

    def validate(self) -> None:
        check_rate("scaling", self.scaling)
        super().validate()

    def compose(self) -> GradientTransformation:
        stage = scale_by_polyak(self.f_min, self.max_learning_rate, self.eps, self.variant)
        if self.coupling == "l2" and self.weight_decay is not None:
            decay = add_decayed_weights(self.weight_decay, self.mask)
            return chain(decay, stage, sgd(self.scaling))
        descent = sgd(
            self.scaling,
            weight_decay=self.weight_decay,
            mask=self.mask,
            coupling=self.coupling,
            peak_learning_rate=self.peak_learning_rate,
        )
        return chain(stage, descent)
