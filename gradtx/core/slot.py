"""Typed slots: every field of every state says what it is.

    class ScaleByAdamState(NamedTuple):
        count: Count
        mu: Annotated[Updates, Slot()]
        nu: Annotated[Updates, Slot(nonnegative=True)]

Everything generic (memory reports, quantisation, sharding, checkpoints) reads only these.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, get_type_hints

import jax

Params = Any
Updates = Any
State = Any
OptState = State  # Optax's name


class Kind:
    """Base of what a state field can be."""


@dataclasses.dataclass(frozen=True)
class Slot(Kind):
    """A tree like the parameters: same structure, one array of the parameter's shape per leaf.

    Attributes:
      nonnegative: the values are never below zero, and are real also for complex parameters.
      read_late: the update is formed from the old value, so that `step` writes the new one
        after the parameters; otherwise XLA would copy the old one.
      exact: the values are parameters, averages of them, what differences are taken of, or a
        mean that each part of a batch is added to, so that `quantize_state` stores them as they
        are unless it is told otherwise.
    """

    nonnegative: bool = False
    read_late: bool = False
    exact: bool = False


class Blocks(NamedTuple):
    """What `quantize_state` puts in the place of an array of a slot.

    Attributes:
      codes: in the array's shape; where two share a byte, the axes that the scales have and
        the bytes.
      scales: float32, one for each block. The axes in front are the array's.
    """

    codes: jax.Array
    scales: jax.Array


@dataclasses.dataclass(frozen=True)
class Reduced(Kind):
    """A tree with smaller arrays in the place of each leaf: norms, means over some axes."""


@dataclasses.dataclass(frozen=True)
class Opaque(Kind):
    """Arrays in a layout of their own, fixed by `init`: measurements, a state over one vector."""


@dataclasses.dataclass(frozen=True)
class History(Kind):
    """A tree like the parameters with an axis in front: one array per remembered step."""


@dataclasses.dataclass(frozen=True)
class Numbers(Kind):
    """One number per remembered step: shape (n,), float32 or wider."""


@dataclasses.dataclass(frozen=True)
class Boolean(Kind):
    """A truth value: shape (), bool."""


@dataclasses.dataclass(frozen=True)
class RandomKey(Kind):
    """A random key: shape ()."""


@dataclasses.dataclass(frozen=True)
class Counter(Kind):
    """A number of steps: shape (), int32."""


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """One number for the whole tree: shape (), float32 or wider."""


@dataclasses.dataclass(frozen=True)
class NamedNumbers(Kind):
    """Numbers of the whole tree, by name: a dict of arrays of shape ()."""


@dataclasses.dataclass(frozen=True)
class Nested(Kind):
    """The state of an inner transformation."""


Count = Annotated[jax.Array, Counter()]
Scalar = Annotated[jax.Array, Number()]
Flag = Annotated[jax.Array, Boolean()]
Key = Annotated[jax.Array, RandomKey()]
Inner = Annotated[Any, Nested()]


@functools.cache
def kinds(state_type: Any) -> dict[str, Kind]:
    """The kind of each field of a state's NamedTuple type.

    Raises:
      TypeError: a field is not annotated with a kind; the message names it.
    """
    found: dict[str, Kind] = {}
    for name, hint in get_type_hints(state_type, include_extras=True).items():
        marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Kind)]
        if not marks:
            raise TypeError(f"{state_type.__name__}.{name} does not say what kind of slot it is")
        found[name] = marks[0]
    return found


_KNOWN: dict[tuple[str, tuple[str, ...]], type] = {}


def know_states(types: Iterable[Any]) -> None:
    """Has Optax's states of the same names and fields as these read as they are.

    Args:
      types: of states; what is none is passed over.
    """
    for each in types:
        if isinstance(each, type) and issubclass(each, tuple) and hasattr(each, "_fields"):
            _KNOWN[each.__name__, each._fields] = each


def known_as(state: Any) -> Any:
    """The type that says what the fields of a NamedTuple are: its own, or ours of its name."""
    own: Any = type(state)
    return own if is_state(state) else _KNOWN.get((own.__name__, own._fields))


def is_known(x: Any) -> bool:
    """Whether `x` is a state that says what it is, or tuples or dicts of such, Optax's included."""
    if hasattr(x, "_fields"):
        return known_as(x) is not None
    if isinstance(x, tuple | dict):
        return len(x) > 0 and all(map(is_known, x.values() if isinstance(x, dict) else x))
    return False


def is_state(x: Any) -> bool:
    """Whether `x` is a gradtx state: a NamedTuple of typed slots, or a tuple or dict of states."""
    if hasattr(x, "_fields"):
        state_type: Any = type(x)
        try:
            return len(kinds(state_type)) == len(x._fields)
        except (TypeError, NameError):
            return False
    if isinstance(x, tuple):
        return len(x) > 0 and all(map(is_state, x))
    if isinstance(x, dict):
        return len(x) > 0 and all(map(is_state, x.values()))
    return False
