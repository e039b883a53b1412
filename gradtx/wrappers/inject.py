"""Hyperparameters at run time: in the state, read and set by name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradtx.core.hyper import Compensated, Schedule
from gradtx.core.leaf import is_optimised, wide_dtype
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.slot import Count, Inner, NamedNumbers, Params, State, Updates
from gradtx.core.transformation import Composed, GradientTransformation, as_transformation
from gradtx.core.value import Value, dtype, plain_number, show, static


class InjectStatefulHyperparamsState(NamedTuple):
    """Steps; the hyperparameters by name; states of the schedules by name; the inner state."""

    count: Count  # type: ignore[assignment]
    hyperparams: Annotated[dict[str, jax.Array], NamedNumbers()]
    hyperparams_states: Inner
    inner_state: Inner


class WrappedScheduleState(NamedTuple):
    """How often a schedule was called."""

    count: Count  # type: ignore[assignment]


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule with a state of its own, as Optax defines it."""

    def init(self) -> Any:
        """The state before the first step."""

    def update(self, state: Any, **extra_args: Any) -> Any:
        """The state after a step."""

    def __call__(self, state: Any, **extra_args: Any) -> Any:
        """The number at a state."""


class WrappedSchedule:
    """A function of the step count as a `StatefulSchedule` that counts.

    >>> schedule = gradtx.WrappedSchedule(gradtx.linear_schedule(1.0, 0.0, 2))
    >>> float(schedule(schedule.update(schedule.init())))
    0.5
    """

    def __init__(self, schedule_fn: Callable[[Any], Any]) -> None:
        """Wraps `schedule_fn`, a function from a step count to a number."""
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """A count of 0."""
        return WrappedScheduleState(zero_count())

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """One step more."""
        return WrappedScheduleState(safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Any:
        """The number at this count."""
        return self.schedule_fn(state.count)


Path = tuple[Any, ...]  # field names, indices and keys


class injected(GradientTransformation):
    """A transformation with its numbers in the state; made by `inject_hyperparams`.

    >>> tx = gradtx.inject_hyperparams(gradtx.adam(1e-3))
    """

    inner: GradientTransformation
    hyperparam_dtype: DTypeLike | None = dtype(default=None)
    static_args: tuple[str, ...] = static(default=())

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))

    def _named(self) -> dict[str, tuple[Path, Any]]:
        """From name to where the number or schedule is in `inner`, and it."""
        numbers = _numbers(self.inner)
        found = [(path, value) for path, value in numbers if path[-1] not in self.static_args]
        names = _shortest([tuple(map(str, path)) for path, _ in found])
        return dict(zip(names, found, strict=True))

    def check(self, name: str, value: Any) -> None:
        """Raises unless the hyperparameter of this name may have this value."""
        *outer, last = self._named()[name][0]
        node: Any = self.inner
        for part in outer:
            node = getattr(node, part) if isinstance(node, Value) else node[part]
        if isinstance(node, Value):
            node.replace(**{last: value})

    def _current(self, hyperparams: Any, states: Any, **extra_args: Any) -> dict[str, jax.Array]:
        """The numbers of the next step: scheduled ones from their schedules."""
        numbers = {}
        for name, (_, value) in self._named().items():
            if name in states:
                number = _stateful(value)(states[name], **extra_args)
            else:
                number = hyperparams[name]
            numbers[name] = jnp.asarray(number, self._dtype())
        return numbers

    def _dtype(self) -> Any:
        return self.hyperparam_dtype or jnp.result_type(float)

    def init(self, params: Params) -> InjectStatefulHyperparamsState:
        named = self._named()
        states = {
            name: _stateful(value).init() for name, (_, value) in named.items() if callable(value)
        }
        constants = {name: value for name, (_, value) in named.items() if name not in states}
        numbers = self._current(constants, states)
        return InjectStatefulHyperparamsState(
            zero_count(), numbers, states, self._with(numbers).init(params)
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        named = self._named()
        if set(named) != set(state.hyperparams):
            raise ValueError(
                f"the state has the hyperparameters {sorted(state.hyperparams)}, "
                f"but those of {self.inner} are {sorted(named)}"
            )
        states = state.hyperparams_states
        numbers = self._current(state.hyperparams, states, **extra_args)
        updates, inner_state = self._with(numbers).transform(
            updates, state.inner_state, params, **extra_args
        )
        states = {
            name: _stateful(named[name][1]).update(old, **extra_args)
            for name, old in states.items()
        }
        count = safe_increment(state.count)
        return updates, InjectStatefulHyperparamsState(count, numbers, states, inner_state)

    def _with(self, numbers: Mapping[str, jax.Array]) -> GradientTransformation:
        """`inner` with these numbers."""
        changes = {}
        for name, (path, constant) in self._named().items():
            number = numbers[name]
            value = number.astype(wide_dtype(number.dtype))
            error: Any = 0.0
            if isinstance(constant, float):
                # What rounding to the state's dtype took from the constant, while it is that.
                rounded = float(np.asarray(constant).astype(number.dtype))
                error = jnp.where(value == rounded, constant - rounded, 0.0)
            changes[path] = Compensated(value, jnp.asarray(error, value.dtype))
        changed: GradientTransformation = _replaced(self.inner, changes)
        return changed

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        return {}

    def current_hyperparams(self, state: State) -> Mapping[str, Any]:
        return self._current(state.hyperparams, state.hyperparams_states)

    def lookahead_point(self, state: State, params: Params) -> Params:
        numbers = self._current(state.hyperparams, state.hyperparams_states)
        return self._with(numbers).lookahead_point(state.inner_state, params)

    def __repr__(self) -> str:
        options = "".join(
            f", {name}={show(value)}"
            for name, value in (
                ("static_args", self.static_args),
                ("hyperparam_dtype", self.hyperparam_dtype),
            )
            if value
        )
        return f"inject_hyperparams({self.inner!r}{options})"


class _called(Composed):
    """What a function returns for these arguments, numbers and schedules apart from others."""

    factory: Callable[..., Any] = static()
    numbers: Any
    others: Any = static()

    def validate(self) -> None:
        pass  # the function may not take schedules; `injected` gives it numbers

    def compose(self) -> GradientTransformation:
        # A function from outside does arithmetic of its own, on plain arrays.
        numbers = {
            name: x.__jax_array__() if isinstance(x, Compensated) else x
            for name, x in self.numbers.items()
        }
        return as_transformation(self.factory(**numbers, **self.others))

    def __repr__(self) -> str:
        arguments = {**self.numbers, **self.others}
        shown = ", ".join(f"{name}={show(value)}" for name, value in arguments.items())
        return f"{show(self.factory)}({shown})"


def inject_hyperparams(
    inner_factory: Any,
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Any:
    """Puts the numbers of a transformation into its state, to be read and set at run time.

    `inject_hyperparams(adam)(learning_rate=1e-3)` is Optax's form: it takes a function that
    makes a transformation and returns one that takes the same arguments, with schedules for any
    of the numbers. `inject_hyperparams(chain(clip(1.0), adam(1e-3)))` takes any
    transformation as it is. A number is named as its argument is; where two inside have one
    name, with the place before it, as `"1/learning_rate"`.

    The numbers are float32 or wider whatever the parameters' dtype, and the updates equal those
    of the plain transformation: 1 - b is not formed from a rounded b.

    Args:
      inner_factory: a transformation, or a function that returns one.
      static_args: names of arguments that stay as they are.
      hyperparam_dtype: floating dtype of the numbers in the state.

    Returns:
      The transformation, with `InjectStatefulHyperparamsState` as state; or a function that
      makes it. `state.hyperparams` holds the numbers of the last update by name.

    Raises:
      TypeError: `inner_factory` is neither.
      ValueError: `static_args` names no argument of it.

    >>> tx = gradtx.inject_hyperparams(gradtx.adam)(learning_rate=gradtx.linear_schedule(1, 0, 9))
    >>> state = tx.init(jnp.zeros(2))
    >>> print(state.hyperparams["b1"])
    0.9
    """
    names = (static_args,) if isinstance(static_args, str) else tuple(static_args)
    if isinstance(inner_factory, GradientTransformation):
        known = {path[-1] for path, _ in _numbers(inner_factory)}
        _check_names(names, known)
        return injected(inner_factory, hyperparam_dtype, names)
    if not callable(inner_factory):
        raise TypeError(
            f"inject_hyperparams takes a transformation or a function, got {inner_factory!r}"
        )
    signature = inspect.signature(inner_factory)
    _check_names(names, set(signature.parameters))

    def make(*args: Any, **kwargs: Any) -> GradientTransformation:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if isinstance(inner_factory, type) and issubclass(inner_factory, Value):
            inner: Any = _constructed(inner_factory, bound, names)
        else:
            inner = _call_of(inner_factory, bound, names)
        return injected(inner, hyperparam_dtype, names)

    make.__doc__ = inspect.getdoc(inner_factory)
    make.__name__ = getattr(inner_factory, "__name__", "make")
    make.__signature__ = signature  # type: ignore[attr-defined]
    return make


def inject_stateful_hyperparams(
    inner_factory: Any,
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Any:
    """`inject_hyperparams` under the name that Optax had for it before."""
    return inject_hyperparams(inner_factory, static_args, hyperparam_dtype)


def hyperparams(tx: Any, state: State) -> dict[str, Any]:
    """The numbers that the next update will use, by name.

    What is my learning rate now? Constants are numbers as they were given; scheduled ones are
    evaluated at the step count in the state. Where two stages have a number of the same name,
    its place stands before it, as in `"1/learning_rate"`: indices of a chain, names, labels.

    Args:
      tx: a transformation, however nested.
      state: its state.

    Raises:
      TypeError: `tx` is not a transformation.

    >>> tx = gradtx.chain(gradtx.clip(2.0), gradtx.sgd(gradtx.linear_schedule(1.0, 0.0, 10)))
    >>> state = tx.init(jnp.zeros(2))
    >>> {name: float(value) for name, value in gradtx.hyperparams(tx, state).items()}
    {'max_delta': 2.0, 'learning_rate': 1.0}
    """
    return {name: place.value for name, place in _places(tx, state).items()}


def set_hyperparams(tx: Any, state: State, /, **values: Any) -> State:
    """The state with other numbers for some hyperparameters; no step is compiled anew.

    Only what `inject_hyperparams` has put into the state can be set; names are those that
    `hyperparams` shows. Names with a slash are given as `**{"1/learning_rate": 0.1}`.

    Args:
      tx: a transformation, however nested.
      state: its state; it is left as it is.
      **values: numbers.

    Raises:
      ValueError: a name is not in the state; the message lists those that are. Or the value is
        out of its range, or the hyperparameter follows a schedule.

    >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.inject_hyperparams(gradtx.sgd)(0.1))
    >>> state = gradtx.set_hyperparams(tx, tx.init(jnp.zeros(2)), learning_rate=0.01)
    >>> print(gradtx.hyperparams(tx, state)["learning_rate"])
    0.01
    """
    places = _places(tx, state)
    free = [name for name, place in places.items() if isinstance(place.owner, injected)]
    replaced: dict[int, Any] = {}
    for name, value in values.items():
        if name not in free:
            kind = "a constant of the transformation" if name in places else "no hyperparameter"
            raise ValueError(
                f"{name!r} is {kind}; those that can be set are {free}"
                + ("" if free else ": wrap the transformation in inject_hyperparams")
            )
        place = places[name]
        if place.name in place.state.hyperparams_states:
            raise ValueError(f"{name} follows a schedule, and cannot be set")
        place.owner.check(place.name, value)
        new = replaced.get(id(place.state), place.state)
        number = jnp.full_like(new.hyperparams[place.name], value)
        replaced[id(place.state)] = new._replace(
            hyperparams={**new.hyperparams, place.name: number}
        )
    return jax.tree.map(
        lambda node: replaced.get(id(node), node), state, is_leaf=lambda node: id(node) in replaced
    )


class _Place(NamedTuple):
    """Where a hyperparameter is: its value, the transformation, its state, its name there."""

    value: Any
    owner: Any
    state: Any
    name: str


def _places(tx: Any, state: State) -> dict[str, _Place]:
    found: list[tuple[tuple[str, ...], _Place]] = []

    def visit(tx: GradientTransformation, state: State, path: tuple[str, ...]) -> None:
        for name, value in tx.current_hyperparams(state).items():
            found.append(((*path, *name.split("/")), _Place(value, tx, state, name)))
        for part, (inner, inner_state) in tx.inner_states(state).items():
            visit(inner, inner_state, (*path, part))

    visit(as_transformation(tx), state, ())
    names = _shortest([path for path, _ in found])
    return dict(zip(names, (place for _, place in found), strict=True))


def _shortest(paths: list[tuple[str, ...]]) -> list[str]:
    """The last part of each path where that is unique, else the whole."""
    last = [path[-1] for path in paths]
    return [path[-1] if last.count(path[-1]) == 1 else "/".join(path) for path in paths]


def _numbers(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every float hyperparameter or schedule inside a transformation, and where it is."""
    if isinstance(node, injected):
        raise TypeError(f"{node} is inside inject_hyperparams a second time")
    if isinstance(node, Value) and not isinstance(node, Schedule):
        for field in dataclasses.fields(node):  # type: ignore[arg-type]
            if not (field.metadata.get("static") or field.metadata.get("integer")):
                yield from _numbers(getattr(node, field.name), (*path, field.name))
    elif isinstance(node, tuple):
        for i, item in enumerate(node):
            yield from _numbers(item, (*path, i))
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from _numbers(item, (*path, key))
    elif callable(node) or is_optimised(node):
        yield path, node


def _replaced(node: Any, changes: Mapping[Path, Any]) -> Any:
    """`node` with the values at some paths replaced, without validation."""
    if () in changes:
        return changes[()]
    inside: dict[Any, dict[Path, Any]] = {}
    for path, value in changes.items():
        inside.setdefault(path[0], {})[path[1:]] = value
    if isinstance(node, Value):
        new = object.__new__(type(node))
        for field in dataclasses.fields(node):  # type: ignore[arg-type]
            value = _replaced(getattr(node, field.name), inside.get(field.name, {}))
            object.__setattr__(new, field.name, value)
        return new
    if isinstance(node, tuple):
        return tuple(_replaced(item, inside.get(i, {})) for i, item in enumerate(node))
    if isinstance(node, dict):
        return {key: _replaced(item, inside.get(key, {})) for key, item in node.items()}
    return node


def _constructed(
    factory: type[Value], bound: inspect.BoundArguments, static_args: tuple[str, ...]
) -> Value:
    """A transformation of gradtx with schedules also where it takes numbers alone."""
    scheduled = {
        name: value
        for name, value in bound.arguments.items()
        if name in factory._children and callable(value) and name not in static_args
    }
    try:
        return factory(*bound.args, **bound.kwargs)
    except TypeError:
        if not scheduled:
            raise
    for name in scheduled:
        default = bound.signature.parameters[name].default
        bound.arguments[name] = default if isinstance(default, float) else 0.0
    plain = factory(*bound.args, **bound.kwargs)
    constructed: Value = _replaced(plain, {(name,): x for name, x in scheduled.items()})
    return constructed


def _call_of(
    factory: Callable[..., Any], bound: inspect.BoundArguments, static_args: tuple[str, ...]
) -> _called:
    def is_number(name: str, value: Any) -> bool:
        if name in static_args or isinstance(value, bool):
            return False
        if isinstance(value, int):
            # An int where ints are meant is a size or a count, which shapes may depend on.
            return not isinstance(bound.signature.parameters[name].default, int)
        return callable(value) or is_optimised(value)

    numbers = {name: x for name, x in bound.arguments.items() if is_number(name, x)}
    others = {name: x for name, x in bound.arguments.items() if name not in numbers}
    return _called(factory, {name: plain_number(x) for name, x in numbers.items()}, others)


def _stateful(schedule: Any) -> Any:
    return schedule if isinstance(schedule, StatefulSchedule) else WrappedSchedule(schedule)


def _check_names(static_args: tuple[str, ...], known: set[Any]) -> None:
    if not set(static_args) <= known:
        raise ValueError(f"static_args must be among {sorted(known)}, got {list(static_args)}")
