"""Adafactor (Shazeer & Stern, 2018, arXiv:1804.04235, Algorithms 4 and 5).

For a leaf whose two largest axes a, b (a the larger) have at least `min_dim_size_to_factor`
entries, with d_t = 1 - t^(-decay_rate),

    v_row_t = d_t v_row_{t-1} + (1 - d_t) mean over a of (g_t^2 + epsilon)
    v_col_t = d_t v_col_{t-1} + (1 - d_t) mean over b of (g_t^2 + epsilon)
    u_t     = g_t / sqrt(v_row_t v_col_t / mean of v_row_t over b)

and for every other leaf u_t = g_t / sqrt(v_t), v_t = d_t v_{t-1} + (1 - d_t) (g_t^2 + epsilon).
Then each leaf of u_t is clipped to a root mean square of 1 and multiplied by that of its
parameters, or by 1e-3 where that is less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    as_float,
    check_fraction,
    check_nonnegative,
    check_positive,
    check_rate,
    check_steps,
)
from gradtx.core.leaf import map_leaves, reduced_zeros_like
from gradtx.core.numerics import abs_sq, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Reduced, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, hyper, integer, static
from gradtx.transforms.clip import rms_scale
from gradtx.transforms.decay import (
    add_decayed_weights,
    alias,
    check_coupling,
    check_mask,
    decoupled_decay_of,
)
from gradtx.transforms.scale import scale, scale_by_learning_rate
from gradtx.transforms.stateless import identity
from gradtx.transforms.trace import ema
from gradtx.transforms.trust import scale_by_param_block_rms


class FactoredState(NamedTuple):
    """Steps; row and column means of factored leaves; whole means of the others.

    Where a leaf has none of a kind there is a zero of shape (1,).
    """

    count: Count  # type: ignore[assignment]
    v_row: Annotated[Updates, Reduced()]
    v_col: Annotated[Updates, Reduced()]
    v: Annotated[Updates, Reduced()]


def factored_axes(shape: tuple[int, ...], least: int) -> tuple[int, int] | None:
    """The second largest and the largest axis, if both have at least `least` entries."""
    if len(shape) < 2:
        return None
    *_, second, largest = (int(axis) for axis in np.argsort(shape))
    return (second, largest) if shape[second] >= least else None


def factored_rule(
    g: jax.Array, v_row: jax.Array, v_col: jax.Array, v: jax.Array, *,
    d: Hyper, epsilon: Hyper, factored: bool, least: int, threshold: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:  # fmt: skip
    def scale(square: jax.Array) -> Any:
        unbounded = isinstance(threshold, float) and threshold == np.inf
        return 1.0 if unbounded else rms_scale(square, threshold)

    axes = factored_axes(g.shape, least) if factored else None
    if axes is None:
        v = d * v + (1 - d) * (abs_sq(g) + epsilon)
        u = g / jnp.sqrt(v)
        return u * scale(jnp.mean(abs_sq(u))), v_row, v_col, v
    b, a = axes
    # The three means are of three different products, since XLA stores what two have in common.
    v_row = d * v_row + (1 - d) * (jnp.mean(abs_sq(g), axis=a) + epsilon)
    v_col = d * v_col + jnp.mean(((1 - d) * g * g.conj()).real, axis=b) + (1 - d) * epsilon
    row_square = jnp.expand_dims(jnp.mean(v_row, axis=b - (b > a), keepdims=True) / v_row, a)
    col_square = jnp.expand_dims(1 / v_col, b)
    clip = scale(jnp.mean((row_square * g * (col_square * g.conj())).real))
    return g * (clip * jnp.sqrt(row_square)) * jnp.sqrt(col_square), v_row, v_col, v


def power_decay(step: jax.Array, exponent: Hyper) -> jax.Array:
    """1 - (step + 1)^(-exponent), the decay of the second moment at a step counted from 0."""
    return 1 - (as_float(step) + 1) ** (-exponent)


class scale_by_factored_rms(GradientTransformation):
    """Adafactor's stage: RMSProp whose second moment is kept as a row and a column.

        v_row <- d v_row + (1 - d) mean_a(|g|^2 + epsilon);  v_col likewise over b
        u = g / sqrt(v_row v_col / mean_b(v_row)),  d = 1 - t^(-decay_rate)

    Source: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
    2018, arXiv:1804.04235, Algorithm 4.

    Args:
      factored: `False` keeps the whole second moment of every leaf.
      decay_rate: exponent of the decay, >= 0.
      step_offset: the step at which the decay begins, for fine-tuning, >= 0; before it the
        second moment is that of the last gradient.
      min_dim_size_to_factor: least size of the two largest axes for factoring, >= 1.
      epsilon: added to the squares, > 0.
      decay_rate_fn: from a step, counted from 0, and `decay_rate` to d.
      clipping_threshold: largest root mean square of a leaf's update, > 0; `None` for none. As
        `clip_by_block_rms` behind this stage, without a stored copy of the update.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_factored_rms()
    >>> tx = gradtx.scale_by_factored_rms(min_dim_size_to_factor=2)
    >>> [v.shape for v in tx.init(jnp.zeros((5, 3)))[1:]]
    [(3,), (5,), (1,)]
    """

    factored: bool = static(default=True)
    decay_rate: Hyper = 0.8
    step_offset: int = integer(default=0)
    min_dim_size_to_factor: int = static(default=128)
    epsilon: Hyper = 1e-30
    decay_rate_fn: Callable[[Any, Any], Any] = static(default=power_decay)
    clipping_threshold: Hyper | None = hyper(default=None, kw_only=True)

    def validate(self) -> None:
        if self.clipping_threshold is not None:
            check_positive("clipping_threshold", self.clipping_threshold)
        check_nonnegative("decay_rate", self.decay_rate)
        check_steps("step_offset", self.step_offset)
        check_steps("min_dim_size_to_factor", self.min_dim_size_to_factor, low=1)
        check_positive("epsilon", self.epsilon)

    def init(self, params: Params) -> FactoredState:
        def axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
            return factored_axes(shape, self.min_dim_size_to_factor) if self.factored else None

        def without(which: int) -> Callable[[tuple[int, ...]], tuple[int, ...] | None]:
            def kept(shape: tuple[int, ...]) -> tuple[int, ...] | None:
                found = axes(shape)
                return found and tuple(i for i in range(len(shape)) if i != found[which])

            return kept

        return FactoredState(
            zero_count(),
            v_row=reduced_zeros_like(params, without(1)),
            v_col=reduced_zeros_like(params, without(0)),
            v=reduced_zeros_like(
                params, lambda shape: None if axes(shape) else tuple(range(len(shape)))
            ),
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        step = jnp.maximum(state.count - self.step_offset, 0)
        updates, v_row, v_col, v = map_leaves(
            factored_rule, updates, reduced=(state.v_row, state.v_col, state.v),
            d=self.decay_rate_fn(step, self.decay_rate), epsilon=self.epsilon,
            factored=self.factored, least=self.min_dim_size_to_factor,
            threshold=np.inf if self.clipping_threshold is None else self.clipping_threshold,
        )  # fmt: skip
        return updates, FactoredState(safe_increment(state.count), v_row, v_col, v)


class adafactor(Composed):
    """Adafactor: adaptive rates with a row and a column of state for each matrix.

        u = g / sqrt(v_row v_col / mean(v_row));  u <- u / max(1, rms(u) / clipping_threshold)
        x <- x - lr max(rms(x), 1e-3) u

    Source: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
    2018, arXiv:1804.04235, Algorithms 4 and 5.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule; `None` for no scaling.
      min_dim_size_to_factor, decay_rate, eps, factored: as for `scale_by_factored_rms`
        (`eps` is its epsilon); `decay_offset` is its step_offset.
      multiply_by_parameter_scale: whether the step is in units of the parameters.
      clipping_threshold: largest root mean square of a leaf's update; `None` for none.
      momentum: decay of a mean of updates, in [0, 1); `None` for none.
      dtype_momentum: its dtype.
      weight_decay_rate, weight_decay: two names for the decay; `None` for none.
      weight_decay_mask, mask: two names for which leaves decay, as for `adamw`.
      coupling, peak_learning_rate: as for `adamw`; as in Optax the default is
        `'independent'`, where the learning rate does not matter.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; an argument is
        given under both its names. In `update`: `params` is missing.

    >>> tx = gradtx.adafactor(1e-2)
    >>> tx = gradtx.adafactor(1e-2, min_dim_size_to_factor=2, momentum=0.9)
    """

    learning_rate: ScalarOrSchedule | None = None
    min_dim_size_to_factor: int = static(default=128)
    decay_rate: Hyper = 0.8
    decay_offset: int = integer(default=0)
    multiply_by_parameter_scale: bool = static(default=True)
    clipping_threshold: Hyper | None = 1.0
    momentum: Hyper | None = None
    dtype_momentum: DTypeLike = dtype(default=jnp.dtype("float32"))
    weight_decay_rate: ScalarOrSchedule | None = None
    eps: Hyper = 1e-30
    factored: bool = static(default=True)
    weight_decay_mask: Any = static(default=None)
    weight_decay: ScalarOrSchedule | None = hyper(default=None, kw_only=True)
    mask: Any = static(default=None, kw_only=True)
    coupling: str = static(default="independent", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def validate(self) -> None:
        check_steps("decay_offset", self.decay_offset)
        if self.clipping_threshold is not None:
            check_positive("clipping_threshold", self.clipping_threshold)
        if self.momentum is not None:
            check_fraction("momentum", self.momentum)
        if self.weight_decay_rate is not None:
            check_rate("weight_decay_rate", self.weight_decay_rate)
        check_positive("eps", self.eps)
        super().validate()

    def compose(self) -> GradientTransformation:
        stages: list[GradientTransformation] = [
            scale_by_factored_rms(
                self.factored,
                self.decay_rate,
                self.decay_offset,
                self.min_dim_size_to_factor,
                self.eps,
                clipping_threshold=self.clipping_threshold,
            )
        ]
        if self.clipping_threshold is not None:
            stages.append(identity())  # holds the place of Optax's clip in the state
        if self.learning_rate is not None:
            stages.append(scale_by_learning_rate(self.learning_rate, flip_sign=False))
        if self.multiply_by_parameter_scale:
            stages.append(scale_by_param_block_rms())
        if self.momentum is not None:
            stages.append(ema(self.momentum, False, self.dtype_momentum))
        decay = alias(
            "weight_decay", self.weight_decay, "weight_decay_rate", self.weight_decay_rate
        )
        mask = alias("mask", self.mask, "weight_decay_mask", self.weight_decay_mask)
        check_coupling(self)
        check_mask(decay, self.mask)
        if decay is None:
            return chain(*stages, scale(-1.0))
        if self.coupling == "l2":
            return chain(add_decayed_weights(decay, mask), *stages, scale(-1.0))
        if self.coupling == "independent":
            return chain(*stages, add_decayed_weights(decay, mask), scale(-1.0))
        return chain(*stages, scale(-1.0), decoupled_decay_of(self, decay, mask))
