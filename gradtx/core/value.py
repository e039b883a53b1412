"""Values: immutable objects that print as code, compare and hash by content, and are pytrees.

A transformation or a schedule is declared like a frozen dataclass:

    class scale(GradientTransformation):
        step_size: Hyper

Each field is one of four kinds:

    plain              a number, array, schedule or inner value: a pytree child
    integer(...)       the same, kept a whole number
    static(...)        a name, flag, mask or function: part of the tree's structure
    dtype(...)         a floating dtype or `None`: static too
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey


def static(*, default: Any = dataclasses.MISSING, kw_only: bool = False) -> Any:
    """Declares a field that is part of the value's structure, not of its numbers."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"static": True})


def integer(*, default: Any = dataclasses.MISSING, kw_only: bool = False) -> Any:
    """Declares a numeric field that holds a whole number, such as a count of steps."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"integer": True})


def dtype(*, default: Any = dataclasses.MISSING, kw_only: bool = False) -> Any:
    """Declares a static field that holds a floating dtype or `None`."""
    metadata = {"static": True, "dtype": True}
    return dataclasses.field(default=default, kw_only=kw_only, metadata=metadata)


def hyper(*, default: Any = dataclasses.MISSING, kw_only: bool = False) -> Any:
    """Declares a plain numeric field; needed only to make it keyword-only."""
    return dataclasses.field(default=default, kw_only=kw_only)


@dataclass_transform(
    frozen_default=True, eq_default=False, field_specifiers=(static, integer, dtype, hyper)
)
class Value:
    """Base of everything that is a value; subclasses become frozen dataclasses and pytrees.

    Construction normalises concrete 0-d arrays to Python numbers and then calls
    `validate`. Flattening and unflattening never validate, so JAX may put tracers, axes
    or placeholders into the fields.
    """

    _children: ClassVar[tuple[str, ...]]
    _statics: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)
        fields = _fields(cls)
        cls._children = tuple(f.name for f in fields if not f.metadata.get("static"))
        cls._statics = tuple(f.name for f in fields if f.metadata.get("static"))
        jax.tree_util.register_pytree_with_keys(
            cls,
            _flatten_with_keys,
            functools.partial(_unflatten, cls),
            _flatten,
        )

    def __post_init__(self) -> None:
        for field in _fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("dtype"):
                value = as_dtype(field.name, value)
            elif not field.metadata.get("static"):
                value = plain_number(value, whole=field.metadata.get("integer", False))
                optional = field.default is None or "None" in str(field.type)
                if value is None and not optional:
                    raise TypeError(f"{field.name} must be a number, got None")
            elif field.type in ("bool", bool):
                if not isinstance(value, bool | np.bool_):
                    raise TypeError(f"{field.name} must be True or False, got {value!r}")
                value = bool(value)
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self) -> None:
        """Raises `ValueError` or `TypeError` where a concrete field is out of its range."""

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed, validated as at construction.

        Raises:
          TypeError: a name is not a field; the message lists the fields.

        >>> gradtx.sgd(1e-3, momentum=0.9).replace(learning_rate=3e-4)
        sgd(learning_rate=0.0003, momentum=0.9)
        """
        names = [field.name for field in _fields(self)]
        for name in changes:
            if name not in names:
                raise TypeError(
                    f"{type(self).__name__} has no field {name!r}; its fields are {names}"
                )
        new = object.__new__(type(self))
        for name in names:
            object.__setattr__(new, name, changes.get(name, getattr(self, name)))
        new.__post_init__()
        return new

    def __repr__(self) -> str:
        # Numbers are always shown, so that a log tells them also after a default has changed.
        shown = [
            f"{field.name}={show(value)}"
            for field in _fields(self)
            for value in [getattr(self, field.name)]
            if (isinstance(value, int | float) and not isinstance(value, bool))
            or field.default is dataclasses.MISSING
            or content(value) != content(field.default)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    @functools.cached_property
    def _content(self) -> tuple[Any, ...]:
        return (type(self), *(content(getattr(self, field.name)) for field in _fields(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in _fields(self)}


def content(x: Any) -> Any:
    """A key that compares, and for concrete `x` hashes, by content: arrays, trees, keys too."""
    if isinstance(x, Value):
        return x._content
    if isinstance(x, jax.core.Tracer):
        return _Traced(x)
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return ("key", str(x.dtype), content(jax.random.key_data(x)))
    if isinstance(x, np.ndarray | jax.Array):
        return ("array", str(x.dtype), x.shape, np.asarray(x).tobytes())
    leaves, treedef = jax.tree.flatten(x, is_leaf=lambda node: isinstance(node, Value))
    if jax.tree_util.all_leaves([x]):
        return (type(x), x)
    return (treedef, tuple(content(leaf) for leaf in leaves))


def is_plain_callable(x: Any) -> bool:
    """Whether `x` is a function and not a pytree that happens to be callable."""
    return callable(x) and jax.tree_util.all_leaves([x])


class _Traced:
    """A traced number inside a content key: equal to itself alone, and not hashable."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tracer: Any) -> None:
        self.tracer = tracer

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Traced) and self.tracer is other.tracer


@dataclasses.dataclass(frozen=True, eq=False)
class _Structure:
    """What a value's pytree structure remembers: static fields, and functions among the rest."""

    static: tuple[Any, ...]
    functions: tuple[Any, ...]

    @functools.cached_property
    def _content(self) -> Any:
        return content((self.static, self.functions))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        return repr(self.static)


def _fields(value: Value | type[Value]) -> list[dataclasses.Field[Any]]:
    # As in the signature: keyword-only fields, which may be those of a base, come last.
    return sorted(dataclasses.fields(value), key=lambda field: field.kw_only is True)  # type: ignore[arg-type]


def _flatten(value: Value) -> tuple[Iterable[Any], _Structure]:
    children = [getattr(value, name) for name in value._children]
    functions = tuple(child if is_plain_callable(child) else None for child in children)
    return (
        [
            child if function is None else None
            for child, function in zip(children, functions, strict=True)
        ],
        _Structure(tuple(getattr(value, name) for name in value._statics), functions),
    )


def _flatten_with_keys(value: Value) -> tuple[Iterable[tuple[Any, Any]], _Structure]:
    children, structure = _flatten(value)
    return zip(map(GetAttrKey, value._children), children, strict=True), structure


def _unflatten(cls: type[Value], structure: _Structure, children: Iterable[Any]) -> Value:
    value = object.__new__(cls)
    for name, child, function in zip(cls._children, children, structure.functions, strict=True):
        object.__setattr__(value, name, child if function is None else function)
    for name, constant in zip(cls._statics, structure.static, strict=True):
        object.__setattr__(value, name, constant)
    return value


def items_of(value: Value) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """What the plain fields hold, and where: the field, and the index or key in it."""

    def inside(item: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
        if isinstance(item, tuple | dict):
            for key, part in item.items() if isinstance(item, dict) else enumerate(item):
                yield from inside(part, (*place, key))
        else:
            yield place, item

    for name in value._children:
        yield from inside(getattr(value, name), (name,))


def plain_number(x: Any, *, whole: bool = False) -> Any:
    """Concrete 0-d arrays become Python numbers: ints where `whole`, floats elsewhere.

    flax.nnx.Optimizer refuses arrays inside a static attribute, and a float32 array would
    promote bfloat16 updates where a Python number does not.
    """
    array = isinstance(x, np.ndarray | np.generic | jax.Array)
    concrete = array and not isinstance(x, jax.core.Tracer)
    if concrete and x.ndim == 0 and jnp.issubdtype(x.dtype, np.number):
        x = x.item()
    if isinstance(x, int) and not isinstance(x, bool) and not whole:
        return float(x)
    if isinstance(x, float) and whole and x.is_integer():
        return int(x)
    return x


def as_dtype(name: str, dtype: Any) -> Any:
    """A floating dtype, or `None`; a TypeError that names the argument for anything else."""
    if dtype is None:
        return None
    try:
        result = jnp.dtype(dtype)
    except TypeError:
        raise TypeError(f"{name} must be a floating dtype, got {dtype!r}") from None
    if not jnp.issubdtype(result, jnp.floating):
        raise TypeError(f"{name} must be a floating dtype, got {result.name}")
    return result


def show(x: Any) -> str:
    """`x` as code: dtypes and functions by their names."""
    if isinstance(x, np.dtype):
        return repr(x.name)
    if is_plain_callable(x) and not isinstance(x, Value):
        name: str = getattr(x, "__qualname__", repr(x))
        return name
    return repr(x)
