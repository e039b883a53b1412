"""What there is: every optimizer of a namespace, what it costs, and where it comes from."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

from gradtx.core.composed import Composed
from gradtx.core.transformation import GradientTransformation
from gradtx.inspect.describe import aligned
from gradtx.inspect.size import abstract_state, bytes_of

_SHAPES = ((1024, 1024), (1024,))
_Leaves = frozenset[tuple[int, ...]]
_NO_LEAVES = _Leaves()
_FACTORISATIONS = {"cholesky", "eigh", "householder_product", "lu", "qr", "svd", "triangular_solve"}

_CITATION = re.compile(
    r'Source: (?P<authors>[^";]+?), (?:"[^"]+",.*?)?\b(?P<year>\d{4})'
    r"(?:, arXiv:(?P<arxiv>\d{4}\.\d{4,5}))?"
)


@dataclasses.dataclass(frozen=True)
class ListedOptimizer:
    """An optimizer, with its usual arguments.

    Attributes:
      name: its public name.
      state_bytes_per_parameter: of a model of one (1024, 1024) and one (1024,) leaf, float32.
      scope: what the update of an entry depends on: `"elementwise"`, on its own gradients and
        parameter alone; `"norms"`, on sums or maxima within its leaf, of rows and columns too;
        `"matrix"`, on products of matrices; `"global"`, on other leaves.
      source: the first citation of its docstring, in short: authors and year.
      arxiv: that citation's arXiv id, or `None`.
    """

    name: str
    state_bytes_per_parameter: float
    scope: str
    source: str
    arxiv: str | None


def optimizers(namespace: Any) -> Iterator[ListedOptimizer]:
    """Every public optimizer of a module, in the order of its `__all__`.

    An optimizer is a named composition whose only argument without default is the learning
    rate, if that; the stages that it is made of are none.

    Args:
      namespace: a module with `__all__`, such as `gradtx`.

    >>> next(optimizers(gradtx))
    ListedOptimizer(name='sgd', state_bytes_per_parameter=0.0, scope='elementwise',
                    source='Robbins, Monro, 1951', arxiv=None)
    """
    for name in namespace.__all__:
        public = getattr(namespace, name)
        if not (isinstance(public, type) and issubclass(public, Composed)):
            continue
        required = {f.name for f in dataclasses.fields(public) if f.default is dataclasses.MISSING}
        if required <= {"learning_rate"}:
            yield _listed(name, public(**dict.fromkeys(required, 1e-3)))


def scope_of(tx: GradientTransformation) -> str:
    """What the update of an entry depends on, as in `ListedOptimizer`.

    It is read from the traced program: through which operations gradients and parameters come
    to the updates, in one step, and over the state in later ones.
    """
    params = _params()
    extra_args = {"value": jnp.float32(0), "grad": params}
    needed = {name: extra_args[name] for name in extra_args if name in tx.required_extra_args}
    value_fn = {"value_fn": _sum} if "value_fn" in tx.required_extra_args else {}

    def update(params: Any, updates: Any, needed: Any, state: Any) -> Any:
        return tx.update(updates, state, params, **needed, **value_fn)

    traced = jax.make_jaxpr(update)(params, params, needed, abstract_state(tx, params))
    # The two leaves are told apart by their shapes.
    given = [frozenset({leaf.shape} - {()}) for leaf in jax.tree.leaves((params, params, needed))]
    held = [_NO_LEAVES] * (len(traced.in_avals) - len(given))
    while True:
        mixed: set[str] = set()
        found = _reached(traced.jaxpr, given + held, mixed)
        updates, after = found[: len(_SHAPES)], found[len(_SHAPES) :]
        if after == held:
            break
        held = after
    if "matrix" in mixed:
        return "matrix"
    if any(len(leaves) > 1 for leaves in updates):
        return "global"
    return "norms" if mixed else "elementwise"


def table(listed: Sequence[ListedOptimizer]) -> str:
    """The optimizers as text, one a line."""
    rows = [("optimizer", "state", "scope", "source")]
    for each in listed:
        paper = f"{each.source}, arXiv:{each.arxiv}" if each.arxiv else each.source
        rows.append((each.name, f"{each.state_bytes_per_parameter:.2f}", each.scope, paper))
    width = max(len(row[1]) for row in rows)
    lines = aligned([(name, state.rjust(width), *rest) for name, state, *rest in rows])
    return "\n".join([*lines, "", "state: bytes per float32 parameter"])


def _listed(name: str, tx: GradientTransformation) -> ListedOptimizer:
    params = _params()
    size = bytes_of(abstract_state(tx, params)) / sum(leaf.size for leaf in params)
    return ListedOptimizer(name, size, scope_of(tx), *_source(type(tx)))


def _params() -> Any:
    return jax.eval_shape(lambda: [jnp.zeros(shape, jnp.float32) for shape in _SHAPES])


def _source(public: type) -> tuple[str, str | None]:
    """Authors and year of the first citation after `Source:`, and its arXiv id."""
    doc = " ".join((inspect.getdoc(public) or "").split())
    found = _CITATION.search(doc)
    return (f"{found['authors']}, {found['year']}", found["arxiv"]) if found else ("", None)


def _sum(params: Any) -> jax.Array:
    return sum(map(jnp.sum, jax.tree.leaves(params)), jnp.zeros(()))


def _reached(jaxpr: Jaxpr, inputs: Sequence[_Leaves], mixed: set[str]) -> list[_Leaves]:
    """The leaves that each output of a program depends on, given those of each input.

    Adds to `mixed` the ways in which entries of a leaf come together.
    """
    known = dict(zip(jaxpr.invars, inputs, strict=True))

    def of(variable: Any) -> _Leaves:
        return _NO_LEAVES if isinstance(variable, Literal) else known.get(variable, _NO_LEAVES)

    for eqn in jaxpr.eqns:
        operands = list(map(of, eqn.invars))
        together = _NO_LEAVES.union(*operands)
        if eqn.primitive.name == "jit":
            results = _reached(eqn.params["jaxpr"].jaxpr, operands, mixed)
        else:
            # Of loops and conditionals every result may depend on every operand.
            for inner in jax.tree.leaves(list(eqn.params.values())):
                inner = getattr(inner, "jaxpr", inner)
                if isinstance(inner, Jaxpr):
                    _reached(inner, [together] * len(inner.invars), mixed)
            results = [together] * len(eqn.outvars)
            if together:
                mixed |= _mixing(eqn)
        known |= zip(eqn.outvars, results, strict=True)
    return list(map(of, jaxpr.outvars))


def _mixing(eqn: Any) -> set[str]:
    name = eqn.primitive.name
    if name in _FACTORISATIONS:
        return {"matrix"}
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        free = [operand.aval.ndim - len(contracted) for operand in eqn.invars]
        return {"matrix" if min(free) > 0 else "norms"}
    reduces = name.startswith(("reduce_", "arg", "cum")) and name != "reduce_precision"
    return {"norms"} if reduces else set()
