"""The contract: a transformation is a value and a pair of pure functions, `init` and `update`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import jax

from gradtx.core.apply import T, apply_updates
from gradtx.core.leaf import (
    is_optimised,
    match,
    narrow,
    optimised_only,
    path_of,
    widen,
    with_others_of,
    written_after,
)
from gradtx.core.slot import Counter, Kind, Nested, Params, Slot, State, Updates, is_state, kinds
from gradtx.core.value import Value, show, static


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


def init_empty_state(params: Params) -> EmptyState:
    """The `init` of a transformation that remembers nothing.

    >>> gradtx.init_empty_state(jnp.zeros(3))
    EmptyState()
    """
    del params
    return EmptyState()


class TransformInitFn(Protocol):
    """The type of `init`: from parameters to the state before the first step."""

    def __call__(self, params: Params) -> State: ...


class TransformUpdateFn(Protocol):
    """The type of an `update` without extra arguments."""

    def __call__(
        self, updates: Updates, state: State, params: Params | None = None
    ) -> tuple[Updates, State]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """The type of an `update` that takes extra arguments, as all of gradtx's do."""

    def __call__(
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]: ...


@runtime_checkable
class TransformationPair(Protocol):
    """Anything with `init` and `update` in Optax's protocol: gradtx's, Optax's or one's own."""

    init: Callable[[Params], State]
    update: Callable[..., tuple[Updates, State]]


