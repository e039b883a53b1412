"""A function that is run or not, its results written in place of its operands on a GPU as well.

For CUDA, XLA gives the results of a conditional buffers of their own, and copies them into the
donated ones. What a loop carries it writes in place, so there the function is the body of one
that turns once or not at all. On CPU and TPU a conditional is as good or better.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


@functools.cache
def gpu_in_reach() -> bool:
    """Whether a plugin of JAX's for a GPU is installed: without, nothing can be compiled for one.

    Known without starting JAX. Tracing a step for all platforms takes twice as long, so it is
    not done in vain.
    """
    names = [point.name for point in importlib.metadata.entry_points(group="jax_plugins")]
    return any(maker in name for name in names for maker in ("cuda", "rocm"))


def in_place_if(
    run: jax.Array, function: Callable[..., tuple[Any, ...]], operands: tuple[Any, ...]
) -> tuple[Any, ...]:
    """`function(*operands)` where `run` holds, else `operands`; differentiates as `lax.cond`.

    Args:
      run: boolean array of shape ().
      function: from trees of arrays to trees of the same structure, shapes and dtypes.
      operands: its arguments.
    """
    leaves, treedef = jax.tree.flatten(operands)

    def flat(*leaves: Any) -> list[Any]:
        return jax.tree.leaves(function(*jax.tree.unflatten(treedef, leaves)))

    # Traced once for all platforms. What it closes over becomes an operand, for derivatives.
    traced = jax.make_jaxpr(flat)(*leaves)
    results = _run_if(traced.jaxpr, run, leaves, traced.consts)
    rebuilt: tuple[Any, ...] = jax.tree.unflatten(treedef, results)
    return rebuilt


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _run_if(jaxpr: Any, run: jax.Array, leaves: list[Any], consts: list[Any]) -> list[Any]:
    loop = functools.partial(_loop_if, jaxpr)
    results: list[Any] = jax.lax.platform_dependent(
        run, leaves, consts, cuda=loop, rocm=loop, default=functools.partial(_cond_if, jaxpr)
    )
    return results


def _cond_if(jaxpr: Any, run: jax.Array, leaves: list[Any], consts: list[Any]) -> list[Any]:
    results: list[Any] = jax.lax.cond(
        run, lambda xs: jax.core.eval_jaxpr(jaxpr, consts, *xs), lambda xs: xs, leaves
    )
    return results


def _loop_if(jaxpr: Any, run: jax.Array, leaves: list[Any], consts: list[Any]) -> list[Any]:
    def once(carry: tuple[jax.Array, list[Any]]) -> tuple[jax.Array, list[Any]]:
        return jnp.array(False), jax.core.eval_jaxpr(jaxpr, consts, *carry[1])

    return jax.lax.while_loop(lambda carry: carry[0], once, (run, leaves))[1]


@functools.partial(_run_if.defjvp, symbolic_zeros=True)
def _run_if_jvp(jaxpr: Any, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """The conditional's derivative, as a loop has none in reverse mode.

    What is constant stays so: zeros would be NaN times the infinite slope of a root at zero.
    """
    leaves, treedef = jax.tree.flatten(primals)
    given = jax.tree.leaves(tangents)
    moving = [i for i, tangent in enumerate(given) if not isinstance(tangent, SymbolicZero)]
    noted: list[Any] = []

    @jax.custom_jvp
    def note_tangents(results: list[Any]) -> list[Any]:
        return results

    @functools.partial(note_tangents.defjvp, symbolic_zeros=True)
    def _(results: Any, slopes: Any) -> tuple[Any, Any]:
        noted.extend(slopes[0])
        return results[0], slopes[0]

    def of(*moved: Any) -> list[Any]:
        whole = dict(enumerate(leaves)) | dict(zip(moving, moved, strict=True))
        return note_tangents(_cond_if(jaxpr, *jax.tree.unflatten(treedef, whole.values())))

    results, slopes = jax.jvp(of, [leaves[i] for i in moving], [given[i] for i in moving])
    # Nothing is noted where all are constant.
    return results, [
        note if isinstance(note, SymbolicZero) else slope
        for note, slope in zip(noted or slopes, slopes, strict=True)
    ]
