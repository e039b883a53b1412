"""State in 8 or 4 bits, for any transformation.

    s_t = decode(z_t)
    (x_{t+1}, s_{t+1}) = step(g_t, s_t, x_t)        in float32, as without this wrapper
    z_{t+1} = encode(s_{t+1})

Block-wise quantisation is from Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit optimizers via
block-wise quantization", 2021, arXiv:2110.02861; a second moment that never becomes zero from
Li, Chen, Zhu, "Memory efficient optimizers with 4-bit states", 2023, arXiv:2309.01507.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.hashing import seed_of
from gradtx.core.hyper import check_steps
from gradtx.core.map_params import Place, check_slot_names, map_slots
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.partition import check_rule, check_rules_fit, first_fit
from gradtx.core.slot import Blocks, Count, Inner, Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import show, static
from gradtx.memory.batch import Batch, put_into
from gradtx.memory.encode import decode_leaf, encode_leaf
from gradtx.memory.formats import FORMATS, Format, PowerFormat
from gradtx.memory.halves import only_full, with_halves
from gradtx.memory.layout import Layout, layout_like, layout_of
from gradtx.memory.leaves import (
    KnownLeaf,
    check_on_device,
    holds_arrays,
    is_in_place,
    known_leaves,
    with_blocks,
)

# From what is known of a slot to its format: signed, never negative, unknown.
DEFAULTS = {
    "8bit": ("signed8", "unsigned8", "wide8"),
    "4bit": ("signed4", "unsigned4", "wide4"),
}
ROUNDINGS = ("nearest", "stochastic")


class QuantizeState(NamedTuple):
    """The number of steps, and the inner state with blocks of codes in the place of arrays.

    Attributes:
      count: steps made; stochastic rounding depends on it.
      inner_state: state of the inner transformation. In the place of an array that is stored
        in blocks stands `Blocks(codes, scales)`; one in bfloat16 is an array of that dtype.
    """

    count: Count  # type: ignore[assignment]
    inner_state: Inner


class quantize_state(GradientTransformation):
    r"""Stores the state of a transformation in 8 bits, or as you say; computes in float32.

    `step` decodes the state, makes the step of `inner` in float32, and encodes the new state, leaf
    by leaf within the kernels that XLA forms: no float32 copy of the state is stored.

    Every tree of the state that is like the parameters is stored in a format that follows from
    what `inner` says of it. A slot that is never negative stays positive where it was. In the
    state of a foreign transformation nothing is known of a slot, unless it has the name and fields
    of gradtx's, as Optax's do: it gets a signed format with very small steps near zero, and what
    was not zero does not become zero.

    As they are stay: leaves of fewer than `min_size` entries, complex and float64 leaves, slots
    that are narrower than float32 already, copies and averages of the parameters and accumulated
    gradients unless they are named, and whatever is not like the parameters, such as Adafactor's
    rows and columns. An inf is stored as the largest number; a NaN makes its whole block NaN.

    Formats by name: `"int8"` (linear), `"signed8"` (squares), `"unsigned8"` and `"wide8"`
    (fourth powers), `"signed4"`, `"unsigned4"`, `"wide4"` (two codes to a byte),
    `"float8_e4m3"`, `"float8_e5m2"`, `"bfloat16"`; and `"8bit"` or `"4bit"`, which choose by
    slot. The errors of each: docs/memory.md.

    Source: Dettmers et al., "8-bit optimizers via block-wise quantization", 2021,
    arXiv:2110.02861; with other formats.

    Args:
      inner: the transformation whose state is stored.
      formats: a name, a `PowerFormat` or `FloatFormat`, or `None` for float32 as it is: for
        all slots; or a dict from the name of a slot, such as `"mu"`, to one of these. Slots
        that it does not name are stored in 8 bits.
      paths: pairs of a rule and what `formats` can be, for the leaves that the rule fits: a
        regular expression or a predicate on path and leaf, as for `groups`; the first that
        fits wins.
      block: entries that share a scale, a power of two of at least 16; `None` for 256 in 8
        bits and 128 in 4.
      min_size: leaves with fewer entries are stored as they are.
      rounding: `"nearest"`, or `"stochastic"`: right on average, by a hash of the step, the
        slot, the leaf's path and the entry's index, so that it does not depend on sharding;
        `None` for nearest in floats and signed 8 bits, and stochastic in formats of 4 bits or
        without negative numbers: to nearest, a second moment stands still. On average right is
        the value; without negative numbers its fourth root, see `PowerFormat`.

    Raises:
      TypeError, ValueError: an argument is not of its type, or out of its range; there is no
        format of a name. In `init`: a name is not that of a slot, or a rule fits no leaf; the
        message lists those there are. A format without negative numbers is asked for a slot
        that may be negative; stochastic rounding for a `FloatFormat`. A slot that is to be
        stored is in blocks already, or in the host's memory: `offload_state` stands outside.

    >>> tx = gradtx.quantize_state(gradtx.adamw(1e-3))
    >>> params = {"w": jnp.ones((64, 64)), "b": jnp.ones(64)}
    >>> state = tx.init(params)
    >>> gradtx.tree.get(state, "mu")["w"].codes.dtype, gradtx.tree.get(state, "mu")["b"].dtype
    (dtype('int8'), dtype('float32'))
    >>> params, state = jax.jit(tx.step)(params, state, params)
    >>> print(f"{tx.decoded(state, params)[0].mu['w'][0, 0]:.4f}")
    0.1000
    >>> tx = gradtx.quantize_state(gradtx.adamw(1e-3), min_size=1)
    >>> tx = gradtx.quantize_state(gradtx.adam(1e-3), "4bit", min_size=1, rounding="stochastic")
    >>> tx = gradtx.quantize_state(
    ...     gradtx.adam(1e-3), {"mu": "float8_e4m3"}, paths=[("b", "bfloat16")], min_size=1
    ... )
    """

    inner: GradientTransformation
    formats: Any = static(default="8bit")
    paths: tuple[tuple[Any, Any], ...] = static(default=(), kw_only=True)
    block: int | None = static(default=None, kw_only=True)
    min_size: int = static(default=4096, kw_only=True)
    rounding: str | None = static(default=None, kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        for pair in self.paths:
            if not (isinstance(pair, tuple) and len(pair) == 2):
                raise TypeError(f"paths takes pairs of a rule and a format, got {pair!r}")
            check_rule(pair[0])
        object.__setattr__(self, "paths", tuple(self.paths))
        for i, choice in enumerate(self._choices()):
            name = f"paths[{i}]" if i < len(self.paths) else "formats"
            if isinstance(choice, Mapping):
                for slot, format in choice.items():
                    _check_format(f"{name}[{slot!r}]", format)
            else:
                _check_format(name, choice)
        if self.block is not None:
            check_steps("block", self.block, 16)
            if self.block & (self.block - 1):
                raise ValueError(f"block must be a power of two, got {self.block}")
        check_steps("min_size", self.min_size)
        if self.rounding not in (None, *ROUNDINGS):
            raise ValueError(f"rounding must be one of {ROUNDINGS} or None, got {self.rounding!r}")

    def init(self, params: Params) -> QuantizeState:
        check_rules_fit([rule for rule, _ in self.paths], params)
        leaves = known_leaves(params)
        inner_state = self.inner.init(params)
        there: list[str] = []
        map_slots(self.inner, lambda place, tree: there.append(place.name), inner_state)
        for choice in self._choices():
            check_slot_names("formats", choice if isinstance(choice, Mapping) else (), there)
        count = zero_count()

        def layout(place: Place, x: Any, leaf: KnownLeaf, format: Format | None) -> Layout | None:
            if isinstance(x, Blocks):
                raise ValueError(
                    f"the state of {leaf.path!r} is stored in blocks already: quantize_state "
                    "cannot stand around another quantize_state"
                )
            small = x.size < max(self.min_size, 1)
            narrow = x.dtype.itemsize < 4 and format is not None and format.default_block
            if narrow and not small and self._names(place, leaf):
                raise ValueError(
                    f"formats names the slot {place.name!r}, which {leaf.path!r} has in "
                    f"{x.dtype} already; only float32 is stored in blocks"
                )
            if format is None or x.dtype != jnp.float32 or small:
                return None
            check_on_device(x, leaf.path, "quantize_state")
            block = self.block or format.default_block or 1
            blocks = layout_of(leaf.shape, leaf.shards, block, format.bytes_each)
            part = leaf.shape[-1] // leaf.shards[-1] if leaf.shape else 1
            if leaf.explicit and leaf.shards[-1] > 1 and part % blocks.length:
                raise ValueError(
                    f"the last axis of {leaf.path!r} is in shards of {part} on an explicit mesh, "
                    "which blocks of at least 16 do not divide; store it as it is: "
                    f"paths=[({leaf.path!r}, None)]"
                )
            return blocks

        def encode(place: Place, tree: Any) -> Any:
            # Behind a barrier: XLA would compute the codes of constants, slowly, as it compiles.
            tree = jax.tree.map(jax.lax.optimization_barrier, tree)
            laid_out = functools.partial(layout, place)
            return self._encoded(place, tree, leaves, laid_out, count, {})

        return QuantizeState(count, map_slots(self.inner, encode, inner_state))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        _check_state(state)
        leaves = known_leaves(updates if params is None else params)
        inner_state, stored = self._decoded(state.inner_state, leaves, in_halves=True)
        new, inner_state = with_halves(
            lambda inner: self.inner.transform(updates, inner, params, **extra_args), inner_state
        )
        new = only_full(new)
        return new, self._after(inner_state, leaves, stored, state.count, new)

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        updates = self._checked(updates, state, params, extra_args)
        _check_state(state)
        leaves = known_leaves(params)
        inner_state, stored = self._decoded(state.inner_state, leaves, in_halves=True)
        new, inner_state = with_halves(
            lambda inner: self.inner.step(updates, inner, params, **extra_args), inner_state
        )
        new = only_full(new)
        return new, self._after(inner_state, leaves, stored, state.count, new)

    def decoded(self, state: State, params: Params) -> State:
        """The state of the inner transformation, in float32.

        Args:
          state: of `quantize_state`.
          params: the parameters, or their shapes.
        """
        _check_state(state)
        return self._decoded(state.inner_state, known_leaves(params))[0]

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(self.decoded(state, params), params)

    def _decoded(
        self, inner_state: State, leaves: Any, *, in_halves: bool = False
    ) -> tuple[State, list[Any]]:
        """The inner state in float32, and the trees as they were stored, in order.

        Args:
          inner_state: as it is stored.
          leaves: a `KnownLeaf` for each parameter.
          in_halves: puts `Halved` in the place of arrays whose codes share bytes, in a step that
            is compiled.
        """
        stored: list[Any] = []

        def decode(place: Place, tree: Any) -> Any:
            tree = with_blocks(tree, leaves)
            stored.append(tree)
            if not holds_arrays(tree, leaves):
                return tree
            batch = Batch(decode_leaf)

            def each(x: Any, leaf: KnownLeaf) -> Any:
                format = self._format(place, leaf) if jax.tree.leaves(x) else None
                if format is None or not _is_encoded(x, format):
                    return x
                if not format.fits(x, leaf.shape):
                    raise ValueError(
                        f"what is stored for {place.name!r} of {leaf.path!r} is not of the shape "
                        f"that {show(format)} makes of {leaf.shape}; was the state made by init "
                        "with these parameters and formats?"
                    )
                traced = isinstance(jax.tree.leaves(x)[0], jax.core.Tracer)
                return batch.add((format, leaf.shape, in_halves and traced), x)

            marked = jax.tree.map(each, tree, leaves, is_leaf=is_in_place)
            return put_into(marked, batch.results())

        return map_slots(self.inner, decode, inner_state), stored

    def _after(
        self, inner_state: State, leaves: Any, stored: list[Any], count: jax.Array, new: Any
    ) -> QuantizeState:
        """The state after a step, from what the inner state was stored as before.

        XLA overwrites old codes in place where it sees that all that reads them comes before.
        `new`, the parameters or updates, reads them all; then the slots are written in turn,
        the last one first, as it may be formed from those in front of it.
        """
        trees: list[tuple[Place, Any]] = []
        map_slots(self.inner, lambda place, tree: trees.append((place, tree)), inner_state)
        paths = [leaf.path for leaf in jax.tree.leaves(leaves)]
        news = jax.tree.leaves(new, is_leaf=lambda x: x is None)
        written: dict[str, Any] = dict(zip(paths, news, strict=True))
        encoded = []
        for (place, tree), old in reversed([*zip(trees, stored, strict=True)]):
            olds = iter(jax.tree.leaves(old, is_leaf=lambda x: isinstance(x, Blocks)))

            def layout(
                x: Any, leaf: KnownLeaf, format: Format | None, olds: Any = olds
            ) -> Layout | None:
                old = next(olds)
                if isinstance(old, Blocks):
                    return layout_like(leaf.shape, old)
                return Layout(0, 1, 1) if _is_encoded(old, format) else None

            encoded.append(self._encoded(place, tree, leaves, layout, count, written))
        parts = reversed(encoded)
        inner_state = map_slots(self.inner, lambda place, tree: next(parts), inner_state)
        inner_state = only_full(inner_state)
        return QuantizeState(safe_increment(count), inner_state)

    def _encoded(
        self,
        place: Place,
        tree: Any,
        leaves: Any,
        layout: Callable[[Any, KnownLeaf, Format | None], Layout | None],
        count: jax.Array,
        written: dict[str, Any],
    ) -> Any:
        """A tree of the state as it is stored.

        Args:
          place: where it stands.
          tree: in float32, with `Halved` in the place of arrays.
          leaves: a `KnownLeaf` for each parameter.
          layout: says how blocks lie in an array; `None` where it stays as it is.
          count: steps made.
          written: by path, what was last written of a leaf; what is stored is added.
        """
        if not holds_arrays(tree, leaves):
            return tree
        batch = Batch(encode_leaf)
        keep_nonzero = place.slot is None or place.slot.nonnegative
        paths = []

        def each(x: Any, leaf: KnownLeaf) -> Any:
            if not jax.tree.leaves(x):
                return x
            format = self._format(place, leaf)
            blocks = layout(x, leaf, format)
            if format is None or blocks is None:
                return x
            seed = None
            if (self.rounding or format.default_rounding) == "stochastic":
                seed = seed_of(jax.tree_util.keystr(place.path) + "/" + leaf.path, count)
            before = written.get(leaf.path)
            paths.append(leaf.path)
            return batch.add((format, blocks, keep_nonzero), x, seed, before)

        marked = jax.tree.map(each, tree, leaves, is_leaf=is_in_place)
        results = batch.results()
        for path, result in zip(paths, results, strict=True):
            written[path] = result
        return put_into(marked, results)

    def _format(self, place: Place, leaf: KnownLeaf) -> Format | None:
        """How the array of this slot and leaf is stored; `None` for as it is.

        Raises:
          ValueError: the format cannot hold what the slot may hold.
        """
        choice = self._choice(leaf)
        if isinstance(choice, Mapping):
            choice = choice.get(place.name, "8bit")
        exact = place.slot is not None and place.slot.exact and not self._names(place, leaf)
        if choice is None or exact:
            return None
        if choice in DEFAULTS:
            signed, nonnegative, unknown = DEFAULTS[choice]
            if place.slot is None:
                return FORMATS[unknown]
            return FORMATS[nonnegative if place.slot.nonnegative else signed]
        format: Format = FORMATS[choice] if isinstance(choice, str) else choice
        if not format.signed and place.slot is not None and not place.slot.nonnegative:
            raise ValueError(
                f"{show(choice)} holds no negative numbers, but the slot {place.name!r} may"
            )
        if self.rounding == "stochastic" and not isinstance(format, PowerFormat):
            raise ValueError(
                f"rounding='stochastic' is defined for a PowerFormat, and {place.name!r} of "
                f"{leaf.path!r} is stored as {show(choice)}"
            )
        return format

    def _choice(self, leaf: KnownLeaf) -> Any:
        """What is said of a leaf: a format, or a dict of them."""
        return self._choices()[first_fit([rule for rule, _ in self.paths], leaf.path, leaf)]

    def _names(self, place: Place, leaf: KnownLeaf) -> bool:
        choice = self._choice(leaf)
        return isinstance(choice, Mapping) and place.name in choice

    def _choices(self) -> list[Any]:
        """The formats of each rule of `paths`, and those of all other leaves."""
        return [*(choice for _, choice in self.paths), self.formats]


def _check_state(state: State) -> None:
    if not hasattr(state, "inner_state"):
        raise TypeError(
            f"quantize_state needs the state that its init returns, got {type(state).__name__}"
        )


def _is_encoded(x: Any, format: Format | None) -> bool:
    bare = format is not None and not format.default_block
    return isinstance(x, Blocks) or (bare and x.dtype == jnp.bfloat16)


def _check_format(name: str, format: Any) -> None:
    """Raises unless `format` is a format, or says one."""
    if isinstance(format, str):
        if format not in FORMATS and format not in DEFAULTS:
            known = [*DEFAULTS, *FORMATS]
            raise ValueError(f"{name} must be one of {known}, a format or None; got {format!r}")
    elif format is not None and not isinstance(format, Format):
        raise TypeError(f"{name} must be a format, the name of one, or None; got {format!r}")
