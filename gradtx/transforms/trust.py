"""Scaling each leaf by norms: trust ratios, parameter norms, the norm of the update."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper, check_nonnegative, check_number, check_positive
from gradtx.core.leaf import map_leaves
from gradtx.core.numerics import abs_sq, global_norm
from gradtx.core.slot import Params, Updates
from gradtx.core.transformation import EmptyState
from gradtx.transforms.scale import scale_rule
from gradtx.transforms.stateless import Stateless

ScaleByTrustRatioState = EmptyState  # as in Optax


def leaf_norm(x: jax.Array, least: Hyper) -> jax.Array:
    """The L2 norm of one leaf, at least `least`; its gradient is 0 where it is bounded."""
    square = jnp.sum(abs_sq(x))
    below = square <= least * least
    return jnp.where(below, least, jnp.sqrt(jnp.where(below, 1, square)))


def leaf_rms(x: jax.Array, least: Hyper) -> jax.Array:
    """The root of the mean square of one leaf, at least `least`; 0 entries count as `least`."""
    square = jnp.sum(abs_sq(x)) / max(x.size, 1)
    below = square <= least * least
    return jnp.where(below, least, jnp.sqrt(jnp.where(below, 1, square)))


def trust_ratio_rule(
    u: jax.Array, p: jax.Array, *, min_norm: Hyper, trust_coefficient: Hyper, eps: Hyper
) -> jax.Array:
    p_norm, u_norm = leaf_norm(p, min_norm), leaf_norm(u, min_norm)
    defined = (p_norm > 0) & (u_norm > 0)
    ratio = trust_coefficient * p_norm / (jnp.where(defined, u_norm, 1) + eps)
    return u * jnp.where(defined, ratio, 1)


def param_norm_rule(u: jax.Array, p: jax.Array, *, min_scale: Hyper) -> jax.Array:
    return u * leaf_norm(p, min_scale)


def param_rms_rule(u: jax.Array, p: jax.Array, *, min_scale: Hyper) -> jax.Array:
    return u * leaf_rms(p, min_scale)


class scale_by_trust_ratio(Stateless):
    """Makes each leaf's update as long as the leaf itself: the layer-wise stage of LARS, LAMB.

        u <- u trust_coefficient |p| / (|u| + eps), or u where |p| or |u| is 0

    Source: You, Gitman, Ginsburg, "Large batch training of convolutional networks", 2017,
    arXiv:1708.03888, equation 6.

    Args:
      min_norm: the least value of both norms, >= 0.
      trust_coefficient: factor of the ratio, >= 0.
      eps: added to the norm of the update, >= 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or negative. In `update`: `params`
        is missing.

    >>> tx = gradtx.scale_by_trust_ratio()
    >>> params = jnp.asarray([3.0, 4.0])
    >>> tx.update(jnp.asarray([0.0, 1.0]), tx.init(params), params)[0]
    Array([0., 5.], dtype=float32)
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    min_norm: Hyper = 0.0
    trust_coefficient: Hyper = 1.0
    eps: Hyper = 0.0

    def validate(self) -> None:
        check_nonnegative("min_norm", self.min_norm)
        check_nonnegative("trust_coefficient", self.trust_coefficient)
        check_nonnegative("eps", self.eps)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(
            trust_ratio_rule, updates, reads=(params,),
            min_norm=self.min_norm, trust_coefficient=self.trust_coefficient, eps=self.eps,
        )  # fmt: skip


class scale_by_param_block_norm(Stateless):
    """u <- u max(|p|, min_scale), with the norm of each leaf.

    Args:
      min_scale: the least norm, >= 0.

    Raises:
      TypeError, ValueError: `min_scale` is not a number, or negative. In `update`: `params`
        is missing.

    >>> tx = gradtx.scale_by_param_block_norm()
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    min_scale: Hyper = 1e-3

    def validate(self) -> None:
        check_nonnegative("min_scale", self.min_scale)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(param_norm_rule, updates, reads=(params,), min_scale=self.min_scale)


class scale_by_param_block_rms(Stateless):
    """u <- u max(rms(p), min_scale), with the root mean square of each leaf: Adafactor's scale.

    Source: Shazeer, Stern, "Adafactor: adaptive learning rates with sublinear memory cost",
    2018, arXiv:1804.04235, section 8.

    Args:
      min_scale: the least root mean square, >= 0.

    Raises:
      TypeError, ValueError: `min_scale` is not a number, or negative. In `update`: `params`
        is missing.

    >>> tx = gradtx.scale_by_param_block_rms()
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    min_scale: Hyper = 1e-3

    def validate(self) -> None:
        check_nonnegative("min_scale", self.min_scale)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(param_rms_rule, updates, reads=(params,), min_scale=self.min_scale)


class normalize_by_update_norm(Stateless):
    """u <- u scale_factor / (|u| + eps), with the norm over all leaves.

    Args:
      scale_factor: the norm of the result; negative for descent.
      eps: added to the norm, > 0, so that zero updates stay zero.

    Raises:
      TypeError, ValueError: an argument is not a finite number, or `eps` is not positive.

    >>> tx = gradtx.normalize_by_update_norm()
    """

    scale_factor: Hyper = 1.0
    eps: Hyper = 1e-6

    def validate(self) -> None:
        check_number("scale_factor", self.scale_factor)
        check_positive("eps", self.eps)

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        factor = self.scale_factor / (global_norm(updates) + self.eps)
        return map_leaves(scale_rule, updates, step_size=factor)


def centralize_rule(u: jax.Array) -> jax.Array:
    if u.ndim < 2:
        return u
    return u - jnp.mean(u, axis=tuple(range(1, u.ndim)), keepdims=True)


class centralize(Stateless):
    """Subtracts from each leaf of two or more axes its mean over all axes but the first.

    Source: Yong, Huang, Hua, Zhang, "Gradient centralization: a new optimization technique
    for deep neural networks", 2020, arXiv:2004.01461.

    >>> tx = gradtx.centralize()
    """

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(centralize_rule, updates)
