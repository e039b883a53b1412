"""Running transformations one after another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from gradtx.core.apply import T
from gradtx.core.composed import Composed
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation, late_slots_after
from gradtx.core.value import static


class chain(GradientTransformation):
    """Applies transformations in order: each gets the updates that the one before returned.

    The state is the tuple of their states. Updates stay in float32 or wider between stages.

    Args:
      *transforms: gradtx transformations, or any `(init, update)` pair such as Optax's.

    Raises:
      TypeError: an argument is not a transformation.

    >>> tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(1e-3))
    >>> tx
    chain(clip_by_global_norm(max_norm=1.0), sgd(learning_rate=0.001))
    """

    transforms: tuple[GradientTransformation, ...]

    def __init__(self, *transforms: Any) -> None:
        object.__setattr__(self, "transforms", transforms)
        self.validate()

    def validate(self) -> None:
        transforms = tuple(map(as_transformation, self.transforms))
        object.__setattr__(self, "transforms", transforms)

    def init(self, params: Params) -> tuple[State, ...]:
        return tuple(tx.init(params) for tx in self.transforms)

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        _check_length(len(self.transforms), state)
        new_state: list[State] = []
        done: list[tuple[Any, ...]] = []
        for tx, old in zip(self.transforms, state, strict=True):
            given = updates
            again = _formed_again(done, params, extra_args) if _uses_twice(tx) else None
            if again is None:
                updates, new = tx.transform(given, old, params, **extra_args)
            else:
                updates, new = tx.transform_twice(given, again, old, params, **extra_args)
            done.append((tx, given, old, new))
            new_state.append(new)
        return updates, tuple(new_state)

    def step(self, updates: Updates, state: State, params: T, **extra_args: Any) -> tuple[T, State]:
        if not steps_in_place(self):
            return super().step(updates, state, params, **extra_args)
        updates = self._checked(updates, state, params, extra_args)
        *first, last = self.transforms
        updates, before = chain(*first).transform(updates, state[:-1], params, **extra_args)
        params, after = last.step(updates, state[-1], params, **extra_args)
        return params, (*late_slots_after(params, before), after)

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        return {str(i): pair for i, pair in enumerate(zip(self.transforms, state, strict=True))}

    def lookahead_point(self, state: State, params: Params) -> Params:
        for tx, inner in zip(self.transforms, state, strict=True):
            params = tx.lookahead_point(inner, params)
        return params

    def __repr__(self) -> str:
        return f"chain({', '.join(map(repr, self.transforms))})"


class named_chain(GradientTransformation):
    """`chain` with a name for each transformation; the state is a dict from name to state.

    Args:
      *transforms: pairs of a name and a transformation; names are unique.

    Raises:
      TypeError: an argument is not a pair of a string and a transformation.
      ValueError: two names are equal.

    >>> tx = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("descend", gradtx.sgd(0.1, 0.9)))
    >>> list(tx.init(jnp.zeros(3)))
    ['clip', 'descend']
    """

    names: tuple[str, ...] = static()
    transforms: tuple[GradientTransformation, ...]

    def __init__(self, *transforms: tuple[str, Any]) -> None:
        for pair in transforms:
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise TypeError(f"named_chain takes (name, transformation) pairs, got {pair!r}")
        object.__setattr__(self, "names", tuple(name for name, _ in transforms))
        object.__setattr__(self, "transforms", tuple(tx for _, tx in transforms))
        self.validate()

    def validate(self) -> None:
        names = tuple(self.names)
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"names must be unique, but {name!r} stands twice")
        transforms = chain(*self.transforms).transforms
        if len(names) != len(transforms):
            raise ValueError(f"{len(transforms)} transformations need as many names, got {names}")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "transforms", transforms)

    def init(self, params: Params) -> OrderedDict[str, State]:
        return self._named(chain(*self.transforms).init(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        inner = tuple(state[name] for name in self.names)
        updates, inner = chain(*self.transforms).transform(updates, inner, params, **extra_args)
        return updates, self._named(inner)

    def step(self, updates: Updates, state: State, params: T, **extra_args: Any) -> tuple[T, State]:
        inner = tuple(state[name] for name in self.names)
        params, inner = chain(*self.transforms).step(updates, inner, params, **extra_args)
        return params, self._named(inner)

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        pairs = zip(self.names, self.transforms, strict=True)
        return {name: (tx, state[name]) for name, tx in pairs}

    def inner_names(self) -> Mapping[tuple[Any, ...], str]:
        return {("transforms", i): name for i, name in enumerate(self.names)}

    def lookahead_point(self, state: State, params: Params) -> Params:
        inner = tuple(state[name] for name in self.names)
        return chain(*self.transforms).lookahead_point(inner, params)

    def _named(self, states: State) -> OrderedDict[str, State]:
        return OrderedDict(zip(self.names, states, strict=True))

    def __repr__(self) -> str:
        pairs = zip(self.names, self.transforms, strict=True)
        return f"named_chain({', '.join(map(repr, pairs))})"


def steps_in_place(tx: GradientTransformation) -> bool:
    """Whether `tx` has a better `step` than `update` followed by `apply_updates`.

    A chain has if its last transformation has, such as `accumulate` or `skip_nonfinite`.
    """
    if isinstance(tx, Composed):
        return steps_in_place(tx._composition)
    if isinstance(tx, chain | named_chain):
        return bool(tx.transforms) and steps_in_place(tx.transforms[-1])
    return type(tx).step is not GradientTransformation.step


def _uses_twice(tx: GradientTransformation) -> bool:
    return tx.uses_twice and _as_old_as_transform(tx, "transform_twice")


def _formed_again(
    done: list[tuple[Any, ...]], params: Params | None, extra_args: dict[str, Any]
) -> Updates | None:
    """What the transformations before returned, formed a second time, or `None`.

    Args:
      done: each with the updates it was given, its state before and after.
      params: the parameters.
      extra_args: those of the step.
    """
    again = None
    for tx, given, old, new in done:
        if not _as_old_as_transform(tx, "is_cheap", "transform_again"):
            again = None
            continue
        given = given if again is None else again
        again = tx.transform_again(given, old, new, params, **extra_args)
    return again


def _as_old_as_transform(tx: GradientTransformation, *names: str) -> bool:
    """Whether one of these belongs to `transform`: no subclass has overridden that alone."""
    for cls in type(tx).__mro__:
        if any(name in vars(cls) for name in names):
            return True
        if "transform" in vars(cls):
            return False
    return False


def _check_length(count: int, state: State) -> None:
    if not hasattr(state, "__len__") or len(state) != count:
        raise ValueError(
            f"a chain of {count} transformations needs a state of {count} parts, as its init "
            f"returns; got {type(state).__name__}"
            + (f" of {len(state)}" if hasattr(state, "__len__") else "")
        )
