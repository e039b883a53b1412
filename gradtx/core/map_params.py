"""Mapping over what a state keeps like the parameters."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from gradtx.core.lookup import children
from gradtx.core.slot import Blocks, Kind, Nested, Params, Slot, State, is_known, kinds, known_as


@jax.tree_util.register_pytree_node_class
class Placeholder:
    """Stands for the parameters where a foreign `init` is asked where it keeps things like them.

    A node without children: what `jax.tree.map` makes of it is a placeholder again.
    """

    def tree_flatten(self) -> tuple[tuple[()], None]:
        return (), None

    @classmethod
    def tree_unflatten(cls, aux: None, below: tuple[()]) -> Placeholder:
        return cls()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in a state a tree like the parameters stands.

    Attributes:
      name: of the field or key that holds it; in a foreign state the nearest one, and `""`
        where there is none.
      slot: what the state says of it; `None` in a foreign state, which says nothing.
      path: the steps that lead to it from the root of the state.
    """

    name: str
    slot: Slot | None
    path: tuple[Any, ...] = ()


def map_slots(
    initable: Callable[[Params], State] | Any,
    f: Callable[[Place, Any], Any],
    state: State,
    /,
    others: Callable[[str, Kind | None, Any], Any] | None = None,
) -> State:
    """Puts `f(place, tree)` in the place of every tree of a state that is like the parameters.

    Which these are is read from the slots that gradtx's states declare; in other states
    (Optax's) a tree is like the parameters where `init` puts a placeholder that stands for them.

    Args:
      initable: the transformation that made the state, or its `init`.
      f: called with each such tree, which may hold nothing (`None`, `MaskedNode`) in the place
        of a parameter.
      state: the state. What stands in the place of an array may be a tree of its own.
      others: called with whatever else is in the state: the name of its field, as in a place,
        what the state says of it, and the tree; `None` keeps it.

    Raises:
      ValueError: `state` is not one that `initable` makes, or its `init` cannot be called
        with a placeholder.
    """

    def kept(name: str, kind: Kind | None, tree: Any) -> Any:
        return tree if others is None else others(name, kind, tree)

    def visit(state: Any, path: tuple[Any, ...], name: str, made: Callable[[], Any]) -> Any:
        """`made()` is what `init` makes of a placeholder, in the place of `state`."""
        below, rebuild = children(state)
        declared: dict[str, Kind] = {}
        if is_known(state):
            declared = kinds(known_as(state)) if hasattr(state, "_fields") else {}
        else:
            pattern = made()
            if isinstance(pattern, Placeholder):
                return f(Place(name, None, path), state)
            expected = [key for key, _ in children(pattern)[0]]
            if not expected:
                return kept(name, None, state)
            if expected != [key for key, _ in below]:
                raise ValueError(
                    f"the state is not one that this transformation makes: a "
                    f"{type(state).__name__} stands where it makes a {type(pattern).__name__}"
                )
        new = []
        for i, (key, child) in enumerate(below):
            kind = declared[key.name] if declared else Nested()
            child_name = str(getattr(key, "name", getattr(key, "key", name)))
            if isinstance(kind, Slot):
                new.append(f(Place(child_name, kind, (*path, key)), child))
            elif isinstance(kind, Nested):
                below_made = functools.partial(_child, made, i)
                new.append(visit(child, (*path, key), child_name, below_made))
            else:
                new.append(kept(child_name, kind, child))
        return rebuild(new)

    @functools.cache
    def made() -> Any:
        return _made_of_placeholder(initable)

    return visit(state, (), "", made)


def check_slot_names(argument: str, names: Iterable[Any], there: Sequence[str]) -> None:
    """Raises ValueError unless all these are names of slots, which `map_slots` has found.

    Args:
      argument: what the names come from, for the message.
      names: of slots, as a user gave them.
      there: those of the state.
    """
    for name in names:
        if name not in there:
            near = difflib.get_close_matches(str(name), there, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{argument} names the slot {name!r}, which the state does not have{hint}; "
                f"its slots are {sorted(set(there))}"
            )


def map_params(
    initable: Callable[[Params], State] | Any,
    f: Callable[..., Any],
    state: State,
    /,
    *rest: Any,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> State:
    """Applies a function to every array of a state that is like a parameter.

    Moments and traces are like the parameters; counts, scalars, and what is smaller than its
    parameter (Adafactor's rows and columns) are not. A state may hold gradtx's and Optax's.

    Args:
      initable: the transformation that made the state, or its `init`.
      f: called as `f(array, *leaves)`, with the leaves of `rest` for its parameter. In a state
        that is stored in blocks it is called with the codes and with the scales of each.
      state: the state.
      *rest: trees like the parameters, such as shardings. Where the state holds nothing
        (`None`, `MaskedNode`), `f` is not called.
      transform_non_params: called with every other leaf; `None` keeps them.
      is_leaf: as for `jax.tree.map`, on the trees like the parameters.

    Raises:
      ValueError: `state` is not one that `initable` makes, or its `init` cannot be called
        with a placeholder.

    >>> tx = gradtx.adam(0.1)
    >>> state = tx.init({"w": jnp.zeros(2)})
    >>> specs = {"w": jax.P("x")}
    >>> gradtx.tree_map_params(tx, lambda _, spec: spec, state, specs)[0].mu
    {'w': P('x',)}
    """

    def ends(node: Any) -> bool:
        return is_leaf is not None and is_leaf(node)

    def like_params(place: Place, tree: Any) -> Any:
        def apply(node: Any, *leaves: Any) -> Any:
            if isinstance(node, Blocks) and not ends(node):
                return Blocks(*(f(array, *leaves) for array in node))
            return f(node, *leaves) if ends(node) or jax.tree.leaves(node) else node

        def stops(node: Any) -> bool:
            # What holds nothing ends the descent, so that `rest` may have leaves in its place.
            return ends(node) or isinstance(node, Blocks) or not jax.tree.leaves(node)

        return jax.tree.map(apply, tree, *rest, is_leaf=stops)

    def others(name: str, kind: Kind | None, tree: Any) -> Any:
        del name, kind
        return jax.tree.map(transform_non_params, tree) if transform_non_params else tree

    return map_slots(initable, like_params, state, others)


def _child(made: Callable[[], Any], index: int) -> Any:
    return children(made())[0][index][1]


def _made_of_placeholder(initable: Any) -> Any:
    try:
        return getattr(initable, "init", initable)(Placeholder())
    except Exception as error:
        raise ValueError(
            "the state has parts that do not say what they are, and init cannot be called with "
            f"a placeholder to find out: {error}"
        ) from error
