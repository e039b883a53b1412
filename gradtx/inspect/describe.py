"""What a transformation is and holds, in words and in bytes."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.leaf import is_optimised
from gradtx.core.map_params import Place, map_slots
from gradtx.core.partition import leaves_with_paths
from gradtx.core.slot import (
    Boolean,
    Counter,
    History,
    Kind,
    NamedNumbers,
    Number,
    Numbers,
    Opaque,
    Params,
    RandomKey,
    Reduced,
    Slot,
    State,
)
from gradtx.core.transformation import EmptyState, GradientTransformation, as_transformation
from gradtx.core.value import items_of, show
from gradtx.inspect.size import abstract_state, bytes_of, bytes_on_a_device
from gradtx.memory.formats import PowerFormat
from gradtx.memory.leaves import shards_of

SHAPE_RULES = {
    Slot: "like parameter",
    Reduced: "reduced",
    History: "history",
    Numbers: "numbers",
    NamedNumbers: "named scalars",
    Number: "scalar",
    Counter: "count",
    Boolean: "flag",
    RandomKey: "key",
    Opaque: "own layout",
}
"""What a slot's kind says of its shape, in a word or two."""

_MATCHED = "like parameter*"
_OTHER = "other*"
_UNKNOWN = "unknown*"
_FOREIGN = (
    "* A foreign state does not say what its slots are; init, called with a placeholder for the",
    "  parameters, shows which are like them.",
)

_WIDTH, _COLUMN = 100, 13
_SHOWN_PATHS = 6
_QUANTIZED_MIN_SIZE = 4096


@dataclasses.dataclass(frozen=True)
class DescribedSlot:
    """One slot of a stage's state; where its arrays are stored in several ways, one way of them.

    Attributes:
      stage: the index of its stage in `Description.stages`.
      name: of the field.
      shape_rule: how its shapes follow from the parameters': one of `SHAPE_RULES`, or
        `"like parameter*"`, `"other*"`, `"unknown*"` in a foreign state, which does not say.
      dtype: of its arrays; `"int8 codes + float32 scales"` where several stand in the place of
        one.
      bytes: of all its arrays.
      device_bytes: what one device holds of these; `None` where no shardings were given.
      paths: for a slot like the parameters, the paths of those that it is stored for so.
    """

    stage: int
    name: str
    shape_rule: str
    dtype: str
    bytes: int
    device_bytes: int | None
    paths: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Description:
    """What `describe` found; `print` shows it as text.

    Attributes:
      stages: depth, text and bytes of state of each transformation, from the outside in.
      slots: what the stages hold, each slot with the innermost stage that holds it.
      leaves: path, shape, dtype and label of each optimised leaf; the label is that of the
        `partition` or `groups` it falls under, with slashes where one is inside another, and
        `frozen` where `freeze` keeps it.
      parameters: their number.
      state_bytes: bytes of the whole state.
      device_bytes: bytes of it that one device holds; `None` where no shardings were given.
      saved_in_8_bits: by how many bytes the state would be smaller if `quantize_state` stored
        the slots like the parameters in 8 bits, as it does unless told otherwise, in blocks
        that no shards shorten.
      saved_in_4_bits: the same in 4 bits.
    """

    stages: tuple[tuple[int, str, int], ...]
    slots: tuple[DescribedSlot, ...]
    leaves: tuple[tuple[str, tuple[int, ...], str, str], ...]
    parameters: int
    state_bytes: int
    device_bytes: int | None
    saved_in_8_bits: int
    saved_in_4_bits: int

    def __str__(self) -> str:
        lines = [
            f"{self.parameters:,} parameters in {len(self.leaves)} leaves; "
            f"{self.state_bytes:,} bytes of state, {self._each(self.state_bytes)} per parameter"
        ]
        if self.device_bytes is not None:
            lines.append(f"{self.device_bytes:,} bytes of state on a device")
        lines += [*self._table(), *self._exceptions(), *self._savings()]
        if any(s.shape_rule.endswith("*") for s in self.slots):
            lines += _FOREIGN
        if any(label for *_, label in self.leaves):
            lines += ["", *aligned([(p, str(s), d, label) for p, s, d, label in self.leaves])]
        return "\n".join(lines)

    def _each(self, size: int) -> str:
        return f"{size / self.parameters if self.parameters else 0.0:.2f}"

    def _table(self) -> Iterator[str]:
        """A line for each stage, and below it one for each of its slots."""
        words = aligned(
            [
                ("  " * (self.stages[s.stage][0] + 1) + s.name, s.shape_rule, s.dtype)
                for s in self.slots
            ]
        )
        columns = 2 if self.device_bytes is None else 3
        room = _WIDTH - columns * _COLUMN
        rows = [([""], ("state", "/parameter", "/device"))]
        for i, (depth, text, size) in enumerate(self.stages):
            rows.append((_wrapped(text, depth, room), (_readable(size), self._each(size), "")))
            for s, line in zip(self.slots, words, strict=True):
                if s.stage == i:
                    device = _readable(s.device_bytes or 0)
                    rows.append(([line], (_readable(s.bytes), self._each(s.bytes), device)))
        width = max(len(line) for lines, _ in rows for line in lines)
        for (line, *more), numbers in rows:
            cells = "".join(cell.rjust(_COLUMN) for cell in numbers[:columns])
            yield (line.ljust(width) + cells).rstrip()
            yield from more

    def _exceptions(self) -> Iterator[str]:
        """For a slot that is stored in several ways, where it is not in the usual one."""
        usual: dict[tuple[int, str], DescribedSlot] = {}
        for s in self.slots:
            place = (s.stage, s.name)
            if s.paths and (place not in usual or s.bytes > usual[place].bytes):
                usual[place] = s
        for s in self.slots:
            if s.paths and usual[s.stage, s.name] is not s:
                more = len(s.paths) - _SHOWN_PATHS
                rest = f" and {more} more" if more > 0 else ""
                line = f"{s.name} in {s.dtype}: {', '.join(s.paths[:_SHOWN_PATHS])}{rest}"
                yield from _wrapped(line, 0, _WIDTH)

    def _savings(self) -> Iterator[str]:
        if self.saved_in_8_bits or self.saved_in_4_bits:
            in_8, in_4 = (
                f"{self._each(self.state_bytes - saved)} in {bits} bits ({_readable(saved)} less)"
                for bits, saved in ((8, self.saved_in_8_bits), (4, self.saved_in_4_bits))
            )
            yield f"per parameter with quantize_state: {in_8}, {in_4}"


