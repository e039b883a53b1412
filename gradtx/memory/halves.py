"""What a function makes of arrays and, where it works entry by entry, of their halves as well.

Codes of 4 bits have half the shape of the array that they stand for. XLA overwrites them in place
where only operations entry by entry lie between the old and the new ones, all in the shape of
the codes: so the new value of a slot is formed once more, from the low and from the high codes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var

from gradtx.memory.layout import Layout, halves

# fmt: off
ELEMENTWISE = frozenset({
    "abs", "add", "add_any", "and", "atan2", "bitcast_convert_type", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "copy_p", "cos", "div", "eq", "erf", "erf_inv", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic",
    "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pow", "reduce_precision",
    "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic",
    "shift_right_logical", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh",
    "xor",
})
# fmt: on


@dataclasses.dataclass(frozen=True)
class Halved:
    """An array and, formed otherwise, `halves(full, layout)`."""

    full: Any
    low: Any
    high: Any
    layout: Layout


jax.tree_util.register_dataclass(Halved, ["full", "low", "high"], ["layout"])


def is_halved(x: Any) -> bool:
    return isinstance(x, Halved)


def full(x: Any) -> Any:
    """The array, where a `Halved` may stand in its place."""
    return x.full if isinstance(x, Halved) else x


def only_full(tree: Any) -> Any:
    """A tree without halves."""
    return jax.tree.map(full, tree, is_leaf=is_halved)


def with_halves(function: Callable[[Any], Any], tree: Any) -> Any:
    """`function(tree)`, and the halves of what it forms entry by entry from what has halves.

    Args:
      function: of a tree of arrays; it is traced once, if the tree has halves.
      tree: with `Halved` in the place of arrays.

    Returns:
      What the function does, with `Halved` in the place of arrays.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_halved)
    places = [i for i, leaf in enumerate(leaves) if is_halved(leaf)]
    if not places:
        return function(tree)
    made: list[Any] = []

    def traced(arrays: Sequence[jax.Array]) -> list[jax.Array]:
        operands = [*leaves]
        for i, x in zip(places, arrays, strict=True):
            operands[i] = x
        results, structure = jax.tree.flatten(function(treedef.unflatten(operands)))
        made[:] = results, structure
        return [x for x in results if isinstance(x, jax.Array)]

    program = jax.make_jaxpr(traced)([leaves[i].full for i in places])
    results, structure = made
    found = iter(_evaluated(program, [leaves[i] for i in places]))
    return structure.unflatten([next(found) if isinstance(x, jax.Array) else x for x in results])


def _evaluated(program: ClosedJaxpr, operands: Sequence[Any]) -> list[Any]:
    @functools.partial(jax.jit, static_argnums=0)
    def call(program: ClosedJaxpr, operands: list[Any]) -> list[Any]:
        return run(program, operands)

    def run(program: ClosedJaxpr, operands: Sequence[Any]) -> list[Any]:
        layouts = {x.full.shape: x.layout for x in operands if is_halved(x)}

        def halved(x: Any) -> Any:
            # What only meets them later, too: XLA does not vectorise halves of a sum well.
            if is_halved(x) or np.shape(x) not in layouts:
                return x
            layout = layouts[np.shape(x)]
            return Halved(x, *halves(x, layout), layout)

        known = dict(zip(program.jaxpr.constvars, map(halved, program.consts), strict=True))
        known |= zip(program.jaxpr.invars, map(halved, operands), strict=True)

        def of(variable: Any) -> Any:
            return known[variable] if isinstance(variable, Var) else variable.val

        for eqn in program.eqns:
            values = list(map(of, eqn.invars))
            if not any(map(is_halved, values)):
                results = _bound(program.jaxpr, eqn, values)
            elif eqn.primitive.name == "jit":
                results = call(eqn.params["jaxpr"], values)
            else:
                results = _with_halves(program.jaxpr, eqn, values)
            known |= zip(eqn.outvars, results, strict=True)
        return list(map(of, program.jaxpr.outvars))

    return run(program, operands)


def _with_halves(jaxpr: Jaxpr, eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    results = _bound(jaxpr, eqn, list(map(full, values)))
    layout = next(x.layout for x in values if is_halved(x))
    shapes = {np.shape(x) for x in (*map(full, values), *results)}
    if eqn.primitive.name not in ELEMENTWISE or len(shapes - {()}) > 1:
        return results

    def parts(x: Any) -> tuple[Any, Any]:
        if np.shape(full(x)) == ():
            return full(x), full(x)
        if is_halved(x) and x.layout == layout:
            return x.low, x.high
        return halves(full(x), layout)

    lows, highs = zip(*map(parts, values), strict=True)
    (low,), (high,) = _bound(jaxpr, eqn, lows), _bound(jaxpr, eqn, highs)
    return [Halved(results[0], low, high, layout)]


def _bound(jaxpr: Jaxpr, eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """The results of one operation of a program."""
    operands = [(v, x) for v, x in zip(eqn.invars, values, strict=True) if isinstance(v, Var)]
    alone = jaxpr.replace(  # type: ignore[no-untyped-call]
        constvars=[], invars=[v for v, _ in operands], outvars=eqn.outvars, eqns=[eqn]
    )
    return jax.core.eval_jaxpr(alone, [], *(x for _, x in operands))
