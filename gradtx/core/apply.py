"""Adding updates to parameters, and averaging trees."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx.core.hyper import Hyper
from gradtx.core.leaf import call_each, common_precision, is_optimised, map_leaves, match, narrow
from gradtx.core.slot import Updates

T = TypeVar("T")


def apply_updates(params: T, updates: Updates) -> T:
    """Params + updates, leaf by leaf, in the dtype of the parameters.

    The sum is formed in float32 or wider and rounded once. Parameters that are not inexact
    arrays, and those whose update is `None`, are returned as they are.

    Args:
      params: tree of parameters.
      updates: tree of the same structure and shapes.

    Raises:
      ValueError: structures or shapes differ; the message names the leaf's path.

    >>> gradtx.apply_updates({"w": jnp.asarray(1.0), "step": 3}, {"w": 0.5, "step": None})
    {'step': 3, 'w': Array(1.5, dtype=float32)}
    """
    leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
    pairs = [*zip(leaves, match(params, updates, "params", "updates"), strict=True)]
    moving = [i for i, pair in enumerate(pairs) if all(map(is_optimised, pair))]
    sums = call_each(_add, (), None, [pairs[i] for i in moving])
    for i, new in zip(moving, sums, strict=True):
        leaves[i] = new
    applied: T = jax.tree.unflatten(treedef, leaves)
    return applied


@jax.jit
def _add(_: None, p: jax.Array, u: jax.Array) -> jax.Array:
    cast = common_precision((p, u))
    return (cast(p) + cast(u)).astype(jnp.result_type(p))


def periodic_update(
    new_tensors: T, old_tensors: T, steps: ArrayLike, update_period: ArrayLike
) -> T:
    """`new_tensors` where `steps` is a multiple of `update_period`, else `old_tensors`.

    Source: Mnih et al., "Human-level control through deep reinforcement learning", 2015,
    Nature 518 (the target network).

    Args:
      new_tensors: tree of the latest values.
      old_tensors: tree of the copies, same structure and shapes; leaves that are neither
        arrays nor numbers stay.
      steps: number of steps made, shape ().
      update_period: number of steps between two copies, shape ().

    Returns:
      One of the two, in the dtypes of `old_tensors`.

    >>> print(gradtx.periodic_update(jnp.asarray(2.0), jnp.asarray(1.0), 9, 3))
    2.0
    """
    due = jnp.mod(jnp.asarray(steps), jnp.asarray(update_period)) == 0
    leaves, treedef = jax.tree.flatten(old_tensors, is_leaf=lambda x: x is None)
    news = match(old_tensors, new_tensors, "old_tensors", "new_tensors")
    chosen = [
        jnp.where(due, new if _is_key(old) else jnp.asarray(new, jnp.result_type(old)), old)
        if hasattr(old, "dtype") or isinstance(old, bool | int | float | complex)
        else old
        for new, old in zip(news, leaves, strict=True)
    ]
    updated: T = jax.tree.unflatten(treedef, chosen)
    return updated


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(getattr(x, "dtype", bool), jax.dtypes.prng_key)


def incremental_update(new_tensors: T, old_tensors: T, step_size: Hyper) -> T:
    """step_size * new + (1 - step_size) * old, leaf by leaf: an average of parameters.

    Source: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992.

    Args:
      new_tensors: tree of the latest values.
      old_tensors: tree of the averages so far, same structure and shapes.
      step_size: weight of the new values, from 0 to 1. Number or 0-d array.

    Returns:
      The new averages, in the dtypes of `old_tensors`.

    >>> gradtx.incremental_update(jnp.asarray([2.0]), jnp.asarray([0.0]), 0.25)
    Array([0.5], dtype=float32)
    """
    mixed = map_leaves(_mix_rule, new_tensors, reads=(old_tensors,), step_size=step_size)
    averaged: T = narrow(mixed, like=old_tensors)
    return averaged


def _mix_rule(new: jax.Array, old: jax.Array, *, step_size: Hyper) -> jax.Array:
    return step_size * new + (1.0 - step_size) * old
