"""Weight decay, and its couplings to the learning rate that all optimizers share.

With u the direction of a step, lr_t the learning rate and lr_max its largest value:

    'l2'             g + weight_decay x in the place of g              through the moments
    'learning_rate'  x <- x - lr_t u - lr_t weight_decay x             AdamW as it is used
    'schedule'       x <- x - lr_t u - (lr_t / lr_max) weight_decay x  AdamW as it was written
    'corrected'      x <- x - lr_t u - (lr_t^2 / lr_max) weight_decay x                AdamC
    'independent'    x <- x - lr_t u - weight_decay x
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import jax

from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_positive, check_rate, value_at
from gradtx.core.leaf import as_operand, map_leaves
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.select import masked
from gradtx.core.slot import Count, Params, State, Updates
from gradtx.core.transformation import EmptyState, GradientTransformation
from gradtx.core.value import content, hyper, static
from gradtx.transforms.scale import scale_by_learning_rate

COUPLINGS = ("l2", "learning_rate", "schedule", "corrected", "independent")

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
      mask: which leaves decay: a tree of booleans or a function of the parameters such as
        `matrices()`, as for `masked`; by default all.

    Raises:
      TypeError, ValueError: `weight_decay` is not a number, or negative; `mask` holds a leaf
        that is not a boolean. In `update`: `params` is missing.

    >>> tx = gradtx.add_decayed_weights(1e-2)
    >>> params = jnp.asarray([2.0])
    >>> tx.update(jnp.asarray([1.0]), tx.init(params), params)[0]
    Array([1.02], dtype=float32)
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    weight_decay: ScalarOrSchedule = 0.0
    mask: Any = static(default=None)

    def validate(self) -> None:
        check_rate("weight_decay", self.weight_decay)
        if self.mask is not None:
            self._masked()

    def _masked(self) -> GradientTransformation:
        return masked(self.replace(mask=None), self.mask)

    def scheduled(self) -> bool:
        """Whether the factor of the parameters follows a schedule."""
        return callable(self.weight_decay)

    def factor(self, count: Any) -> Hyper:
        """What the parameters are multiplied by before they are added."""
        return value_at(self.weight_decay, count)

    def init(self, params: Params) -> State:
        if self.mask is not None:
            return self._masked().init(params)
        return WeightDecaySchedule(zero_count()) if self.scheduled() else EmptyState()

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        if self.mask is not None:
            return self._masked().transform(updates, state, params, **extra_args)
        if not self.scheduled():
            return _decay(updates, params, self.factor(0)), state
        factor = self.factor(state.count)
        return _decay(updates, params, factor), WeightDecaySchedule(safe_increment(state.count))


def _decay(updates: Updates, params: Params, factor: Hyper) -> Updates:
    if isinstance(factor, float) and factor == 0.0:
        return updates
    return map_leaves(decay_rule, updates, reads=(params,), weight_decay=as_operand(factor))


class decoupled_decay(add_decayed_weights):
    """The decay of a coupling, for the end of a chain, behind the learning rate and its sign.

        u <- u - f weight_decay p,  with f as at the top of this file

    Args:
      weight_decay, mask: as for `add_decayed_weights`.
      learning_rate: number, 0-d array or schedule; `None` is enough for `'independent'`.
      coupling: one of `COUPLINGS` but `'l2'`.
      peak_learning_rate: the largest learning rate, > 0; by default a constant rate itself.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; the learning
        rate is a schedule whose peak is needed and not given. In `update`: `params` is missing.
    """

    learning_rate: ScalarOrSchedule | None = hyper(default=None, kw_only=True)
    coupling: str = static(default="independent", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def validate(self) -> None:
        super().validate()
        check_coupling(self, COUPLINGS[1:])

    def scheduled(self) -> bool:
        rate_matters = self.coupling != "independent"
        return callable(self.weight_decay) or (rate_matters and callable(self.learning_rate))

    def factor(self, count: Any) -> Hyper:
        decay = -value_at(self.weight_decay, count)
        if self.coupling == "independent" or self.learning_rate is None:
            return decay
        rate = value_at(self.learning_rate, count)
        if self.coupling == "learning_rate":
            return rate * decay
        relative = 1.0 if self.peak_learning_rate is None else rate / self.peak_learning_rate
        return relative * (rate * decay if self.coupling == "corrected" else decay)


class Decays(Protocol):
    """What the functions below read of an optimizer."""

    @property
    def learning_rate(self) -> ScalarOrSchedule | None: ...
    @property
    def weight_decay(self) -> ScalarOrSchedule | None: ...
    @property
    def mask(self) -> Any: ...
    @property
    def coupling(self) -> str: ...
    @property
    def peak_learning_rate(self) -> Hyper | None: ...


class WithDecay(Composed):
    """Base of the optimizers whose arguments for weight decay are keywords alone.

    Those that have `weight_decay` and `mask` at a position, as in Optax, declare all four
    themselves: a dataclass would move a field that it declares again to the front.
    """

    weight_decay: ScalarOrSchedule | None = hyper(default=None, kw_only=True)
    mask: Any = static(default=None, kw_only=True)
    coupling: str = static(default="learning_rate", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)


def check_coupling(tx: Decays, allowed: tuple[str, ...] = COUPLINGS) -> None:
    """Raises unless the coupling is one of these, and the learning rate and its peak serve it."""
    if tx.coupling not in allowed:
        raise ValueError(f"coupling must be one of {list(allowed)}, got {tx.coupling!r}")
    if tx.peak_learning_rate is not None:
        check_positive("peak_learning_rate", tx.peak_learning_rate)
    elif tx.coupling in ("schedule", "corrected") and callable(tx.learning_rate):
        raise ValueError(
            f"coupling={tx.coupling!r} divides by the largest learning rate: with a schedule, "
            "give it as peak_learning_rate"
        )
    if tx.learning_rate is None and tx.coupling in ("learning_rate", "schedule", "corrected"):
        raise ValueError(f"coupling={tx.coupling!r} needs a learning_rate, got None")


def check_mask(weight_decay: ScalarOrSchedule | None, mask: Any) -> None:
    """Raises where there is a mask and nothing to be masked."""
    if mask is not None and weight_decay is None:
        raise ValueError("mask says which weights decay, but weight_decay is None")


def descend(
    tx: Decays,
    *direction: GradientTransformation,
    momentum: GradientTransformation | None = None,
    mask: Any = None,
) -> GradientTransformation:
    """A chain that steps along `direction` at the optimizer's learning rate, and decays weights.

    Without decay (`tx.weight_decay` is `None`) this is direction, rate, momentum: Optax's chain.

    Args:
      tx: the optimizer, which holds the learning rate and the arguments of the decay.
      *direction: stages that come before the learning rate.
      momentum: a stage behind the learning rate; the decay of all couplings but L2 is behind
        it too, lest it be accumulated.
      mask: in the place of `tx.mask`.

    Raises:
      ValueError: the coupling is unknown, or lacks the learning rate's peak; there is a mask
        and nothing to be masked.
    """
    mask = tx.mask if mask is None else mask
    late = () if momentum is None else (momentum,)
    stages = (*direction, scale_by_learning_rate(tx.learning_rate), *late)
    check_coupling(tx)
    check_mask(tx.weight_decay, mask)
    if tx.weight_decay is None:
        return chain(*stages)
    if tx.coupling == "l2":
        return chain(add_decayed_weights(tx.weight_decay, mask), *stages)
    if tx.coupling == "learning_rate" and momentum is None:
        # The same decay as below, in the place and with the state that AdamW has in Optax.
        decay = add_decayed_weights(tx.weight_decay, mask)
        return chain(*direction, decay, scale_by_learning_rate(tx.learning_rate))
    if tx.learning_rate is None:
        raise ValueError("without a learning_rate nothing flips the sign: coupling must be 'l2'")
    return chain(*stages, decoupled_decay_of(tx, tx.weight_decay, mask))


def decoupled_decay_of(
    tx: Decays, weight_decay: ScalarOrSchedule, mask: Any
) -> GradientTransformation:
    """The stage that decays as the optimizer's coupling says, for the end of its chain."""
    return decoupled_decay(
        weight_decay,
        mask,
        learning_rate=tx.learning_rate,
        coupling=tx.coupling,
        peak_learning_rate=tx.peak_learning_rate,
    )


