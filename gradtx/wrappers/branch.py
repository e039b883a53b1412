"""Running a transformation or not, by a flag that may be known only when the program runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.core.apply import apply_updates
from gradtx.core.leaf import is_optimised, narrow, with_others_of
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.wrappers.in_place import gpu_in_reach, in_place_if


def zeros(updates: Updates) -> Updates:
    """Updates that change nothing."""
    return jax.tree.map(jnp.zeros_like, updates)


def unchanged(updates: Updates) -> Updates:
    """The updates as they came."""
    return updates


def transform_if(
    run: Any,
    inner: GradientTransformation,
    updates: Updates,
    state: State,
    params: Params | None,
    extra_args: Mapping[str, Any],
    otherwise: Callable[[Updates], Updates] = zeros,
) -> tuple[Updates, State]:
    """`inner.transform` where `run` holds; else `otherwise(updates)` and the state as it is.

    Args:
      run: boolean, or boolean array of shape ().
      inner: what to run.
      updates: its updates.
      state: its state.
      params: its parameters.
      extra_args: its extra arguments.
      otherwise: sees the updates without the leaves that are not optimised.
    """

    def ran(updates: Updates, state: State) -> tuple[Updates, State]:
        new, new_state = inner.transform(updates_with_others(updates), state, params, **extra_args)
        return arrays_of(narrow(new, like=updates)), as_before(state, new_state)

    def left(updates: Updates, state: State) -> tuple[Updates, State]:
        return otherwise(updates), state

    def updates_with_others(arrays: Updates) -> Updates:
        return with_others_of(updates, arrays)

    new, state = cond(run, ran, left, arrays_of(updates), state)
    return updates_with_others(new), state


def step_if(
    run: Any,
    inner: GradientTransformation,
    updates: Updates,
    state: State,
    params: Params,
    extra_args: Mapping[str, Any],
    otherwise: Callable[[Updates], Updates] | None = None,
) -> tuple[Params, State]:
    """`inner.step` where `run` holds; else parameters and state stay as they are.

    The branches return parameters and state and no tree of updates, so that both are written
    in place when donated, and not touched at all where `run` does not hold.

    Args:
      run: boolean, or boolean array of shape ().
      inner: what to run.
      updates: its updates, in float32 or wider.
      state: its state.
      params: its parameters.
      extra_args: its extra arguments.
      otherwise: if given, what to add to the parameters where `run` does not hold.
    """

    def ran(params_: Params, state: State) -> tuple[Params, State]:
        whole = with_others_of(params, params_)
        new, new_state = inner.step(updates, state, whole, **extra_args)
        return arrays_of(new), as_before(state, new_state)

    def left(params_: Params, state: State) -> tuple[Params, State]:
        if otherwise is None:
            return params_, state
        added = narrow(otherwise(arrays_of(updates)), like=params_)
        return apply_updates(params_, added), state

    operands = arrays_of(params), state
    if otherwise is None and isinstance(run, jax.core.Tracer) and gpu_in_reach():
        new, state = in_place_if(run, ran, operands)
    else:
        new, state = cond(run, ran, left, *operands)
    return with_others_of(params, new), state


def cond(
    run: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any
) -> Any:
    """`jax.lax.cond`, but a plain `if` where the flag is known: eagerly cond compiles each time."""
    if isinstance(run, jax.core.Tracer):
        return jax.lax.cond(run, true_fn, false_fn, *operands)
    return (true_fn if run else false_fn)(*operands)


def as_before(state: State, new_state: State) -> State:
    """The new state in the dtypes of the old one, which foreign transformations may change."""
    return jax.tree.map(
        lambda old, new: new if new.dtype == old.dtype else new.astype(old.dtype),
        *map(_as_arrays, (state, new_state)),
    )


def _as_arrays(tree: Any) -> Any:
    return jax.tree.map(lambda x: x if hasattr(x, "dtype") else jnp.asarray(x), tree)


def arrays_of(tree: Any) -> Any:
    """The tree with `None` for every leaf that is not optimised: what `lax.cond` can carry."""
    return jax.tree.map(lambda x: x if is_optimised(x) else None, tree)


def checked_flag(name: str, flag: Any) -> jax.Array:
    """The answer of a user's function as a boolean array of shape ().

    Raises:
      ValueError: it is anything else.
    """
    array = jnp.asarray(flag)
    if array.dtype != bool or array.shape != ():
        raise ValueError(
            f"{name} must return one boolean, got an array of dtype {array.dtype} "
            f"and shape {array.shape}"
        )
    return array
