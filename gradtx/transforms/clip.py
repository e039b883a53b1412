"""Bounding updates: by value, by their norms, and example by example."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx.core.hyper import Hyper, check_nonnegative, check_positive
from gradtx.core.leaf import as_operand, common_precision, is_optimised, map_leaves
from gradtx.core.numerics import abs_sq, global_norm
from gradtx.core.slot import Params, Updates
from gradtx.core.transformation import EmptyState
from gradtx.core.value import static
from gradtx.transforms.scale import scale_rule
from gradtx.transforms.stateless import Stateless

Axes = int | tuple[int, ...] | None

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


def rms_scale(square: jax.Array, threshold: Hyper) -> jax.Array:
    """min(1, threshold / sqrt(square)) of a mean of squares, shape ()."""
    inside = jnp.sqrt(square) <= threshold  # false for NaN, which is to be seen
    return jnp.where(inside, 1, threshold * jax.lax.rsqrt(jnp.where(inside, 1, square)))


def clip_by_block_rms_rule(u: jax.Array, *, threshold: Hyper) -> jax.Array:
    return u * rms_scale(jnp.mean(abs_sq(u)), threshold)


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


class adaptive_grad_clip(Stateless):
    """Scales the update of each unit so that its norm is at most `clipping` times the unit's own.

        u <- u min(1, clipping max(|p|, eps) / |u|), with the norms of each unit

    A unit is what feeds one output: a column of a matrix, a filter of a convolution. The norm
    is over all axes of a leaf with at most one axis longer than 1; over the first of 2 or 3
    axes (the inputs, also of several heads); and over all but the last of 4 or more (kernels
    of shape HWIO, DHWIO). For other layouts give `axis`.

    Source: Brock, De, Smith, Simonyan, "High-performance large-scale image recognition
    without normalization", 2021, arXiv:2102.06171, equation 3.

    Args:
      clipping: the largest allowed ratio of the norms, >= 0; the paper's lambda, 0.01 to 0.16.
      eps: the least norm of a unit's parameters, >= 0, so that zeros can move.
      axis: the axes that the norms are taken over, for every leaf; `None` for the rule above.

    Raises:
      TypeError, ValueError: a number is not one, or negative; `axis` is not one or several
        whole numbers. In `update`: `params` is missing.

    >>> tx = gradtx.adaptive_grad_clip(0.01)
    >>> params = jnp.asarray([3.0, 4.0])
    >>> tx.update(jnp.asarray([0.0, 1.0]), tx.init(params), params)[0]
    Array([0.  , 0.05], dtype=float32)
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    clipping: Hyper
    eps: Hyper = 1e-3
    axis: Axes = static(default=None)

    def validate(self) -> None:
        check_nonnegative("clipping", self.clipping)
        check_nonnegative("eps", self.eps)
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        if self.axis is not None and not all(type(each) is int for each in axes):
            raise TypeError(f"axis must be a whole number, several or None, got {self.axis!r}")

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(
            _unitwise_rule(self.axis), updates, reads=(params,),
            clipping=as_operand(self.clipping), eps=as_operand(self.eps),
        )  # fmt: skip


def unitwise_norm(x: ArrayLike, axis: Axes = None) -> jax.Array:
    """The L2 norm of each unit of `x`, in the shape of `x`; units as for `adaptive_grad_clip`.

    Args:
      x: array.
      axis: the axes that the norm is taken over; `None` for the layer's usual ones.

    >>> gradtx.unitwise_norm(jnp.asarray([[3.0, 1.0], [4.0, 0.0]]))
    Array([[5., 1.],
           [5., 1.]], dtype=float32)
    """
    array = jnp.asarray(x)
    norm = _norm(common_precision([array])(array), _unit_axes(array.shape, axis))
    return jnp.broadcast_to(norm, array.shape)


def unitwise_clip(
    g_norm: jax.Array, max_norm: jax.Array, grad: jax.Array, div_eps: ArrayLike = 1e-6
) -> jax.Array:
    """Scales `grad` by max_norm / g_norm where g_norm >= max_norm.

    Args:
      g_norm: the norm of each entry's unit, as `unitwise_norm` gives it.
      max_norm: the largest allowed one; same shape.
      grad: the gradient; same shape.
      div_eps: the least divisor.

    Raises:
      ValueError: the shapes differ.

    >>> gradtx.unitwise_clip(jnp.asarray([2.0]), jnp.asarray([1.0]), jnp.asarray([2.0]))
    Array([1.], dtype=float32)
    """
    if not np.shape(g_norm) == np.shape(max_norm) == np.shape(grad):
        raise ValueError(
            "g_norm, max_norm and grad must have one shape, got "
            f"{np.shape(g_norm)}, {np.shape(max_norm)} and {np.shape(grad)}"
        )
    clipped = grad * (max_norm / jnp.maximum(g_norm, div_eps))
    return jnp.where(g_norm < max_norm, grad, clipped)


def _unit_axes(shape: tuple[int, ...], axis: Axes) -> Axes:
    if axis is not None:
        return axis
    if sum(length != 1 for length in shape) <= 1:
        return tuple(range(len(shape)))
    return 0 if len(shape) <= 3 else tuple(range(len(shape) - 1))


