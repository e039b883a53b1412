"""Gradients that are scaled on their way back."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper
from gradtx.core.leaf import is_optimised

T = TypeVar("T")


def scale_gradient(inputs: T, scale: Hyper) -> T:
    """`inputs` as they are; gradients through them are multiplied by `scale`.

    Forward-mode derivatives are scaled too. With a concrete `scale` of 0 nothing flows back,
    also where the gradient is not finite.

    Args:
      inputs: tree of arrays.
      scale: number or 0-d array; it gets no gradient itself.

    >>> jax.grad(lambda x: gradtx.scale_gradient(x, 0.5) ** 2)(3.0)
    Array(3., dtype=float32, weak_type=True)
    """
    if not isinstance(scale, jax.core.Tracer) and scale == 0:
        return jax.lax.stop_gradient(inputs)
    scaled: T = jax.tree.map(lambda x: _passed(x, scale) if is_optimised(x) else x, inputs)
    return scaled


@jax.custom_jvp
def _passed(x: jax.Array, scale: Hyper) -> jax.Array:
    del scale
    return x


@_passed.defjvp
def _passed_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    x, scale = primals
    dx, _ = tangents
    return x, dx * jnp.asarray(scale, dx.dtype)