class GradientTransformation(Value):
    """A pair of pure functions over pytrees, and the data that says which.

    A stage is a subclass: it declares its hyperparameters as fields and writes `init` and
    `transform`. Callers use `init`, then `update` or `step`:

        state = tx.init(params)
        updates, state = tx.update(grads, state, params)      # Optax's protocol
        params, state = tx.step(grads, state, params)         # the same, applied

    `GradientTransformation(init, update)` builds one from two functions, as in Optax.

    >>> init, update = gradtx.sgd(0.1)
    >>> params = jnp.asarray([1.0, 2.0])
    >>> updates, state = update(jnp.asarray([1.0, 1.0]), init(params), params)
    >>> print(gradtx.apply_updates(params, updates))
    [0.9 1.9]
    """

    # What a stage cannot do without: "params", or extra arguments by name, such as "value".
    requires: ClassVar[tuple[str, ...]] = ()

    # Whether a stage puts its updates into a slot and, in another way, into those it returns. Its
    # chain then forms them twice, if it can: XLA does not repeat a root, but stores the result.
    uses_twice: ClassVar[bool] = False

    # Whether `transform` may be repeated for that: products, and no array of the state.
    is_cheap: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return object.__new__(_Pair if cls is GradientTransformation else cls)  # type: ignore

    def init(self, params: Params) -> State:
        """The state before the first step, for parameters of these shapes and dtypes.

        Works on concrete arrays, under `jit` and `eval_shape`; never aliases `params`.
        """
        raise NotImplementedError  # abstract

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        """What a stage does, on updates that are already checked and in float32 or wider.

        Combinators call this, so that nothing is rounded between stages; users call `update`.
        """
        if type(self).update is GradientTransformation.update:
            raise TypeError(f"{type(self).__name__} defines neither transform nor update")
        return self.update(updates, state, params, **extra_args)

    def transform_again(
        self,
        updates: Updates,
        state: State,
        new_state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> Updates | None:
        """The updates that `transform` returned, formed again from the state that it returned.

        `None` where that is not possible, or not cheap. A subclass that overrides `transform`
        alone is not asked.
        """
        if not self.is_cheap:
            return None
        return self.transform(updates, state, params, **extra_args)[0]

    def transform_twice(
        self,
        updates: Updates,
        again: Updates,
        state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        """`transform` for a stage that `uses_twice` its updates, which are given twice."""
        raise NotImplementedError  # abstract

    def judge(
        self,
        question: Callable[[Updates], Any],
        updates: Updates,
        state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> Any:
        """`question` of the updates that `transform` would return, which are not kept.

        Combinators that run their inner transformation at some steps only ask inside: what a
        conditional returns is stored.
        """
        return question(self.transform(updates, state, params, **extra_args)[0])

    def update(
        self, updates: Updates, state: State, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, State]:
        """Transforms gradients into updates to be added to the parameters.

        Args:
          updates: tree of gradients; `None`, integer, boolean, key and callable leaves pass.
          state: from `init` or the last `update`.
          params: the current parameters; some stages require them.
          **extra_args: passed on to every stage.

        Returns:
          The updates, in the dtype of `params` if given and else of the gradients; and the
          new state, of the old one's structure, shapes and dtypes.

        Raises:
          TypeError: `updates` and `state` are swapped.
            An extra argument that a stage requires is missing; the message names both.
          ValueError: structures or shapes differ; the message names the leaf's path. A stage
            requires `params` and they are missing; the message names it.
        """
        widened = self._checked(updates, state, params, extra_args)
        new_updates, new_state = self.transform(widened, state, params, **extra_args)
        return narrow(new_updates, like=updates if params is None else params), new_state

    def _checked(
        self, updates: Updates, state: State, params: Params | None, extra_args: Mapping[str, Any]
    ) -> Updates:
        """The updates in float32 or wider, after the checks that `update` and `step` make."""
        for name, stage in self._required.items():
            if name == "params":
                if params is None:
                    raise ValueError(f"{stage} needs params: update(updates, state, params)")
            elif extra_args.get(name) is None:
                raise TypeError(
                    f"{stage} needs the extra argument {name!r}: "
                    f"update(updates, state, params, {name}=...)"
                )
        if is_state(updates) and not is_state(state):
            raise TypeError(
                "update(updates, state, params) was given a state as updates; "
                "are updates and state swapped?"
            )
        if params is not None:
            _check_gradients(updates, state, params)
        return widen(updates)

    def step(self, updates: Updates, state: State, params: T, **extra_args: Any) -> tuple[T, State]:
        """`update`, then `apply_updates`: returns the new parameters and the new state.

        Under `jit` with parameters and state donated, both are updated in place. JAX pairs
        donated arguments with results in order, so the jitted function is to take them in
        the order in which it returns them:

            @partial(jax.jit, donate_argnums=(0, 1))
            def train_step(params, state, batch):
                return tx.step(jax.grad(loss)(params, batch), state, params)

        >>> tx = gradtx.sgd(0.1)
        >>> params = jnp.asarray([1.0, 2.0])
        >>> params, state = tx.step(jnp.asarray([1.0, 1.0]), tx.init(params), params)
        >>> print(params)
        [0.9 1.9]
        """
        new_updates, state = self.update(updates, state, params, **extra_args)
        params = apply_updates(params, new_updates)
        return params, late_slots_after(params, state)

    @property
    def required_extra_args(self) -> Mapping[str, str]:
        """The extra arguments that `update` needs, and the stage that needs each.

        >>> dict(gradtx.chain(gradtx.clip(1.0), gradtx.polyak_sgd()).required_extra_args)
        {'value': 'scale_by_polyak'}
        """
        return {name: stage for name, stage in self._required.items() if name != "params"}

    @functools.cached_property
    def _required(self) -> Mapping[str, str]:
        """What `update` cannot do without, and the stage that needs each."""
        required = dict.fromkeys(self.requires, type(self).__name__)
        for inner in self._inner_transformations():
            required |= inner._required
        return required

    def _inner_transformations(self) -> Iterable[GradientTransformation]:
        fields = [getattr(self, name) for name in (*self._children, *self._statics)]
        nodes = jax.tree.leaves(fields, is_leaf=lambda x: isinstance(x, GradientTransformation))
        return [node for node in nodes if isinstance(node, GradientTransformation)]

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        """The transformations directly inside, by name, each with its part of the state.

        >>> tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1))
        >>> list(tx.inner_states(tx.init(jnp.zeros(2))))
        ['0', '1']
        """
        inner = {
            name: getattr(self, name)
            for name in self._children
            if isinstance(getattr(self, name), GradientTransformation)
        }
        nested = [name for name, kind in _kinds_of(state).items() if isinstance(kind, Nested)]
        nested = nested[:1] if len(nested) < 2 else [n for n in nested if n.startswith("inner")]
        if len(inner) != 1 or len(nested) != 1:
            return {}
        (name, tx), (field,) = *inner.items(), nested
        return {name: (tx, getattr(state, field))}

    def inner_names(self) -> Mapping[tuple[Any, ...], str]:
        """Names in `inner_states` that are not where the transformation stands in the fields.

        From the field, and the index or key in it, to the name.
        """
        return {}

    def inner_params(self, name: str, params: Params) -> Params:
        """The part of the parameters that the inner transformation of this name sees."""
        del name
        return params

    def assignment(self, params: Params) -> Mapping[str, Any]:
        """Labels of optimised leaves by path, as `"encoder/w"`, where this stage gives them any.

        >>> tx = gradtx.freeze(gradtx.adam(0.1), "bias")
        >>> tx.assignment({"bias": jnp.zeros(2), "kernel": jnp.zeros((2, 2))})
        {'bias': 'frozen'}
        """
        del params
        return {}

    def current_hyperparams(self, state: State) -> Mapping[str, Any]:
        """The numbers of this transformation itself, as the next `update` will use them.

        Schedules are evaluated at the first step count in the state.
        """
        found = {}
        for name in self._children:
            value = getattr(self, name)
            if callable(value) and not isinstance(value, GradientTransformation):
                count = _first_count(state)
                if count is not None:
                    found[name] = value(count)
            elif isinstance(value, int | float) or hasattr(value, "dtype"):
                found[name] = value
        return found

    def stored_hyperparams(self, state: State) -> Mapping[str, tuple[State, str]]:
        """Those of `current_hyperparams` that are in the state, so that they can be set.

        From the name to the part of the state that has them as `hyperparams`, and the name there.
        """
        del state
        return {}

    def lookahead_point(self, state: State, params: Params) -> Params:
        """Where the next gradient is to be taken: `params`, unless the method looks ahead.

        >>> tx = gradtx.nesterov_momentum(0.1, 0.9, lookahead=True)
        >>> params = jnp.asarray([1.0])
        >>> state = tx.init(params)
        >>> grads = jax.grad(lambda x: jnp.sum(x**2))(tx.lookahead_point(state, params))
        """
        del state
        return params

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        yield self.init
        yield self.update


GradientTransformationExtraArgs = GradientTransformation


class _Pair(GradientTransformation):
    """A transformation made of two functions, which see low-precision leaves as float32.

    Leaves that are not optimised are hidden from the functions (`None` in their place).
    """

    init_fn: Callable[[Params], State] = static()
    update_fn: Callable[..., tuple[Updates, State]] = static()

    def __init__(
        self,
        init: Callable[[Params], State],
        update: Callable[..., tuple[Updates, State]],
    ) -> None:
        for name, function in (("init", init), ("update", update)):
            if not callable(function):
                raise TypeError(f"{name} must be a function, got {function!r}")
        object.__setattr__(self, "init_fn", init)
        object.__setattr__(self, "update_fn", update)

    def init(self, params: Params) -> State:
        return self.init_fn(optimised_only(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        accepted = _accepted_keywords(self.update_fn)
        if accepted is not None:
            extra_args = {k: v for k, v in extra_args.items() if k in accepted}
        new, state = self.update_fn(
            optimised_only(updates), state, optimised_only(params), **extra_args
        )
        return with_others_of(updates, new), state

    def stored_hyperparams(self, state: State) -> Mapping[str, tuple[State, str]]:
        return {
            place + name: (part, name)
            for place, part in _parts_with_hyperparams(state)
            for name in part.hyperparams
        }

    def current_hyperparams(self, state: State) -> Mapping[str, Any]:
        stored = self.stored_hyperparams(state).items()
        return {full: part.hyperparams[name] for full, (part, name) in stored}

    @functools.cached_property
    def _required(self) -> Mapping[str, str]:
        parameters = inspect.signature(self.update_fn).parameters.values()
        name = getattr(self.update_fn, "__qualname__", repr(self.update_fn)).split(".")[0]
        return {
            p.name: name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        }

    def __repr__(self) -> str:
        return f"GradientTransformation({show(self.init_fn)}, {show(self.update_fn)})"


def _parts_with_hyperparams(state: State, place: str = "") -> Iterator[tuple[str, Any]]:
    """What `optax.inject_hyperparams` has put into a foreign state, and where."""
    if isinstance(state, tuple) and isinstance(getattr(state, "hyperparams", None), dict):
        yield place, state
    one_level, _ = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda x: x is not state)
    for path, part in one_level:
        if path:
            key = jax.tree_util.keystr(path, simple=True, separator="/")
            yield from _parts_with_hyperparams(part, f"{place}{key}/")


def _kinds_of(state: State) -> dict[str, Kind]:
    """The kind of each field of a typed state; none for other things."""
    state_type: Any = type(state)
    return kinds(state_type) if is_state(state) and hasattr(state, "_fields") else {}


def late_slots_after(params: Params, state: State) -> State:
    """The state, its slots that are read late written after the parameters."""
    if type(state) is tuple:
        return tuple(late_slots_after(params, inner) for inner in state)
    late = {
        name: _tree_written_after(getattr(state, name), params)
        for name, kind in _kinds_of(state).items()
        if isinstance(kind, Slot) and kind.read_late
    }
    return state._replace(**late) if late else state


def _tree_written_after(slot: Updates, params: Params) -> Updates:
    leaves, treedef = jax.tree.flatten(slot, is_leaf=lambda x: x is None)
    readers = match(slot, params, "the state", "params")
    written = [
        leaf if leaf is None else written_after(leaf, reader)
        for leaf, reader in zip(leaves, readers, strict=True)
    ]
    return jax.tree.unflatten(treedef, written)


def _first_count(state: State) -> Any:
    """The first step count in a state, or `None`."""
    if isinstance(state, dict):
        state = tuple(state.values())
    if not isinstance(state, tuple):
        return None
    own = _kinds_of(state)
    counts = [getattr(state, name) for name, kind in own.items() if isinstance(kind, Counter)]
    inside = (count for inner in state for count in [_first_count(inner)] if count is not None)
    return counts[0] if counts else next(inside, None)


def _check_gradients(updates: Updates, state: State, params: Params) -> None:
    swapped: tuple[Any, ...] = tuple(map(jax.tree.structure, (updates, state, params)))
    if swapped[0] != swapped[2] and swapped[1] == swapped[2]:
        raise TypeError("update(updates, state, params): are updates and state swapped?")
    leaves = jax.tree.leaves(updates, is_leaf=lambda x: x is None)
    for i, param in enumerate(match(updates, params, "updates", "params")):
        dtype = getattr(leaves[i], "dtype", None)
        if is_optimised(param) and dtype is not None and not is_optimised(leaves[i]):
            raise ValueError(
                f"updates{path_of(updates, i)} has dtype {dtype}, but its parameter is "
                "optimised: a gradient must be inexact, or None"
            )


def _accepted_keywords(function: Callable[..., Any]) -> set[str] | None:
    """Names of the keywords that `function` takes after its three arguments; `None` for any."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters[3:]}


def as_transformation(tx: Any) -> GradientTransformation:
    """`tx` itself, or a gradtx transformation around a foreign `(init, update)` pair.

    Raises:
      TypeError: `tx` is neither.
    """
    if isinstance(tx, GradientTransformation):
        return tx
    if isinstance(tx, TransformationPair) and not isinstance(tx, type):
        return GradientTransformation(tx.init, tx.update)
    raise TypeError(f"expected a gradient transformation, got {tx!r} ({type(tx).__name__})")


def with_extra_args_support(tx: Any) -> GradientTransformation:
    """Makes any transformation accept extra keyword arguments; gradtx's already do.

    Args:
      tx: a gradtx transformation, or any `(init, update)` pair such as Optax's.

    Raises:
      TypeError: `tx` has no `init` and `update`.

    >>> gradtx.with_extra_args_support(gradtx.scale(2.0))
    scale(step_size=2.0)
    """
    return as_transformation(tx)
