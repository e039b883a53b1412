"""Bounding updates: by value, and by their global norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper, check_nonnegative, check_positive
from gradtx.core.leaf import as_operand, map_leaves
from gradtx.core.numerics import abs_sq, global_norm
from gradtx.core.slot import Params, Updates
from gradtx.core.transformation import EmptyState
from gradtx.transforms.scale import scale_rule
from gradtx.transforms.stateless import Stateless

# As in Optax.
ClipState = EmptyState
ClipByGlobalNormState = EmptyState
AdaptiveGradClipState = EmptyState


def clip_rule(u: jax.Array, *, max_delta: Hyper) -> jax.Array:
    if jnp.iscomplexobj(u):
        real, imag = (jnp.clip(part, -max_delta, max_delta) for part in (u.real, u.imag))
        return jax.lax.complex(real, imag)
    return jnp.clip(u, -max_delta, max_delta)


class clip(Stateless):
    """Clips every entry of the updates to [-max_delta, max_delta].

    Real and imaginary parts of complex entries are clipped each on its own.

    Args:
      max_delta: the largest allowed absolute value, >= 0. Number or 0-d array.

    Raises:
      TypeError, ValueError: `max_delta` is not a number, or is negative.

    >>> tx = gradtx.clip(1.0)
    >>> tx.update(jnp.asarray([-3.0, 0.5]), tx.init(None))[0]
    Array([-1. ,  0.5], dtype=float32)
    """

    max_delta: Hyper

    def validate(self) -> None:
        check_nonnegative("max_delta", self.max_delta)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(clip_rule, updates, max_delta=as_operand(self.max_delta))


def clip_by_block_rms_rule(u: jax.Array, *, threshold: Hyper) -> jax.Array:
    square = jnp.mean(abs_sq(u))
    inside = jnp.sqrt(square) <= threshold  # false for NaN, which is to be seen
    return u * jnp.where(inside, 1, threshold * jax.lax.rsqrt(jnp.where(inside, 1, square)))


class clip_by_block_rms(Stateless):
    """Scales each leaf's update so that its root mean square is at most `threshold`.

        u <- u min(1, threshold / rms(u))

    Source: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
    2018, arXiv:1804.04235, section 6.

    Args:
      threshold: the largest allowed root mean square, > 0. Number or 0-d array.

    Raises:
      TypeError, ValueError: `threshold` is not a number, or is not positive.

    >>> tx = gradtx.clip_by_block_rms(1.0)
    >>> tx.update(jnp.asarray([2.0, -2.0]), tx.init(None))[0]
    Array([ 1., -1.], dtype=float32)
    """

    threshold: Hyper

    def validate(self) -> None:
        check_positive("threshold", self.threshold)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(clip_by_block_rms_rule, updates, threshold=self.threshold)


class clip_by_global_norm(Stateless):
    """Scales all updates by one factor so that their global L2 norm is at most `max_norm`.

    With n = sqrt(sum of |u|^2 over all leaves), every leaf becomes u * min(1, max_norm / n).
    The norm is accumulated in float32 or wider. Zero updates stay zero; a norm that is not
    finite makes every update NaN, so that the step can be seen and skipped, not half applied.
    In float32 that includes norms above 1.8e19, whose squares overflow.

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural
    networks", 2013, arXiv:1211.5063.

    Args:
      max_norm: the largest allowed norm, > 0. Number or 0-d array.

    Raises:
      TypeError, ValueError: `max_norm` is not a number, or is not positive.

    >>> tx = gradtx.clip_by_global_norm(1.0)
    >>> tx
    clip_by_global_norm(max_norm=1.0)
    >>> tx.update(jnp.asarray([3.0, 4.0]), tx.init(None))[0]
    Array([0.6, 0.8], dtype=float32)
    """

    max_norm: Hyper

    def validate(self) -> None:
        check_positive("max_norm", self.max_norm)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        norm = global_norm(updates)
        # One scalar for all leaves: dividing each leaf by the norm would make XLA store it.
        factor = jnp.where(jnp.isfinite(norm), jnp.minimum(1.0, self.max_norm / norm), jnp.nan)
        return map_leaves(scale_rule, updates, step_size=factor)
