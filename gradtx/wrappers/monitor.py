"""Measurements of the updates that pass by, kept in the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.hyper import Hyper
from gradtx.core.leaf import optimised_only
from gradtx.core.slot import Opaque, Params, State, Updates
from gradtx.core.transformation import EmptyState, GradientTransformation, as_transformation
from gradtx.core.value import Value, dtype, show, static
from gradtx.transforms.trace import ema

Measure = Callable[[Updates], Any]


class SnapshotState(NamedTuple):
    """The last measurement, under its name."""

    measurement: Annotated[dict[str, Any], Opaque()]


class snapshot(GradientTransformation):
    """Measures the updates and keeps the result in the state; the updates pass unchanged.

    Before the first step the measurement is that of the parameters, as in Optax.

    Args:
      measure_name: the key of the measurement in the state, which
        `optax.tree.get(state, measure_name)` finds too.
      measure: from the updates to an array or a tree of arrays, of shapes and dtypes that
        only those of the updates decide. It sees low-precision leaves as float32 and `None`
        for leaves that are not optimised.

    Raises:
      TypeError: `measure_name` is not a string or `measure` not a function.

    >>> tx = gradtx.snapshot("norm", gradtx.global_norm)
    >>> updates, state = tx.update(jnp.asarray([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> state.measurement
    {'norm': Array(5., dtype=float32)}
    """

    measure_name: str = static()
    measure: Measure = static()

    def validate(self) -> None:
        if not isinstance(self.measure_name, str):
            raise TypeError(f"measure_name must be a string, got {self.measure_name!r}")
        _check_function("measure", self.measure)

    def init(self, params: Params) -> SnapshotState:
        measured = self.measure(optimised_only(params))
        # A measure may return what it was given.
        measured = jax.tree.map(lambda x: _strong(x, copy=True), measured)
        return SnapshotState({self.measure_name: measured})

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        measured = self.measure(optimised_only(updates))
        old = state.measurement[self.measure_name]
        return updates, SnapshotState({self.measure_name: _typed_as(old, measured)})


class MonitorState(NamedTuple):
    """The last measurements by name, and what the measures themselves remember."""

    measurements: Annotated[dict[str, Any], Opaque()]
    measure_states: Annotated[tuple[State, ...], Opaque()]


class monitor(GradientTransformation):
    """Makes several measurements of the updates, some with a memory; the updates pass unchanged.

    The measurements are zero before the first step, so that the state has one structure from
    `init` on.

    Args:
      measures: from names to measures. A measure is a function as for `snapshot`, the result
        of `measure_with_ema`, or a transformation, whose updates are then the measurement.

    Raises:
      TypeError: `measures` is not a mapping from strings to measures.

    >>> tx = gradtx.monitor({"norm": gradtx.global_norm, "ema": gradtx.ema(0.5)})
    >>> tx = gradtx.monitor({
    ...     "norm": gradtx.global_norm,
    ...     "mean": gradtx.measure_with_ema(gradtx.global_norm, decay=0.9),
    ... })
    >>> updates, state = tx.update(jnp.asarray([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> float(state.measurements["norm"])
    5.0
    """

    measures: Mapping[str, Any]

    def validate(self) -> None:
        if not isinstance(self.measures, Mapping):
            raise TypeError(f"measures must be a dict from names to measures, got {self.measures}")
        for name in self.measures:
            if not isinstance(name, str):
                raise TypeError(f"measures must have strings as names, got {name!r}")
        # In the order that JAX gives a dict's entries when it rebuilds one.
        measures = {name: _as_measure(self.measures[name]) for name in sorted(self.measures)}
        object.__setattr__(self, "measures", measures)

    def init(self, params: Params) -> MonitorState:
        measurements, states = {}, []
        for name, measure in self.measures.items():
            states.append(measure.init(params))
            measurements[name] = jax.tree.map(_fresh_zeros, measure.template(params))
        return MonitorState(measurements, tuple(states))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        measurements, states = {}, []
        for (name, measure), old in zip(self.measures.items(), state.measure_states, strict=True):
            measured, new = measure.update(updates, old, params, **extra_args)
            measurements[name] = _typed_as(state.measurements[name], measured)
            states.append(new)
        return updates, MonitorState(measurements, tuple(states))


class _Stateful(Value):
    """A measure with a memory: `update` returns a measurement in the place of updates."""

    def template(self, params: Params) -> Any:
        """Arrays of the shapes, dtypes and shardings of the measurement."""
        raise NotImplementedError  # abstract

    def init(self, params: Params) -> State:
        raise NotImplementedError  # abstract

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Any, State]:
        raise NotImplementedError  # abstract


class measure_with_ema(_Stateful):
    """A measure for `monitor`: the exponential moving average of another.

    Args:
      measure: as for `snapshot`; truth values and whole numbers are averaged as float32.
      decay, debias, accumulator_dtype: as for `ema`.

    Raises:
      TypeError, ValueError: `measure` is not a function; `decay` is not a number in [0, 1);
        `accumulator_dtype` is not a floating dtype.

    >>> tx = gradtx.monitor({"large": gradtx.measure_with_ema(
    ...     lambda updates: gradtx.global_norm(updates) > 1.0, decay=0.9)})
    """

    measure: Measure = static()
    decay: Hyper
    debias: bool = static(default=True)
    accumulator_dtype: DTypeLike | None = dtype(default=None)

    def validate(self) -> None:
        _check_function("measure", self.measure)
        self._mean()

    def _mean(self) -> ema:
        return ema(self.decay, self.debias, self.accumulator_dtype)

    def _measured(self, updates: Updates) -> Any:
        return jax.tree.map(_as_inexact, self.measure(optimised_only(updates)))

    def template(self, params: Params) -> Any:
        return self._measured(params)

    def init(self, params: Params) -> State:
        return EmptyState(), self._mean().init(self._measured(params))

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Any, State]:
        del params, extra_args
        mean, new = self._mean().transform(self._measured(updates), state[1], None)
        return mean, (state[0], new)


class _Function(_Stateful):
    """A function as a measure; prints as the function."""

    measure: Measure = static()

    def template(self, params: Params) -> Any:
        return self.measure(optimised_only(params))

    def init(self, params: Params) -> State:
        return EmptyState()

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Any, State]:
        return self.measure(optimised_only(updates)), state

    def __repr__(self) -> str:
        return show(self.measure)


class _Transformation(_Stateful):
    """A transformation as a measure; prints as the transformation."""

    inner: GradientTransformation

    def template(self, params: Params) -> Any:
        return optimised_only(params)

    def init(self, params: Params) -> State:
        return self.inner.init(params)

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Any, State]:
        measured, state = self.inner.transform(updates, state, params, **extra_args)
        return optimised_only(measured), state

    def __repr__(self) -> str:
        return repr(self.inner)


def _as_measure(measure: Any) -> _Stateful:
    if isinstance(measure, _Stateful):
        return measure
    return _Function(measure) if callable(measure) else _Transformation(as_transformation(measure))


def _check_function(name: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{name} must be a function of the updates, got {function!r}")


def _strong(x: Any, *, copy: bool = False) -> jax.Array:
    """`x` as an array without a weak type, so that a state's types stay as they are."""
    return jnp.array(x, jnp.result_type(x), copy=copy)


def _fresh_zeros(x: Any) -> jax.Array:
    return jnp.zeros_like(x, dtype=jnp.result_type(x))


def _as_inexact(x: Any) -> jax.Array:
    array = jnp.asarray(x)
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(jnp.float32)


def _typed_as(old: Any, new: Any) -> Any:
    """`new` in the types of `old`, which stays where a missing update gave no measurement."""
    return jax.tree.map(lambda o, n: o if n is None else jnp.asarray(n).astype(o.dtype), old, new)