def _norm(x: jax.Array, axes: Axes) -> jax.Array:
    square = jnp.sum(abs_sq(x), axis=axes, keepdims=True)
    positive = square != 0  # the root has no derivative at 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def unitwise_rule(
    u: jax.Array, p: jax.Array, *, clipping: Hyper, eps: Hyper, axis: Axes
) -> jax.Array:
    norm, own = (_norm(x, _unit_axes(u.shape, axis)) for x in (u, p))
    bound = clipping * jnp.maximum(own, eps)
    inside = norm <= bound  # false for NaN, which is to be seen
    return u * jnp.where(inside, 1, bound / jnp.where(inside, 1, norm))


@functools.cache
def _unitwise_rule(axis: Axes) -> Callable[..., Any]:
    # One object for each choice of axes: the rule's identity decides what is compiled again.
    return functools.partial(unitwise_rule, axis=axis)


def per_example_global_norm_clip(
    grads: Updates, l2_norm_clip: ArrayLike
) -> tuple[Updates, jax.Array]:
    """The sum of per-example gradients, each scaled so that its global norm is bounded.

    Norms and sums are in float32 or wider, the result in the dtype of `grads`; whole numbers
    count as float32.

    Source: Abadi et al., "Deep learning with differential privacy", 2016, arXiv:1607.00133.

    Args:
      grads: tree of arrays whose first axis is the batch.
      l2_norm_clip: the largest allowed norm of one example's gradient over all leaves.

    Returns:
      The tree of sums, without the batch's axis, and how many gradients were scaled.

    Raises:
      ValueError: there is no array, or the first axes are not of one length.

    >>> grads = [jnp.asarray([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0], [4.0, 0.0, 3.0]])]
    >>> sums, count = gradtx.per_example_global_norm_clip(grads, 1.25)
    >>> print(sums[0], count)
    [1.   0.75 1.75] 2
    """
    _check_batch(grads, "per_example_global_norm_clip")
    leaves, treedef = jax.tree.flatten(grads)
    cast = common_precision(leaves)
    squares = [_square_per_example(cast(leaf)) for leaf in leaves]
    norms = jnp.sqrt(functools.reduce(jnp.add, squares))
    bound = jnp.asarray(l2_norm_clip, norms.dtype)
    # 0 / 0, of a gradient of zeros and a bound of 0, is not a reason to scale.
    factors = jnp.nan_to_num(jnp.minimum(bound / norms, 1), nan=1.0)
    sums = [_weighted_sum(factors, cast(leaf), _result_dtype(leaf)) for leaf in leaves]
    return jax.tree.unflatten(treedef, sums), jnp.sum(factors < 1)


def per_example_layer_norm_clip(
    grads: Updates, global_l2_norm_clip: ArrayLike, uniform: bool = True
) -> tuple[Updates, Updates]:
    """`per_example_global_norm_clip` of each leaf on its own, with a share of the bound.

    Of a bound C for the whole gradient, each of K leaves gets C / sqrt(K), or
    C sqrt(its share of all parameters) where not `uniform`.

    Source: McMahan et al., "Learning differentially private recurrent language models",
    2017, arXiv:1710.06963.

    Args:
      grads: tree of arrays whose first axis is the batch.
      global_l2_norm_clip: the largest allowed norm C of one example's gradient.
      uniform: whether all leaves get the same share.

    Returns:
      The tree of sums, without the batch's axis, and a tree of how many gradients of each
      leaf were scaled.

    Raises:
      ValueError: there is no array, or the first axes are not of one length.

    >>> grads = {"a": jnp.asarray([[3.0], [0.1]]), "b": jnp.asarray([[4.0], [0.1]])}
    >>> sums, counts = gradtx.per_example_layer_norm_clip(grads, 2.0**0.5)
    >>> print(sums["a"], counts["b"])
    [1.1] 1
    """
    _check_batch(grads, "per_example_layer_norm_clip")
    leaves, treedef = jax.tree.flatten(grads)
    sizes = [math.prod(np.shape(leaf)[1:]) for leaf in leaves]
    shares = [1 / len(leaves) if uniform else size / max(sum(sizes), 1) for size in sizes]
    clipped = [
        per_example_global_norm_clip(leaf, global_l2_norm_clip * share**0.5)
        for leaf, share in zip(leaves, shares, strict=True)
    ]
    sums, counts = ([pair[i] for pair in clipped] for i in (0, 1))
    return jax.tree.unflatten(treedef, sums), jax.tree.unflatten(treedef, counts)


def _check_batch(grads: Updates, name: str) -> None:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(grads)]
    if len({shape[:1] for shape in shapes}) != 1 or not shapes[0]:
        raise ValueError(
            f"{name} expects per-example gradients, with the batch as first axis of every "
            f"array, got shapes {shapes}"
        )


def _square_per_example(leaf: jax.Array) -> jax.Array:
    return jnp.sum(abs_sq(leaf), axis=tuple(range(1, leaf.ndim)))


def _weighted_sum(factors: jax.Array, leaf: jax.Array, dtype: Any) -> jax.Array:
    return jnp.tensordot(factors.astype(leaf.dtype), leaf, axes=1).astype(dtype)


def _result_dtype(leaf: Any) -> Any:
    return jnp.result_type(leaf) if is_optimised(leaf) else jnp.float32