def describe(tx: Any, params: Params, shardings: Any = None) -> Description:
    """Tells what a transformation does with these parameters, and what it holds for them.

    Args:
      tx: a transformation, gradtx's or Optax's.
      params: tree of arrays, or of `jax.ShapeDtypeStruct`; nothing is computed or allocated.
      shardings: tree of `jax.sharding.Sharding`, of the parameters' structure or a prefix of
        it; `None` in it for what every device holds whole. On an abstract mesh the devices
        need not be there. A slot like the parameters is divided as they are, as are the axes
        that a smaller array keeps, if its shape tells which; every device holds the whole of
        any other. The blocks of `quantize_state` are those that `init` makes
        of parameters that lie so; jitted, it does not see how an automatic axis is divided.

    Returns:
      Its stages with their hyperparameters and bytes of state; their slots with shape rule,
      dtype and bytes; and, where a `partition`, `groups` or `freeze` is among them, which leaf
      falls under which label.

    Raises:
      TypeError: `tx` is not a transformation; `params` is not empty and has no array; a leaf of
        `shardings` is no sharding.
      ValueError: `shardings` has another structure than the parameters, or one of them does
        not fit the shape of its parameter; the message names the leaf's path. Whatever `init`
        raises for such parameters.

    >>> tx = gradtx.groups([("bias", gradtx.sgd(0.1))], default=gradtx.sgd(0.1, momentum=0.9))
    >>> print(gradtx.describe(tx, {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}))
    8 parameters in 2 leaves; 24 bytes of state, 3.00 per parameter
                                                           state   /parameter
    groups                                                  24 B         3.00
      bias: sgd(learning_rate=0.1)                           0 B         0.00
      default: sgd(learning_rate=0.1, momentum=0.9)         24 B         3.00
        trace   like parameter   float32                    24 B         3.00
    <BLANKLINE>
    bias     (2,)     float32   bias
    kernel   (3, 2)   float32   default
    """
    tx = as_transformation(tx)
    sharded = shardings is not None
    placed = _placed(params, shardings) if sharded else params
    state = abstract_state(tx, placed)
    flat = [(path, leaf) for path, leaf in leaves_with_paths(params) if is_optimised(leaf)]
    labels: dict[str, str] = {}
    found = list(_stages(tx, state, placed, "", 0, labels))
    slots = [
        described
        for i, (_, held) in enumerate(found)
        for each in held
        for described in _by_dtype(i, each, sharded)
    ]
    stored = [
        entry.stored
        for _, held in found
        for each in held
        for entry in each.entries
        if entry.param is not None and not each.exact
    ]
    return Description(
        stages=tuple(stage for stage, _ in found),
        slots=tuple(slots),
        leaves=tuple(
            (path, np.shape(leaf), jnp.result_type(leaf).name, labels.get(path, ""))
            for path, leaf in flat
        ),
        parameters=sum(math.prod(np.shape(leaf)) for _, leaf in flat),
        state_bytes=bytes_of(state),
        device_bytes=sum(s.device_bytes or 0 for s in slots) if sharded else None,
        saved_in_8_bits=sum(_saved(node, 8) for node in stored),
        saved_in_4_bits=sum(_saved(node, 4) for node in stored),
    )