def alias(name: str, value: Any, other_name: str, other: Any, default: Any = None) -> Any:
    """The one of two arguments with one meaning that was given.

    Raises:
      ValueError: both were.
    """
    if value is None:
        return other
    if other is not default:
        raise ValueError(f"{name} and {other_name} are one argument: give one of them")
    return value


@dataclasses.dataclass(frozen=True, eq=False)
class matrices:
    """A mask that selects leaves of two or more axes: weights, and not biases, gains or norms.

    The usual choice of what decays. Layers that are stacked for `lax.scan` have one axis more,
    so that a bias is (layers, width) and would count as a matrix: say so with `stacked_axes`.

    Args:
      stacked_axes: how many leading axes stack layers, and do not count. A whole number for
        all leaves, or a tree of them, of the parameters' structure or a prefix of it.

    >>> mask = gradtx.matrices(stacked_axes={"layers": 1, "head": 0})
    >>> params = {"layers": {"w": jnp.ones((6, 4, 4)), "b": jnp.ones((6, 4))},
    ...           "head": jnp.ones((4, 2))}
    >>> mask(params)
    {'head': True, 'layers': {'b': False, 'w': True}}
    >>> tx = gradtx.adamw(1e-3, mask=gradtx.matrices())
    """

    stacked_axes: Any = 0

    def __post_init__(self) -> None:
        for axes in jax.tree.leaves(self.stacked_axes):
            if isinstance(axes, bool) or not isinstance(axes, int) or axes < 0:
                raise ValueError(f"stacked_axes must be whole numbers >= 0, got {axes!r}")

    def __call__(self, params: Params) -> Any:
        def mask(axes: int, subtree: Any) -> Any:
            return jax.tree.map(lambda leaf: getattr(leaf, "ndim", 0) - axes >= 2, subtree)

        return jax.tree.map(mask, self.stacked_axes, params)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, matrices) and content(self.stacked_axes) == content(
            other.stacked_axes
        )

    def __hash__(self) -> int:
        return hash(content(self.stacked_axes))
