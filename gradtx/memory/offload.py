"""Keeping state in the host's memory between steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gradtx.core.map_params import Place, check_slot_names, map_slots
from gradtx.core.partition import Rule, check_rule, check_rules_fit, first_fit, leaves_with_paths
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import static
from gradtx.memory.slot_dtypes import beside_params

KIND = "pinned_host"


class offload_state(GradientTransformation):
    r"""Keeps slots in the host's memory, and brings them to the device for the step alone.

    A slot is what a state keeps like the parameters, such as Adam's `mu` and `nu`, at any depth.
    The state is the inner transformation's; its arrays say where they are, with the memory kind
    `"pinned_host"` in their sharding. Each step moves every offloaded byte to the device and
    back, over a link much slower than device memory; XLA decides how much of that is at once.

    Put it outside `quantize_state` and `slot_dtypes`, which need what they store on the device.

    Donate parameters before state, in the order in which `step` returns them: JAX pairs donated
    arguments with results by shape, and aborts where it pairs memories that differ.

    Args:
      inner: the transformation, gradtx's or Optax's.
      slots: names of the slots to offload; `None` for all.
      paths: which leaves of them: a regular expression, searched for in the parameter's path, or a
        predicate on path and array, as for `groups`; `None` for all.

    Raises:
      TypeError: `inner` is not a transformation, `slots` not a sequence of names, or `paths` not
        a rule.
      ValueError: `paths` is no regular expression. In `init`: the state has no slot of such a
        name (the message lists those it has), `paths` fits no leaf, or the device has no memory
        of this kind (the message lists those it has).

    >>> tx = gradtx.offload_state(gradtx.adam(1e-3), slots=["nu"])
    >>> tx = gradtx.offload_state(gradtx.adamw(1e-3), paths=r"w")
    >>> tx = gradtx.offload_state(gradtx.adam(1e-3))
    >>> tx.init(jnp.zeros(2))[0].mu.sharding.memory_kind
    'pinned_host'
    """

    inner: GradientTransformation
    slots: Sequence[str] | None = static(default=None)
    paths: Rule | None = static(default=None)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        if self.slots is not None:
            names = isinstance(self.slots, Sequence) and not isinstance(self.slots, str)
            if not names or not all(isinstance(name, str) for name in self.slots):
                raise TypeError(f"slots must be a sequence of names, got {self.slots!r}")
            object.__setattr__(self, "slots", tuple(self.slots))
        if self.paths is not None:
            check_rule(self.paths)

    def init(self, params: Params) -> State:
        _check_memories(params)
        if self.paths is not None:
            check_rules_fit([self.paths], params)
        state = map_slots(
            self.inner,
            lambda _, slot: beside_params(_placed_as, slot, params),
            self.inner.init(params),
        )
        state, names = self._moved(state, jax.memory.Space.Host)
        check_slot_names("slots", self.slots or (), names)
        return state

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        state, _ = self._moved(state, jax.memory.Space.Device)
        updates, state = self.inner.transform(updates, state, params, **extra_args)
        return updates, self._moved(state, jax.memory.Space.Host)[0]

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        updates = self._checked(updates, state, params, extra_args)
        state, _ = self._moved(state, jax.memory.Space.Device)
        params, state = self.inner.step(updates, state, params, **extra_args)
        return params, self._moved(state, jax.memory.Space.Host)[0]

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        return {"inner": (self.inner, state)}

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(self._moved(state, jax.memory.Space.Device)[0], params)

    def _moved(self, state: State, space: Any) -> tuple[State, list[str]]:
        """The state with what is offloaded in this memory, and the names of all slots."""
        names = []

        def move(place: Place, slot: Any) -> Any:
            names.append(place.name)
            if self.slots is not None and place.name not in self.slots:
                return slot
            rules = [] if self.paths is None else [self.paths]
            treedef: Any = jax.tree.structure(slot, is_leaf=lambda x: x is None)
            leaves = [
                jax.device_put(x, space)
                if x is not None and (not rules or first_fit(rules, path, x) == 0)
                else x
                for path, x in leaves_with_paths(slot)
            ]
            return jax.tree.unflatten(treedef, leaves)

        return map_slots(self.inner, move, state), names


def _placed_as(x: Any, param: Any) -> Any:
    """The array, under `jit` as a function of its parameter.

    What a program puts into host memory stays on the devices of the program's inputs, and jit
    leaves out inputs that nothing depends on.
    """
    if not isinstance(param, jax.core.Tracer):
        return x
    placed, _ = jax.lax.optimization_barrier((x, param))  # type: ignore[no-untyped-call]
    return placed


def _check_memories(params: Params) -> None:
    arrays = [x for x in jax.tree.leaves(params) if isinstance(x, jax.Array)]
    concrete = [x for x in arrays if not isinstance(x, jax.core.Tracer)]
    device = next(iter(concrete[0].devices())) if concrete else jax.devices()[0]
    kinds = [memory.kind for memory in device.addressable_memories()]
    if KIND not in kinds:
        raise ValueError(
            f"offload_state needs memory of the kind {KIND!r}, and {device} has only {kinds}"
        )
