"""Keeping some parameters as they are, without state for them."""

from __future__ import annotations

from typing import Any

import jax

from gradtx.core.composed import Composed
from gradtx.core.leaf import is_optimised
from gradtx.core.partition import (
    check_rule,
    check_rules_fit,
    first_fit,
    leaves_with_paths,
    partition,
)
from gradtx.core.select import MaskedState, checked_mask, masked, still
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation, TransformationPair, as_transformation
from gradtx.core.value import is_plain_callable, show, static
from gradtx.transforms.stateless import Stateless, identity


class freeze(GradientTransformation):
    r"""Keeps some leaves exactly as they are; they hold no state.

    `freeze(tx, pattern)` optimises all others by `tx`: a frozen leaf does not decay, has no
    momentum, may have `None` as gradient, and stays the same bit by bit.

    `freeze(mask)` is Optax's: no updates where the mask is true, the others as they come.
    What stands before it in a chain still holds state for the frozen leaves.

    Args:
      mask: the transformation; or, as the only argument, a tree of booleans, of the
        parameters' structure or a prefix of it, true where frozen.
      pattern: which leaves are frozen: a regular expression or a predicate on path and leaf,
        as for `groups`; or a tree of booleans. A rule has to fit a leaf.

    Raises:
      TypeError: the first of two arguments is not a transformation, the second is missing, or
        a mask holds a leaf that is not a boolean.
      ValueError: the pattern is no regular expression; in `init`: it fits no leaf.

    >>> tx = gradtx.freeze(gradtx.adamw(0.1), r"\bb\b")
    >>> params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    >>> params, _ = tx.step(params, tx.init(params), params)
    >>> print(params["b"])
    [1. 1.]
    >>> head_only = gradtx.chain(gradtx.sgd(0.1), gradtx.freeze({"body": True, "head": False}))
    """

    inner: GradientTransformation
    pattern: Any = static()

    def __init__(self, mask: Any, pattern: Any = None) -> None:
        if pattern is None and isinstance(mask, TransformationPair):
            raise TypeError(f"freeze({mask!r}) needs a pattern: which leaves are to be frozen?")
        inner, pattern = (identity(), mask) if pattern is None else (mask, pattern)
        object.__setattr__(self, "inner", inner)
        object.__setattr__(self, "pattern", pattern)
        self.validate()

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        if self._is_rule():
            check_rule(self.pattern)
        else:
            object.__setattr__(self, "pattern", checked_mask(self.pattern))

    def init(self, params: Params) -> MaskedState:
        if self._is_rule():
            check_rules_fit([self.pattern], params)
        return self._masked(params).init(params)

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        rest = self._masked(updates if params is None else params)
        return rest.transform(updates, state, params, **extra_args)

    def inner_params(self, name: str, params: Params) -> Params:
        return self._masked(params).inner_params(name, params)

    def assignment(self, params: Params) -> dict[str, str]:
        """From the path of each frozen leaf, as `"encoder/w"`, to `"frozen"`."""
        trained = {path for path, _ in leaves_with_paths(self.inner_params("inner", params))}
        return {
            path: "frozen"
            for path, leaf in leaves_with_paths(params)
            if is_optimised(leaf) and path not in trained
        }

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self._masked(params).lookahead_point(state, params)

    def _masked(self, params: Params) -> masked:
        if self._is_rule():
            leaves = [
                first_fit([self.pattern], path, leaf) == 1
                for path, leaf in leaves_with_paths(params)
            ]
            treedef: Any = jax.tree.structure(params, is_leaf=lambda x: x is None)
            trained = jax.tree.unflatten(treedef, leaves)
        else:
            trained = jax.tree.map(lambda frozen: not frozen, self.pattern)
        return masked(self.inner, trained, unselected="zero")

    def _is_rule(self) -> bool:
        return isinstance(self.pattern, str) or is_plain_callable(self.pattern)

    def __repr__(self) -> str:
        if self.inner == identity():
            return f"freeze({show(self.pattern)})"
        return f"freeze({self.inner!r}, {show(self.pattern)})"


class _hold(Stateless):
    """Updates that leave every bit of the parameters as it is."""

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return still(updates)


class selective_transform(Composed):
    """Applies a transformation to the leaves that are not frozen; frozen ones hold no state.

    As `freeze(optimizer, freeze_mask)`, with the state of the `partition` that Optax makes.

    Args:
      optimizer: the transformation for the other leaves.
      freeze_mask: tree of booleans, of the parameters' structure or a prefix of it, true
        where frozen.

    Raises:
      TypeError: `optimizer` is not a transformation, or a leaf of the mask not a boolean.

    >>> part = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask={"w": False, "b": True})
    >>> state = part.init({"w": jnp.zeros(2), "b": jnp.zeros(2)})
    >>> tx = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=False)
    """

    optimizer: GradientTransformation
    freeze_mask: Any = static(kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "optimizer", as_transformation(self.optimizer))
        object.__setattr__(self, "freeze_mask", checked_mask(self.freeze_mask))

    def compose(self) -> GradientTransformation:
        labels = jax.tree.map(lambda frozen: "freeze" if frozen else "train", self.freeze_mask)
        return partition({"train": self.optimizer, "freeze": _hold()}, labels)
