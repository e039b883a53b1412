"""Running means of powers of gradients, on trees: Optax's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core import numerics
from gradtx.core.hyper import Hyper, as_float
from gradtx.core.leaf import map_leaves, narrow
from gradtx.core.value import plain_number


def update_moment(updates: Any, moments: Any, decay: Hyper, order: float) -> Any:
    """(1 - decay) g^order + decay m, leaf by leaf: a running mean, in the dtype of `moments`.

    >>> print(gradtx.update_moment(jnp.asarray(2.0), jnp.asarray(0.0), 0.75, 2))
    1.0
    """
    return _updated(_moment_rule, updates, moments, decay=decay, order=order)


def update_moment_per_elem_norm(updates: Any, moments: Any, decay: Hyper, order: float) -> Any:
    """(1 - decay) |g|^order + decay m for complex leaves; for real ones as `update_moment`."""
    return _updated(_norm_moment_rule, updates, moments, decay=decay, order=order)


def update_infinity_moment(updates: Any, moments: Any, decay: Hyper, eps: Hyper) -> Any:
    """max(|g| + eps, decay m), leaf by leaf, in the dtype of `moments`."""
    return _updated(_infinity_moment_rule, updates, moments, decay=decay, eps=eps)


def bias_correction(moment: Any, decay: Hyper, count: ArrayLike) -> Any:
    """M / (1 - decay^count), leaf by leaf, in the dtype of the moment; `count` from 1.

    >>> print(f"{gradtx.bias_correction(jnp.asarray(0.25), 0.75, 1):.3f}")
    1.000
    """
    with jax.numpy_dtype_promotion("standard"):
        correction = numerics.bias_correction(plain_number(decay), as_float(count))
    return narrow(map_leaves(_correct_rule, moment, correction=correction), like=moment)


def _updated(rule: Callable[..., Any], updates: Any, moments: Any, **numbers: Any) -> Any:
    numbers = {name: plain_number(value, whole=name == "order") for name, value in numbers.items()}
    return map_leaves(rule, updates, moments, **numbers)[1]


def _moment_rule(
    g: jax.Array, m: jax.Array, *, decay: Hyper, order: float
) -> tuple[jax.Array, jax.Array]:
    return g, (1 - decay) * g**order + decay * m


def _norm_moment_rule(
    g: jax.Array, m: jax.Array, *, decay: Hyper, order: float
) -> tuple[jax.Array, jax.Array]:
    power = jnp.abs(g) ** order if jnp.iscomplexobj(g) else g**order
    return g, (1 - decay) * power + decay * m


def _infinity_moment_rule(
    g: jax.Array, m: jax.Array, *, decay: Hyper, eps: Hyper
) -> tuple[jax.Array, jax.Array]:
    return g, jnp.maximum(jnp.abs(g) + eps, decay * m)


def _correct_rule(m: jax.Array, *, correction: jax.Array) -> jax.Array:
    return m / correction