class _Entry(NamedTuple):
    """What a slot holds for one parameter, or for none in particular.

    `stored` is an array; for a parameter there may be several in the place of one. `origin` is the
    parameter that a smaller array, or one with another axis in front, is formed from.
    """

    path: str
    param: Any
    stored: Any
    origin: Any = None


class _Held(NamedTuple):
    """A slot and all that it holds."""

    name: str
    shape_rule: str
    entries: list[_Entry]
    exact: bool = False  # whether quantize_state leaves it alone


def _stages(
    tx: GradientTransformation,
    state: State,
    params: Params,
    name: str,
    depth: int,
    labels: dict[str, str],
) -> Iterator[tuple[tuple[int, str, int], list[_Held]]]:
    inner = tx.inner_states(state)
    text = _without_inner(tx) if inner else repr(tx)
    stage = (depth, f"{name}: {text}" if name else text, bytes_of(state))
    yield stage, _held(tx, _without(state, [part for _, part in inner.values()]), params)
    for path, label in tx.assignment(params).items():
        labels[path] = f"{labels[path]}/{label}" if path in labels else str(label)
    for part, (inner_tx, inner_state) in inner.items():
        inside = tx.inner_params(part, params)
        shown = "" if part.isdigit() or len(inner) == 1 else part
        yield from _stages(inner_tx, inner_state, inside, shown, depth + 1, labels)


def _without_inner(tx: GradientTransformation) -> str:
    """The text of a wrapper without what is inside, which has lines of its own."""
    own = {
        name: item
        for (name, *_), item in items_of(tx)
        if item is not None and not isinstance(item, GradientTransformation)
    }
    for field in dataclasses.fields(tx):
        value = getattr(tx, field.name)
        if isinstance(value, str | bool | int) and value != field.default:
            own[field.name] = value
    arguments = ", ".join(f"{name}={show(value)}" for name, value in own.items())
    return type(tx).__name__ + (f"({arguments})" if own else "")


def _without(state: State, parts: list[State]) -> State:
    """The state with nothing in the place of these parts of it."""
    inside = set(map(id, parts))
    return jax.tree.map(
        lambda node: EmptyState() if id(node) in inside else node,
        state,
        is_leaf=lambda node: id(node) in inside,
    )


def _held(tx: GradientTransformation, state: State, params: Params) -> list[_Held]:
    """The slots of a state."""
    found: list[_Held] = []

    def like_params(place: Place, tree: Any) -> None:
        rule = _MATCHED if place.slot is None else SHAPE_RULES[Slot]
        exact = place.slot is not None and place.slot.exact
        found.append(_Held(place.name, rule, _entries(params, tree), exact))

    def other(name: str, kind: Kind | None, tree: Any) -> None:
        rule = _OTHER if kind is None else SHAPE_RULES.get(type(kind), type(kind).__name__)
        formed = isinstance(kind, Reduced | History)
        found.append(_Held(name, rule, _formed(params, tree) if formed else _loose(tree)))

    try:
        map_slots(tx, like_params, state, other)
    except ValueError:  # a foreign init that takes no placeholder
        return [_Held("state", _UNKNOWN, _loose(state))]
    return found


