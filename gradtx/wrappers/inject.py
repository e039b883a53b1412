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

from gradtx.core.composed import Composed
from gradtx.core.hyper import Compensated, Schedule
from gradtx.core.leaf import is_optimised, wide_dtype
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.slot import Count, Inner, NamedNumbers, Params, State, Updates
from gradtx.core.transformation import GradientTransformation, TransformationPair, as_transformation
from gradtx.core.value import Value, dtype, items_of, plain_number, show, static


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


class _Number(NamedTuple):
    """A number or schedule in a transformation: where it is, its full name, and it."""

    path: Path
    name: str
    value: Any


class injected(GradientTransformation):
    """A transformation with its numbers in the state; made by `inject_hyperparams`.

    >>> tx = gradtx.inject_hyperparams(gradtx.adam(1e-3))
    """

    inner: GradientTransformation
    hyperparam_dtype: DTypeLike | None = dtype(default=None)
    static_args: tuple[str, ...] = static(default=())

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))

    def _named(self) -> dict[str, _Number]:
        """The numbers and schedules inside that are in the state, by their names there."""
        found = [x for x in _numbers(self.inner) if x.path[-1] not in self.static_args]
        return dict(zip(_shortest([x.name for x in found]), found, strict=True))

    def check(self, name: str, value: Any) -> None:
        """Raises unless the hyperparameter of this name may have this value."""
        *outer, last = self._named()[name].path
        node: Any = self.inner
        for part in outer:
            node = getattr(node, part) if isinstance(node, Value) else node[part]
        if isinstance(node, Value):
            node.replace(**{last: value})

    def _current(self, hyperparams: Any, states: Any, **extra_args: Any) -> dict[str, jax.Array]:
        """The numbers of the next step: scheduled ones from their schedules."""
        numbers = {}
        for name, place in self._named().items():
            if name in states:
                number = _stateful(place.value)(states[name], **extra_args)
            else:
                number = hyperparams[name]
            numbers[name] = jnp.asarray(number, self._dtype())
        return numbers

    def _dtype(self) -> Any:
        return self.hyperparam_dtype or jnp.result_type(float)

    def init(self, params: Params) -> InjectStatefulHyperparamsState:
        named = self._named()
        states = {name: _stateful(x.value).init() for name, x in named.items() if callable(x.value)}
        constants = {name: x.value for name, x in named.items() if name not in states}
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
            name: _stateful(named[name].value).update(old, **extra_args)
            for name, old in states.items()
        }
        count = safe_increment(state.count)
        return updates, InjectStatefulHyperparamsState(count, numbers, states, inner_state)

    def _with(self, numbers: Mapping[str, jax.Array]) -> GradientTransformation:
        """`inner` with these numbers."""
        changes = {}
        for name, (path, _, constant) in self._named().items():
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
        numbers = self._current(state.hyperparams, state.hyperparams_states)
        return {place.name: numbers[name] for name, place in self._named().items()}

    def stored_hyperparams(self, state: State) -> Mapping[str, tuple[State, str]]:
        return {place.name: (state, name) for name, place in self._named().items()}

    def at(self, state: State) -> GradientTransformation:
        """The transformation inside, with the numbers that the next update will use."""
        numbers = self._current(state.hyperparams, state.hyperparams_states)
        changes = {place.path: numbers[name] for name, place in self._named().items()}
        inner: GradientTransformation = _replaced(self.inner, changes)
        return inner

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
    if isinstance(inner_factory, TransformationPair) and not isinstance(inner_factory, type):
        inner_factory = as_transformation(inner_factory)
        known = {number.path[-1] for number in _numbers(inner_factory)}
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
    Of a foreign transformation, those are shown that its state holds as `hyperparams`, as
    `optax.inject_hyperparams` does; one that follows a schedule is that of the last update.

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

    Only what `inject_hyperparams` has put into the state can be set, Optax's included; names
    are those that `hyperparams` shows. Names with a slash are given as
    `**{"1/learning_rate": 0.1}`.

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
    for name, value in values.items():
        state = _with_number(tx, state, name, value)
    return state


def _with_number(tx: Any, state: State, name: str, value: Any) -> State:
    places = _places(tx, state)
    if name not in places or places[name].part is None:
        kind = "a constant of the transformation" if name in places else "no hyperparameter"
        free = [other for other, place in places.items() if place.part is not None]
        raise ValueError(
            f"{name!r} is {kind}; those that can be set are {free}"
            + ("" if free else ": wrap the transformation in inject_hyperparams")
        )
    _, owner, part, key = places[name]
    if key in getattr(part, "hyperparams_states", ()):
        raise ValueError(f"{name} follows a schedule, and cannot be set")
    if isinstance(owner, injected):
        owner.check(key, value)
    number = jnp.full_like(part.hyperparams[key], value)
    new = part._replace(hyperparams={**part.hyperparams, key: number})
    return jax.tree.map(
        lambda node: new if node is part else node, state, is_leaf=lambda node: node is part
    )


class _Place(NamedTuple):
    """Where a hyperparameter is: its value, the transformation; what of the state has it, as what.

    `part` is `None` for constants of the transformation.
    """

    value: Any
    owner: Any
    part: Any
    key: str


def _places(tx: Any, state: State) -> dict[str, _Place]:
    found: dict[str, _Place] = {}

    def visit(tx: GradientTransformation, state: State, before: str) -> None:
        stored = tx.stored_hyperparams(state)
        for name, value in tx.current_hyperparams(state).items():
            place = _Place(value, tx, *stored.get(name, (None, name)))
            found.setdefault(before + name, place)
        if isinstance(tx, injected):
            # What is not in the state: whole numbers, static_args, what a foreign state holds.
            visit(tx.at(state), state.inner_state, before)
        for part, (inner, inner_state) in tx.inner_states(state).items():
            visit(inner, inner_state, f"{before}{part}/")

    visit(as_transformation(tx), state, "")
    return dict(zip(_shortest(list(found)), found.values(), strict=True))


def _shortest(names: list[str]) -> list[str]:
    """The last part of each name where that is unique, else the whole."""
    last = [name.rsplit("/", 1)[-1] for name in names]
    return [
        short if last.count(short) == 1 else name for short, name in zip(last, names, strict=True)
    ]


def _numbers(node: Any, path: Path = (), name: Path = ()) -> Iterator[_Number]:
    """Every float hyperparameter or schedule inside a transformation."""
    if isinstance(node, injected):
        raise TypeError(f"{node} is inside inject_hyperparams a second time")
    if isinstance(node, Value) and not isinstance(node, Schedule):
        names = node.inner_names() if isinstance(node, GradientTransformation) else {}
        whole = {f.name for f in dataclasses.fields(node) if f.metadata.get("integer")}  # type: ignore[arg-type]
        for place, item in items_of(node):
            # A field that holds several is not part of their names: indices and keys are.
            part = (names[place],) if place in names else place[1:] or place
            if place[0] not in whole:
                yield from _numbers(item, (*path, *place), (*name, *part))
    elif callable(node) or is_optimised(node):
        yield _Number(path, "/".join(map(str, name)), node)


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
