"""Applying a transformation to some of the leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.leaf import is_optimised
from gradtx.core.slot import Inner, Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import is_plain_callable, static

MaskOrFn = Any | Callable[[Params], Any]  # a tree of booleans, a function to one, or None


class MaskedNode(NamedTuple):
    """Stands where a leaf is masked out: a container without children."""


class MaskedState(NamedTuple):
    """State of `masked`: the inner transformation's, on the selected leaves alone."""

    inner_state: Inner


class masked(GradientTransformation):
    """Transforms the leaves that a mask selects; the others pass through unchanged.

    State is held for selected leaves only. As in Optax, the update of a leaf that is not
    selected is what came in, so on its own this adds raw gradients to those parameters:
    `unselected="zero"` keeps them still, as `freeze` does.

    Args:
      inner: the transformation for the selected leaves.
      mask: tree of booleans, of the parameters' structure or a prefix of it; or a function
        from the parameters to such a tree. It is given the parameters where `update` gets
        them, and the updates otherwise. A tree that happens to be callable, as Equinox
        modules are, is a tree.
      mask_compatible_extra_args: masks extra arguments that have the updates' structure too.
      unselected: what becomes of the updates of other leaves: `"pass"` or `"zero"`.

    Raises:
      TypeError: `inner` is not a transformation, or a leaf of the mask is not a boolean.
      ValueError: `unselected` is neither.

    >>> def matrices(params):
    ...     return jax.tree.map(lambda x: getattr(x, "ndim", 0) > 1, params)
    >>> tx = gradtx.masked(gradtx.adam(0.1), matrices)
    >>> state = tx.init({"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)})
    >>> state.inner_state[0].mu["b"]
    MaskedNode()
    """

    inner: GradientTransformation
    mask: Any = static()
    mask_compatible_extra_args: bool = static(default=False, kw_only=True)
    unselected: str = static(default="pass", kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        if self.unselected not in ("pass", "zero"):
            raise ValueError(f"unselected must be 'pass' or 'zero', got {self.unselected!r}")
        if not is_function(self.mask):
            object.__setattr__(self, "mask", checked_mask(self.mask))

    def init(self, params: Params) -> MaskedState:
        if not jax.tree.leaves(params, is_leaf=lambda x: x is None):
            # Nothing to mask: an empty tree, or the placeholder of optax.tree_map_params.
            return MaskedState(self.inner.init(params))
        return MaskedState(self.inner.init(_select(self._mask_of(params), params)))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        mask = self._mask_of(updates if params is None else params)
        if self.mask_compatible_extra_args:
            extra_args = mask_like(updates, extra_args, lambda arg: _select(mask, arg))
        new, inner_state = self.inner.transform(
            _select(mask, updates),
            state.inner_state,
            None if params is None else _select(mask, params),
            **extra_args,
        )
        others = still(updates) if self.unselected == "zero" else updates
        merged = jax.tree.map(lambda m, n, old: n if m else old, mask, new, others)
        return merged, MaskedState(inner_state)

    def inner_params(self, name: str, params: Params) -> Params:
        return _select(self._mask_of(params), params)

    def lookahead_point(self, state: State, params: Params) -> Params:
        mask = self._mask_of(params)
        point = self.inner.lookahead_point(state.inner_state, _select(mask, params))
        merged: Params = jax.tree.map(lambda m, n, old: n if m else old, mask, point, params)
        return merged

    def _mask_of(self, params: Params) -> Any:
        return checked_mask(self.mask(params)) if is_function(self.mask) else self.mask


def is_function(mask: Any) -> bool:
    """Whether a mask is to be called, and is not a tree that happens to be callable."""
    return is_plain_callable(mask) or isinstance(mask, jax.tree_util.Partial)


def still(updates: Updates) -> Updates:
    """Updates that leave every bit of the parameters as it is: -0.0, since -0.0 + 0.0 is 0.0."""
    return jax.tree.map(lambda u: jnp.full_like(u, -0.0) if is_optimised(u) else u, updates)


def mask_like(
    updates: Updates, extra_args: dict[str, Any], select: Callable[[Any], Any]
) -> dict[str, Any]:
    """The extra arguments, with `select` applied to those that have the updates' structure."""
    structure: Any = jax.tree.structure(updates)
    return {
        name: select(arg) if jax.tree.structure(arg) == structure else arg
        for name, arg in extra_args.items()
    }


def _select(mask: Any, tree: Any) -> Any:
    try:
        return jax.tree.map(lambda m, subtree: subtree if m else MaskedNode(), mask, tree)
    except ValueError as error:
        raise ValueError(
            f"the mask must have the structure of the parameters, or a prefix of it: {error}"
        ) from error


def checked_mask(mask: Any) -> Any:
    def check(path: Any, leaf: Any) -> bool:
        if not isinstance(leaf, bool) and not (
            getattr(leaf, "dtype", None) == np.bool_ and leaf.shape == ()
        ):
            raise TypeError(
                f"mask{jax.tree_util.keystr(path)} must be a boolean, got {leaf!r}; "
                "a mask is a tree of booleans or a function that returns one"
            )
        return bool(leaf)

    return jax.tree_util.tree_map_with_path(check, mask)