def _entries(params: Params, tree: Any) -> list[_Entry]:
    """What a tree like the parameters holds for each of them."""
    if not jax.tree.leaves(tree):
        return []
    treedef: Any = jax.tree.structure(params, is_leaf=_is_none)
    pairs = zip(leaves_with_paths(params), treedef.flatten_up_to(tree), strict=True)
    return [_Entry(path, leaf, stored) for (path, leaf), stored in pairs if jax.tree.leaves(stored)]


def _formed(params: Params, tree: Any) -> list[_Entry]:
    """The arrays of a tree that holds some for each parameter, of other shapes."""
    return [
        _Entry("", None, x, param)
        for _, param, stored in (entry[:3] for entry in _entries(params, tree))
        for x in jax.tree.leaves(stored)
    ]


def _loose(tree: Any) -> list[_Entry]:
    return [_Entry("", None, leaf) for leaf in jax.tree.leaves(tree)]


def _by_dtype(stage: int, held: _Held, sharded: bool) -> Iterator[DescribedSlot]:
    """A record of a slot for each way in which its arrays are stored."""
    ways: dict[str, list[_Entry]] = {}
    for entry in held.entries:
        ways.setdefault(_dtype_of(entry.stored), []).append(entry)
    for dtype, entries in ways.items():
        yield DescribedSlot(
            stage=stage,
            name=held.name,
            shape_rule=held.shape_rule,
            dtype=dtype,
            bytes=sum(bytes_of(entry.stored) for entry in entries),
            device_bytes=sum(bytes_on_a_device(*e[1:]) for e in entries) if sharded else None,
            paths=tuple(entry.path for entry in entries if entry.param is not None),
        )


def _dtype_of(stored: Any) -> str:
    flat, _ = jax.tree_util.tree_flatten_with_path(stored)
    names = [(leaf.dtype.name, jax.tree_util.keystr(path, simple=True)) for path, leaf in flat]
    return " + ".join(f"{dtype} {field}".rstrip() for dtype, field in names)


def _placed(params: Params, shardings: Any) -> Params:
    """The parameters' shapes and dtypes, with their shardings."""
    treedef: Any = jax.tree.structure(params, is_leaf=_is_none)
    paths = [path for path, _ in leaves_with_paths(params)]
    leaves = jax.tree.leaves(params, is_leaf=_is_none)
    shapes = jax.eval_shape(lambda x: x, [x if is_optimised(x) else None for x in leaves])
    try:
        spread = jax.tree.broadcast(shardings, params, is_leaf=_is_none)
    except ValueError as error:
        raise ValueError(
            f"shardings must have the structure of the parameters, or of a prefix of it: {error}"
        ) from error
    rows = zip(paths, leaves, shapes, jax.tree.leaves(spread, is_leaf=_is_none), strict=True)
    return jax.tree.unflatten(
        treedef,
        [
            leaf if shape is None else _sharded(path, shape, sharding)
            for path, leaf, shape, sharding in rows
        ],
    )


def _sharded(path: str, leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    if sharding is not None and not isinstance(sharding, jax.sharding.Sharding):
        raise TypeError(f"the sharding of {path!r} must be a Sharding or None, got {sharding!r}")
    try:
        placed: jax.ShapeDtypeStruct = leaf.update(sharding=sharding)
        shards_of(placed)
    except (ValueError, IndexError) as error:  # the latter in JAX 0.8
        raise ValueError(f"the sharding of {path!r} does not fit its shape: {error}") from error
    return placed


def _saved(stored: Any, bits: int) -> int:
    """Bytes that `quantize_state` would save for an array."""
    if getattr(stored, "dtype", None) != jnp.float32 or stored.size < _QUANTIZED_MIN_SIZE:
        return 0
    return bytes_of(stored) - PowerFormat(bits).stored_bytes(stored.shape)


def _is_none(x: Any) -> bool:
    return x is None


def _readable(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    power = min((len(str(size)) - 1) // 3, 6)
    return f"{size / 1000**power:.1f} {' kMGTPE'[power]}B"


def _wrapped(text: str, depth: int, room: int) -> list[str]:
    """A stage's text, indented by its depth, in lines of at most this length."""
    indent = "  " * depth
    return textwrap.wrap(
        text,
        room,
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
