"""Transformations that are a name for others."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import items_of


class Composed(GradientTransformation):
    """A transformation that is a named composition: it does what `compose()` returns does.

    The public optimizers are of this kind: they print and compare as `adam(...)`, expose
    their hyperparameters as fields, and hold the state of the chain they stand for.
    """

    def compose(self) -> GradientTransformation:
        """The transformation that this one is a name for."""
        raise NotImplementedError  # abstract

    @functools.cached_property
    def _composition(self) -> GradientTransformation:
        # What is cached outlives a trace, so numbers formed on the way must not belong to it.
        with jax.ensure_compile_time_eval():
            return self.compose()

    def validate(self) -> None:
        self.compose()

    def _inner_transformations(self) -> Iterable[GradientTransformation]:
        return (self._composition,)

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        fields = [getattr(self, name) for name in self._children]
        if any(isinstance(field, GradientTransformation) for field in fields):
            return self._composition.inner_states(state)
        return {}

    def inner_names(self) -> Mapping[tuple[Any, ...], str]:
        own = {
            id(item): place
            for place, item in items_of(self)
            if isinstance(item, GradientTransformation)
        }
        if not own:
            return {}
        return {
            own[id(item)]: self._composition.inner_names().get(place, str(place[-1]))
            for place, item in items_of(self._composition)
            if id(item) in own
        }

    def inner_params(self, name: str, params: Params) -> Params:
        return self._composition.inner_params(name, params)

    def assignment(self, params: Params) -> Mapping[str, Any]:
        return self._composition.assignment(params)

    def init(self, params: Params) -> State:
        return self._composition.init(params)

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        return self._composition.transform(updates, state, params, **extra_args)

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        return self._composition.step(updates, state, params, **extra_args)

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self._composition.lookahead_point(state, params)
