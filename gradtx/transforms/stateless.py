"""Stages without a state, and the smallest ones: identity and zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from gradtx.core.leaf import map_leaves, match, optimised_only, with_others_of
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import EmptyState, GradientTransformation
from gradtx.core.value import static


class Stateless(GradientTransformation):
    """Base of the stages that remember nothing: they write `apply` alone."""

    def init(self, params: Params) -> EmptyState:
        del params
        return EmptyState()

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        """The transformed updates."""
        raise NotImplementedError  # abstract

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        del extra_args
        return self.apply(updates, params), state


class identity(Stateless):
    """Returns updates as they come.

    >>> tx = gradtx.identity()
    >>> tx.update(jnp.asarray([1.0]), tx.init(None))[0]
    Array([1.], dtype=float32)
    """

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return updates


class set_to_zero(Stateless):
    """Replaces every update by zero, so that parameters stay as they are.

    >>> tx = gradtx.set_to_zero()
    >>> tx.update(jnp.asarray([1.0]), tx.init(None))[0]
    Array([0.], dtype=float32)
    """

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return map_leaves(_zero_rule, updates)


def _zero_rule(u: jax.Array) -> jax.Array:
    return jax.numpy.zeros_like(u)


class stateless(Stateless):
    """Makes a transformation of a function from updates and parameters to updates.

    Args:
      f: called as `f(updates, params)`; `params` is `None` where `update` got none. It sees
        low-precision leaves as float32 and `None` for leaves that are not optimised.

    Raises:
      TypeError: `f` is not callable.

    >>> tx = gradtx.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates))
    >>> tx.update(jnp.asarray([-3.0]), tx.init(None))[0]
    Array([-1.], dtype=float32)
    """

    f: Callable[[Updates, Params | None], Updates] = static()

    def validate(self) -> None:
        if not callable(self.f):
            raise TypeError(f"f must be a function of updates and params, got {self.f!r}")

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        return with_others_of(updates, self.f(optimised_only(updates), optimised_only(params)))


class stateless_with_tree_map(Stateless):
    """Makes a transformation of a function from one leaf's update and parameter to its update.

    Args:
      f: called as `f(update, param)` for every optimised leaf; `param` is `None` where `update`
        got no parameters. It sees low-precision leaves as float32.

    Raises:
      TypeError: `f` is not callable.

    >>> tx = gradtx.stateless_with_tree_map(lambda u, p: jnp.sign(u))
    >>> tx.update(jnp.asarray([-3.0]), tx.init(None))[0]
    Array([-1.], dtype=float32)
    """

    f: Callable[[jax.Array, jax.Array | None], jax.Array] = static()

    def validate(self) -> None:
        if not callable(self.f):
            raise TypeError(f"f must be a function of an update and its param, got {self.f!r}")

    def apply(self, updates: Updates, params: Params | None) -> Updates:
        leaves, treedef = jax.tree.flatten(optimised_only(updates), is_leaf=lambda x: x is None)
        others = [None] * len(leaves)
        if params is not None:
            others = match(updates, optimised_only(params), "updates", "params")
        new = [None if u is None else self.f(u, p) for u, p in zip(leaves, others, strict=True)]
        return with_others_of(updates, jax.tree.unflatten(treedef, new))
