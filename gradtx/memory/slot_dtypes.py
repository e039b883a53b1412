"""Storing slots of a state in other dtypes than they are computed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.leaf import widen, written_after
from gradtx.core.map_params import Place, check_slot_names, map_slots
from gradtx.core.partition import leaves_with_paths
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import as_dtype, static
from gradtx.memory.leaves import check_on_device


class slot_dtypes(GradientTransformation):
    """Stores slots of any transformation, by name, in other floating dtypes.

    A slot is what a state keeps like the parameters, such as Adam's `mu` and `nu`, at any depth.
    Before each step those named are cast to float32 or wider, and after it to their dtype, to
    nearest. The state is the inner transformation's. Complex slots stay.

    A mean that moves by a small part per step, such as `nu` with b2 = 0.999, stands still in
    bfloat16: each step is below half the spacing of its values.

    Args:
      inner: the transformation, gradtx's or Optax's.
      dtypes: from the name of a slot to its dtype.

    Raises:
      TypeError: `inner` is not a transformation, `dtypes` not a dict from names, or a dtype not
        a floating one.
      ValueError: in `init`: the state has no slot of this name (the message lists those it has),
        or `offload_state` inside has put it into the host's memory.

    >>> tx = gradtx.slot_dtypes(gradtx.adam(1e-3), {"mu": jnp.bfloat16})
    >>> tx.init(jnp.zeros(2))[0].mu
    Array([0, 0], dtype=bfloat16)
    >>> tx = gradtx.slot_dtypes(gradtx.trace(0.9), {"trace": jnp.float16})
    >>> tx
    slot_dtypes(trace(decay=0.9), {'trace': 'float16'})
    """

    inner: GradientTransformation
    dtypes: Mapping[str, DTypeLike] = static()

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        if not isinstance(self.dtypes, Mapping) or not all(isinstance(k, str) for k in self.dtypes):
            raise TypeError(f"dtypes must be a dict from names to dtypes, got {self.dtypes!r}")
        checked = {name: as_dtype(f"dtypes[{name!r}]", x) for name, x in self.dtypes.items()}
        if None in checked.values():
            raise TypeError(f"dtypes must be a dict from names to dtypes, got {self.dtypes!r}")
        object.__setattr__(self, "dtypes", checked)

    def init(self, params: Params) -> State:
        names = []

        def store(place: Place, slot: Any) -> Any:
            names.append(place.name)
            if place.name not in self.dtypes:
                return slot
            for path, x in leaves_with_paths(slot):
                if x is not None:
                    check_on_device(x, path, "slot_dtypes")
            dtype = jax.dtypes.canonicalize_dtype(self.dtypes[place.name])
            return jax.tree.map(lambda x: x if jnp.iscomplexobj(x) else x.astype(dtype), slot)

        state = map_slots(self.inner, store, self.inner.init(params))
        check_slot_names("dtypes", self.dtypes, names)
        return state

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, new = self.inner.transform(updates, self._wide(state), params, **extra_args)
        return updates, _in_dtypes_of(state, new)

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        updates = self._checked(updates, state, params, extra_args)
        params, new = self.inner.step(updates, self._wide(state), params, **extra_args)

        def store(place: Place, slot: Any) -> Any:
            # The update is formed from the value before rounding, so from the slot's old one.
            late = place.name in self.dtypes
            return beside_params(written_after, slot, params) if late else slot

        return params, map_slots(self.inner, store, _in_dtypes_of(state, new))

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        return {"inner": (self.inner, state)}

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(self._wide(state), params)

    def _wide(self, state: State) -> State:
        def load(place: Place, slot: Any) -> Any:
            return widen(slot) if place.name in self.dtypes else slot

        return map_slots(self.inner, load, state)

    def __repr__(self) -> str:
        dtypes = {name: jnp.dtype(dtype).name for name, dtype in self.dtypes.items()}
        return f"slot_dtypes({self.inner!r}, {dtypes!r})"


def beside_params(function: Callable[[Any, Any], Any], slot: Updates, params: Params) -> Updates:
    """`function(array, parameter)` for each array of a slot that has a parameter at its path."""
    at = dict(leaves_with_paths(params))

    def apply(path: Any, x: Any) -> Any:
        param = at.get(jax.tree_util.keystr(path, simple=True, separator="/"))
        return function(x, param) if param is not None and param.shape == x.shape else x

    return jax.tree_util.tree_map_with_path(apply, slot)


def _in_dtypes_of(old: State, new: State) -> State:
    cast: State = jax.tree.map(
        lambda o, n: n if n.dtype == o.dtype else n.astype(o.dtype), old, new
    )
    return cast
