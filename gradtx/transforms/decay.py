"""Weight decay."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_rate, value_at
from gradtx.core.leaf import as_operand, map_leaves
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.select import masked
from gradtx.core.slot import Count, Params, State, Updates
from gradtx.core.transformation import EmptyState, GradientTransformation
from gradtx.core.value import static

AddDecayedWeightsState = EmptyState  # as in Optax, of a constant rate


class WeightDecaySchedule(NamedTuple):
    """How many updates were decayed; present only where the rate is scheduled."""

    count: Count  # type: ignore[assignment]


def decay_rule(u: jax.Array, p: jax.Array, *, weight_decay: Hyper) -> jax.Array:
    return u + weight_decay * p


class add_decayed_weights(GradientTransformation):
    """u <- u + weight_decay * p.

    Before the preconditioner of an optimizer this is L2 regularisation; after it and before
    the learning rate, the decoupled decay of AdamW.

    Source: Loshchilov, Hutter, "Decoupled weight decay regularization", 2017,
    arXiv:1711.05101.

    Args:
      weight_decay: number >= 0, 0-d array, or schedule.
      mask: which leaves decay: a tree of booleans or a function of the parameters, as for
        `masked`; by default all.

    Raises:
      TypeError, ValueError: `weight_decay` is not a number, or negative; `mask` holds a leaf
        that is not a boolean. In `update`: `params` is missing.

    >>> tx = gradtx.add_decayed_weights(1e-2)
    >>> params = jnp.asarray([2.0])
    >>> tx.update(jnp.asarray([1.0]), tx.init(params), params)[0]
    Array([1.02], dtype=float32)
    """

    weight_decay: ScalarOrSchedule = 0.0
    mask: Any = static(default=None)

    def validate(self) -> None:
        check_rate("weight_decay", self.weight_decay)
        if self.mask is not None:
            self._masked()

    def _masked(self) -> GradientTransformation:
        return masked(self.replace(mask=None), self.mask)

    def init(self, params: Params) -> State:
        if self.mask is not None:
            return self._masked().init(params)
        return WeightDecaySchedule(zero_count()) if callable(self.weight_decay) else EmptyState()

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        if params is None:
            raise ValueError("add_decayed_weights needs params: update(updates, state, params)")
        if self.mask is not None:
            return self._masked().transform(updates, state, params, **extra_args)
        if not callable(self.weight_decay):
            return _decay(updates, params, self.weight_decay), state
        weight_decay = value_at(self.weight_decay, state.count)
        new_state = WeightDecaySchedule(safe_increment(state.count))
        return _decay(updates, params, weight_decay), new_state


def _decay(updates: Updates, params: Params, weight_decay: Hyper) -> Updates:
    if isinstance(weight_decay, float) and weight_decay == 0.0:
        return updates
    return map_leaves(decay_rule, updates, reads=(params,), weight_decay=as_operand(weight_decay))
