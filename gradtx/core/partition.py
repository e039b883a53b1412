"""Different transformations for different leaves: by label, or by rules on path and leaf."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradtx.core.leaf import is_optimised
from gradtx.core.select import MaskedNode, MaskedState, is_function, mask_like
from gradtx.core.slot import Inner, Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import show, static

Rule = str | Callable[[str, Any], bool]


class PartitionState(NamedTuple):
    """State of `partition` and `groups`: from label to `MaskedState` on the leaves so labelled."""

    inner_states: Inner


class Partitioned(GradientTransformation):
    """Base: says which transformation has which label, and which leaf has which label."""

    def _members(self) -> dict[Any, GradientTransformation]:
        raise NotImplementedError  # abstract

    def _labels(self, params: Params) -> list[Any]:
        """The label of each leaf, `None` leaves included."""
        raise NotImplementedError  # abstract

    def assignment(self, params: Params) -> dict[str, Any]:
        """From the path of each optimised leaf, as `"encoder/layers/0/w"`, to its label.

        >>> tx = gradtx.groups([("bias", gradtx.sgd(0.1))], default=gradtx.adam(1e-3))
        >>> tx.assignment({"dense": {"bias": jnp.zeros(2), "kernel": jnp.zeros((2, 2))}})
        {'dense/bias': 'bias', 'dense/kernel': 'default'}
        """
        labels = self._labels(params)
        return {
            path: label
            for (path, leaf), label in zip(leaves_with_paths(params), labels, strict=True)
            if is_optimised(leaf)
        }

    def init(self, params: Params) -> PartitionState:
        labels = self._labels(params)
        return PartitionState(
            {
                label: MaskedState(tx.init(_only(params, labels, label)))
                for label, tx in self._members().items()
            }
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        labels = self._labels(updates if params is None else params)
        new, inner_states = {}, {}
        for label, tx in self._members().items():

            def select(tree: Any, label: Any = label) -> Any:
                return _only(tree, labels, label)

            new[label], inner_state = tx.transform(
                select(updates),
                state.inner_states[label].inner_state,
                None if params is None else select(params),
                **self._masked_extra_args(updates, extra_args, select),
            )
            inner_states[label] = MaskedState(inner_state)
        return _merged(updates, labels, new), PartitionState(inner_states)

    def _masked_extra_args(
        self, updates: Updates, extra_args: dict[str, Any], select: Callable[[Any], Any]
    ) -> dict[str, Any]:
        return extra_args

    def inner_states(self, state: State) -> Mapping[str, tuple[GradientTransformation, State]]:
        return {
            str(label): (tx, state.inner_states[label].inner_state)
            for label, tx in self._members().items()
        }

    def inner_params(self, name: str, params: Params) -> Params:
        return _only(params, list(map(str, self._labels(params))), name)

    def lookahead_point(self, state: State, params: Params) -> Params:
        labels = self._labels(params)
        points = {
            label: tx.lookahead_point(
                state.inner_states[label].inner_state, _only(params, labels, label)
            )
            for label, tx in self._members().items()
        }
        return _merged(params, labels, points)


class partition(Partitioned):
    """Applies to each leaf the transformation of its label.

    Each transformation sees, and holds state for, the leaves with its label alone: a norm over
    all leaves inside of it is over those. `multi_transform` is another name for this.

    Args:
      transforms: dict from label to transformation.
      param_labels: tree of labels, of the parameters' structure or a prefix of it; or a
        function from the parameters to such a tree. It is given the parameters where `update`
        gets them, and the updates otherwise. A tree that happens to be callable, as Equinox
        modules are, is a tree.
      mask_compatible_extra_args: masks extra arguments that have the updates' structure too.

    Raises:
      TypeError: `transforms` is not a dict of transformations.
      ValueError: in `init` and `update`: a label has no transformation, or the labels do not
        have the structure of the parameters; the message names leaf and label.

    >>> transforms = {"adam": gradtx.adam(0.1), "sgd": gradtx.sgd(0.1)}
    >>> labelled = gradtx.partition(transforms, {"w": "adam", "b": "sgd"})
    >>> labelled.init({"w": jnp.zeros(2), "b": jnp.zeros(2)}).inner_states["sgd"]
    MaskedState(inner_state=(EmptyState(), EmptyState()))
    >>> def kind(params):
    ...     return jax.tree.map(lambda x: "adam" if getattr(x, "ndim", 0) > 1 else "sgd", params)
    >>> tx = gradtx.partition({"adam": gradtx.adam(0.1), "sgd": gradtx.sgd(0.1)}, kind)
    """

    transforms: Any
    param_labels: Any = static()
    mask_compatible_extra_args: bool = static(default=False, kw_only=True)

    def validate(self) -> None:
        if not isinstance(self.transforms, Mapping):
            raise TypeError(
                f"transforms must be a dict from label to transformation, got {self.transforms!r}"
            )
        transforms = {label: as_transformation(tx) for label, tx in self.transforms.items()}
        object.__setattr__(self, "transforms", transforms)

    def _members(self) -> dict[Any, GradientTransformation]:
        members: dict[Any, GradientTransformation] = self.transforms
        return members

    def _labels(self, params: Params) -> list[Any]:
        tree = self.param_labels(params) if is_function(self.param_labels) else self.param_labels
        found: list[Any] = []
        try:
            # `None` is no leaf to a label tree, so it gets its label afterwards.
            jax.tree.map(lambda label, part: found.extend([label] * _size(part)), tree, params)
        except ValueError as error:
            raise ValueError(
                f"param_labels must have the structure of the parameters, or of a prefix: {error}"
            ) from error
        remaining, labels = iter(found), []
        for path, leaf in leaves_with_paths(params):
            label = None if leaf is None else next(remaining)
            if leaf is not None and label not in self.transforms:
                raise ValueError(
                    f"the leaf {path!r} has the label {label!r}, which has no transformation"
                    + _nearest(label, self.transforms)
                )
            labels.append(label)
        return labels

    def _masked_extra_args(
        self, updates: Updates, extra_args: dict[str, Any], select: Callable[[Any], Any]
    ) -> dict[str, Any]:
        if not self.mask_compatible_extra_args:
            return extra_args
        return mask_like(updates, extra_args, select)


multi_transform = partition


class groups(Partitioned):
    r"""Applies to each leaf the transformation of the first rule that fits it.

    A rule is a regular expression, searched for in the leaf's path, such as
    `"encoder/layers/0/bias"`; or a predicate on the path and the leaf, which looks at shape
    and dtype and not at values. `assignment(params)` tells which leaf falls under which rule,
    and `describe` prints it. State is held as by `partition`; a rule's label is its regular
    expression or the name of its function.

    Args:
      rules: pairs of a rule and a transformation; the first that fits a leaf wins.
      default: the transformation of all other leaves; `set_to_zero()` keeps them still.

    Raises:
      TypeError: a rule is not such a pair.
      ValueError: a regular expression is none; in `init`: a rule fits no leaf, or only leaves
        that an earlier one has taken.

    >>> tx = gradtx.groups(
    ...     [(r"\bb\b", gradtx.sgd(0.1)), (lambda path, leaf: leaf.ndim > 1, gradtx.adamw(0.1))],
    ...     default=gradtx.adam(0.1),
    ... )
    >>> tx.assignment({"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)})
    {'b': '\\bb\\b', 'w': '<lambda>'}
    """

    rules: tuple[Rule, ...] = static()
    transforms: tuple[GradientTransformation, ...]
    default: GradientTransformation

    def __init__(self, rules: Sequence[tuple[Rule, Any]], default: Any) -> None:
        for pair in rules:
            if not (isinstance(pair, tuple) and len(pair) == 2):
                raise TypeError(f"groups takes (rule, transformation) pairs, got {pair!r}")
        object.__setattr__(self, "rules", tuple(rule for rule, _ in rules))
        object.__setattr__(self, "transforms", tuple(tx for _, tx in rules))
        object.__setattr__(self, "default", default)
        self.validate()

    def validate(self) -> None:
        for rule in self.rules:
            check_rule(rule)
        object.__setattr__(self, "transforms", tuple(map(as_transformation, self.transforms)))
        object.__setattr__(self, "default", as_transformation(self.default))

    def _members(self) -> dict[Any, GradientTransformation]:
        return dict(zip(self._names(), (*self.transforms, self.default), strict=True))

    def _names(self) -> list[str]:
        names: list[str] = []
        for rule in (*self.rules, "default"):
            name = rule if isinstance(rule, str) else show(rule).split(".")[-1]
            while name in names:
                name += "'"
            names.append(name)
        return names

    def inner_names(self) -> Mapping[tuple[Any, ...], str]:
        *names, default = self._names()
        named = {("transforms", i): name for i, name in enumerate(names)}
        return {**named, ("default",): default}

    def _labels(self, params: Params) -> list[Any]:
        names = self._names()
        return [
            names[first_fit(self.rules, path, leaf)] for path, leaf in leaves_with_paths(params)
        ]

    def init(self, params: Params) -> PartitionState:
        check_rules_fit(self.rules, params)
        return super().init(params)

    def __repr__(self) -> str:
        pairs = zip(self.rules, self.transforms, strict=True)
        rules = ", ".join(f"({show(rule)}, {tx!r})" for rule, tx in pairs)
        return f"groups([{rules}], default={self.default!r})"


def check_rule(rule: Any) -> None:
    """Raises unless `rule` is a regular expression or a function."""
    if isinstance(rule, str):
        try:
            re.compile(rule)
        except re.error as error:
            raise ValueError(f"the rule {rule!r} is no regular expression: {error}") from None
    elif not callable(rule):
        raise TypeError(
            f"a rule must be a regular expression or a function of path and leaf, got {rule!r}"
        )


def first_fit(rules: Sequence[Rule], path: str, leaf: Any) -> int:
    """The index of the first rule that fits an optimised leaf; their number where none does."""
    for i, rule in enumerate(rules if is_optimised(leaf) else ()):
        if re.search(rule, path) if isinstance(rule, str) else rule(path, leaf):
            return i
    return len(rules)


def check_rules_fit(rules: Sequence[Rule], params: Params) -> None:
    """Raises unless every rule is the first that fits some leaf; trees without leaves pass."""
    leaves = [(path, leaf) for path, leaf in leaves_with_paths(params) if is_optimised(leaf)]
    taken = {first_fit(rules, path, leaf) for path, leaf in leaves}
    for i, rule in enumerate(rules):
        if leaves and i not in taken:
            paths = ", ".join(repr(path) for path, _ in leaves[:8])
            raise ValueError(
                f"the rule {show(rule)} fits no leaf that an earlier one has not taken; "
                f"the paths are {paths}" + (", ..." if len(leaves) > 8 else "")
            )


def leaves_with_paths(tree: Any) -> list[tuple[str, Any]]:
    """Each leaf, `None` included, after its path as `"encoder/layers/0/bias"`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def _only(tree: Any, labels: Sequence[Any], label: Any) -> Any:
    """The tree, with `MaskedNode()` in the place of leaves that have another label."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
    pairs = zip(leaves, labels, strict=True)
    return jax.tree.unflatten(treedef, [x if own == label else MaskedNode() for x, own in pairs])


def _merged(tree: Any, labels: Sequence[Any], parts: Mapping[Any, Any]) -> Any:
    """The tree whose leaves with a label are those of that part, in order."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is None)
    new = {
        label: iter(jax.tree.leaves(part, is_leaf=lambda x: x is None))
        for label, part in parts.items()
    }
    pairs = zip(leaves, labels, strict=True)
    return jax.tree.unflatten(
        treedef, [next(new[label]) if label in new else leaf for leaf, label in pairs]
    )


def _size(tree: Any) -> int:
    return len(jax.tree.leaves(tree))


def _nearest(label: Any, known: Iterable[Any]) -> str:
    near = difflib.get_close_matches(str(label), list(map(str, known)), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {list(known)}"
