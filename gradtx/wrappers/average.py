"""Averages of the parameters (Polyak & Juditsky, 1992), and the parameters to evaluate with.

x_t = x_{t-1} + u_t
w_t = (1 - decay) / (1 - decay^t),  or 1 / t where decay = 1
m_t = m_{t-1} + w_t (x_t - m_{t-1})
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.hyper import Hyper, as_float, check_number
from gradtx.core.leaf import as_operand, copy_of, is_optimised, map_leaves, narrow
from gradtx.core.numerics import bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, static
from gradtx.wrappers.lookahead import LookaheadParams


class EmaParamsState(NamedTuple):
    """The number of steps, and the mean of the parameters after each of them."""

    count: Count  # type: ignore[assignment]
    ema: Annotated[Updates, Slot(exact=True)]

    def eval_params(self, params: Params) -> Params:
        """The mean."""
        del params
        return self.ema


def ema_params_rule(
    u: jax.Array, m: jax.Array, p: jax.Array, *, weight: Hyper
) -> tuple[jax.Array, jax.Array]:
    return u, m + weight * (p + u - m)


class ema_params(GradientTransformation):
    """Keeps an exponential moving average of the parameters; updates pass unchanged.

        x <- x + u;  m <- m + w (x - m),  w = (1 - decay) / (1 - decay^t)

    This m is the average of all parameters after a step, a step's weight falling by `decay`
    from one to the next: what `ema` gives with bias correction, without a division at the
    end. With `decay=1` it is the plain mean of Polyak and Juditsky, w = 1 / t. Without
    `debias`, w = 1 - decay and the average begins at the initial parameters.

    Put it last in a chain, since it takes the updates that arrive for those that are applied.
    `gradtx.eval_params(state, params)` reads the average. Before the first step it is the
    initial parameters.

    Source: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992.

    Args:
      decay: rate from 0 to 1; about 1 - 1 / (number of steps to average over).
      debias: whether the initial parameters have no weight. Required for `decay=1`.
      dtype: dtype of the average; by default the parameter's, at least float32. One step
        moves it by 1 - decay of the distance, which bfloat16 rounds away above 0.99.

    Raises:
      TypeError, ValueError: `decay` is not a number from 0 to 1, or is 1 without `debias`;
        `dtype` is not a floating dtype. In `update`: `params` is missing.

    >>> tx = gradtx.ema_params(0.999)
    >>> tx = gradtx.chain(gradtx.sgd(0.5), gradtx.ema_params(1.0))
    >>> params = jnp.asarray([1.0])
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     params, state = tx.step(params, state, params)
    >>> print(params, gradtx.eval_params(state, params))
    [0.25] [0.375]
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    decay: Hyper
    debias: bool = static(default=True, kw_only=True)
    dtype: DTypeLike | None = dtype(default=None, kw_only=True)

    def validate(self) -> None:
        check_number("decay", self.decay, 0.0, 1.0, open_high=not self.debias)

    def init(self, params: Params) -> EmaParamsState:
        return EmaParamsState(zero_count(), copy_of(params, self.dtype))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        count = safe_increment(state.count)
        weight = _newest_weight(self.decay, as_float(count)) if self.debias else 1 - self.decay
        updates, mean = map_leaves(
            ema_params_rule, updates, state.ema, reads=(params,), weight=as_operand(weight)
        )
        return updates, EmaParamsState(count, mean)


def _newest_weight(decay: Any, t: jax.Array) -> jax.Array:
    """(1 - decay) / (1 - decay^t), and its limit 1 / t at decay = 1."""
    if isinstance(decay, float):
        return 1 / t if decay == 1 else (1 - decay) / bias_correction(decay, t)
    forgets = jnp.asarray(decay, t.dtype) < 1
    rate = jnp.where(forgets, jnp.asarray(decay, t.dtype), 0.5)
    return jnp.where(forgets, (1 - rate) / bias_correction(rate, t), 1 / t)


def eval_params(state: State, params: Params) -> Params:
    """The parameters to evaluate with: averages or slow weights, from wherever the state has them.

    Looks through every container and wrapper for states with a method `eval_params(params)`,
    such as those of `ema_params` and `lookahead`. A wrapper's answer counts before that of
    what it wraps.

    Args:
      state: of a transformation, at any depth inside other states.
      params: the parameters as trained; leaves for which the state holds nothing, because
        they are masked out or not optimised, are returned from here.

    Returns:
      A tree like `params`, in its dtypes.

    Raises:
      ValueError: nothing in `state` answers, two parts of it answer for the same parameter
        (give one of them as `state`), or an answer does not fit `params`.

    >>> tx = gradtx.masked(gradtx.chain(gradtx.sgd(0.5), gradtx.ema_params(1.0)), {"w": True})
    >>> params = {"w": jnp.asarray([1.0])}
    >>> params, state = tx.step(params, tx.init(params), params)
    >>> gradtx.eval_params(state, params)
    {'w': Array([0.5], dtype=float32)}
    """
    if isinstance(params, LookaheadParams):
        return params.slow
    treedef: Any
    flat, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: x is None)
    index = {jax.tree_util.keystr(path): i for i, (path, _) in enumerate(flat)}
    leaves = [leaf for _, leaf in flat]
    source: dict[int, str] = {}
    for path, node in jax.tree_util.tree_flatten_with_path(state, is_leaf=_answers)[0]:
        if not _answers(node):
            continue
        name = f"state{jax.tree_util.keystr(path)}"
        for place, leaf in jax.tree_util.tree_flatten_with_path(node.eval_params(params))[0]:
            where = jax.tree_util.keystr(place)
            i = index.get(where)
            if i is None or jnp.shape(leaf) != jnp.shape(flat[i][1]):
                raise ValueError(
                    f"{name} has evaluation parameters{where} of shape {jnp.shape(leaf)}, which "
                    "params does not have; are these the parameters that the state was made for?"
                )
            if i in source:
                raise ValueError(
                    f"both {source[i]} and {name} have evaluation parameters for params{where}; "
                    "give eval_params one of the two as its state"
                )
            source[i], leaves[i] = name, leaf
    if not source and any(map(is_optimised, leaves)):
        raise ValueError(
            "nothing in this state holds evaluation parameters; ema_params and lookahead do"
        )
    return narrow(jax.tree.unflatten(treedef, leaves), like=params)


def _answers(node: Any) -> bool:
    return hasattr(node, "_fields") and hasattr(node, "eval_params")
