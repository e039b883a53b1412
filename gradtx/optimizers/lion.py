"""Lion (Chen et al., 2023, arXiv:2302.06675, Algorithm 2).

    u_t  = sign(b1 mu_{t-1} + (1 - b1) g_t)
    mu_t = b2 mu_{t-1} + (1 - b2) g_t

The sign can be softened: `smooth` takes tanh(smooth_beta c) and `refined` clips c to [-1, 1],
where c is the argument of the sign. It is formed from the new momentum, as then the old one
can be overwritten in place:

    c_t = (b1 / b2) mu_t + (1 - b1 / b2) g_t
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction, check_positive
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, hyper, static
from gradtx.transforms.decay import descend


class ScaleByLionState(NamedTuple):
    """The number of steps and the momentum."""

    count: Count  # type: ignore[assignment]
    mu: Annotated[Updates, Slot()]


def interpolated(g: jax.Array, mu_old: jax.Array, mu: jax.Array, b1: Hyper, b2: Hyper) -> jax.Array:
    """b1 mu_old + (1 - b1) g, from the new momentum unless that would magnify its rounding."""
    if isinstance(b2, float) and b2 >= 0.5:
        return (b1 / b2) * mu + (1 - b1 / b2) * g
    return b1 * mu_old + (1 - b1) * g


def lion_rule(
    g: jax.Array, mu_old: jax.Array, *, b1: Hyper, b2: Hyper, smooth_beta: Hyper
) -> tuple[jax.Array, jax.Array]:
    del smooth_beta
    mu = b2 * mu_old + (1 - b2) * g
    return jnp.sign(interpolated(g, mu_old, mu, b1, b2)), mu


def smooth_lion_rule(
    g: jax.Array, mu_old: jax.Array, *, b1: Hyper, b2: Hyper, smooth_beta: Hyper
) -> tuple[jax.Array, jax.Array]:
    mu = b2 * mu_old + (1 - b2) * g
    c = interpolated(g, mu_old, mu, b1, b2)
    if jnp.iscomplexobj(c):  # the complex tanh has poles
        return jnp.tanh(smooth_beta * jnp.abs(c)) * jnp.sign(c), mu
    return jnp.tanh(smooth_beta * c), mu


def refined_lion_rule(
    g: jax.Array, mu_old: jax.Array, *, b1: Hyper, b2: Hyper, smooth_beta: Hyper
) -> tuple[jax.Array, jax.Array]:
    del smooth_beta
    mu = b2 * mu_old + (1 - b2) * g
    c = interpolated(g, mu_old, mu, b1, b2)
    return jnp.where(jnp.abs(c) < 1, c, jnp.sign(c)), mu


LION_RULES = {"hard": lion_rule, "smooth": smooth_lion_rule, "refined": refined_lion_rule}


class scale_by_lion(GradientTransformation):
    """Lion's stage: the sign of an interpolation between momentum and gradient.

        u = sign(b1 mu + (1 - b1) g);  mu <- b2 mu + (1 - b2) g

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023,
    arXiv:2302.06675, Algorithm 2.

    Args:
      b1: weight of the old momentum in the step, in [0, 1).
      b2: decay of the momentum, in [0, 1).
      mu_dtype: dtype of mu; bfloat16 is safe in the hard mode, where only a sign is taken.
      mode: `'hard'` for the sign, `'smooth'` for tanh(smooth_beta c), `'refined'` for c
        clipped to [-1, 1], c being the argument of the sign. A complex c keeps its phase.
      smooth_beta: slope of the smooth mode, > 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; `mode` is none
        of the three.

    >>> tx = gradtx.scale_by_lion()
    >>> tx = gradtx.scale_by_lion(mode="smooth", smooth_beta=10.0)
    >>> tx = gradtx.scale_by_lion(mu_dtype="bfloat16", mode="refined")
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.99
    mu_dtype: DTypeLike | None = dtype(default=None)
    mode: str = static(default="hard", kw_only=True)
    smooth_beta: Hyper = hyper(default=1.0, kw_only=True)

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_positive("smooth_beta", self.smooth_beta)
        if self.mode not in LION_RULES:
            raise ValueError(f"mode must be one of {list(LION_RULES)}, got {self.mode!r}")

    def init(self, params: Params) -> ScaleByLionState:
        return ScaleByLionState(zero_count(), zeros_like(params, self.mu_dtype))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, mu = map_leaves(
            LION_RULES[self.mode],
            updates,
            state.mu,
            b1=self.b1,
            b2=self.b2,
            smooth_beta=self.smooth_beta,
        )
        return updates, ScaleByLionState(safe_increment(state.count), mu)


class lion(Composed):
    """Lion: the sign of a momentum, with decoupled weight decay.

        x <- x - lr (sign(b1 mu + (1 - b1) g) + weight_decay x);  mu <- b2 mu + (1 - b2) g

    Every parameter moves by the learning rate at each step, so it is 3 to 10 times below
    AdamW's, and the weight decay as much above.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", 2023,
    arXiv:2302.06675, Algorithm 2.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, mu_dtype: as for `scale_by_lion`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        `params` is missing.

    >>> tx = gradtx.lion(1e-4)
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.99
    mu_dtype: DTypeLike | None = dtype(default=None)
    weight_decay: ScalarOrSchedule = 1e-3
    mask: Any = static(default=None)
    coupling: str = static(default="learning_rate", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_lion(self.b1, self.b2, self.mu_dtype))
