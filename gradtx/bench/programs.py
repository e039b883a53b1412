"""One optimizer step as JAX runs it in training: jitted, parameters and state donated."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from gradtx.bench.lineup import Case

Tree = dict[str, Any]

SMALL_SHAPES = (
    (20,), (1, 20), (20, 1), (2, 10), (10, 2), (4, 5), (5, 4), (2, 2, 5), (2, 5, 2), (5, 2, 2),
)  # fmt: skip
"""Ten ways to hold 20 elements."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A state's beginning, and a step `(params, state, grads) -> (params, state)`."""

    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]

    def jitted(self) -> Any:
        """Donated arguments stand in the order in which they are returned, as JAX pairs them."""
        return jax.jit(lambda *arguments: self.step(*arguments), donate_argnums=(0, 1))

    def lower(self, params: Tree, state: Any = None) -> Any:
        """The step for parameters of these shapes and dtypes, ready to be compiled.

        `state` is what `init` makes of them, for those who have it already.
        """
        state = jax.eval_shape(self.init, params) if state is None else state
        return self.jitted().lower(params, state, params)


def own_program(tx: gradtx.GradientTransformation) -> Program:
    """The step of a gradtx transformation."""
    extra_args = dict.fromkeys(tx.required_extra_args, 1.0)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        return tx.step(grads, state, params, **extra_args)

    return Program(tx.init, step)


def optax_program(optax: ModuleType, tx: Any, own: gradtx.GradientTransformation) -> Program:
    """Optax's update, applied; with the extra arguments that gradtx's counterpart needs."""
    extra_args = dict.fromkeys(own.required_extra_args, 1.0)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params, **extra_args)
        return optax.apply_updates(params, updates), state

    return Program(tx.init, step)


def programs(case: Case, optax: ModuleType | None) -> dict[str, Program]:
    """Who runs this case in JAX: gradtx, Optax, and the wrapped step without its wrapper."""
    found = {"gradtx": own_program(case.own)}
    if optax is not None:
        found["optax"] = optax_program(optax, case.theirs, case.own)
    if case.inner is not None:
        found["inner step"] = own_program(case.inner)
    return found


def large_tree(leaves: int, size: int) -> Tree:
    """Shapes of square float32 matrices."""
    return _named([(size, size)] * leaves)


def small_tree(leaves: int) -> Tree:
    """Shapes of float32 leaves of 20 elements."""
    return _named([SMALL_SHAPES[i % len(SMALL_SHAPES)] for i in range(leaves)])


def random_like(shapes: Tree, scale: float, seed: int) -> Tree:
    """Normal numbers in the shapes of a tree, on the default device."""
    random = np.random.default_rng(seed)
    return {
        name: jnp.asarray(scale * random.standard_normal(x.shape, np.float32))
        for name, x in shapes.items()
    }


def timed_step(program: Program, params: Tree, grads: Tree, window: int) -> Callable[[], float]:
    """A function that makes `window` steps and returns the mean seconds of one.

    Parameters and state go on from call to call. The caller's parameters are left alone.
    """
    step = program.jitted()
    params = jax.tree.map(jnp.copy, params)
    state = jax.jit(program.init)(params)

    def run() -> float:
        nonlocal params, state
        begin = time.perf_counter()
        for _ in range(window):
            params, state = step(params, state, grads)
        jax.block_until_ready((params, state))  # type: ignore[no-untyped-call]
        return (time.perf_counter() - begin) / window

    return run


def timed_compilation(program: Program, shapes: Tree) -> Callable[[], tuple[float, float]]:
    """A function that returns the seconds to trace and lower a step, and to compile it.

    From nothing but the shapes of parameters and state.
    """

    def run() -> tuple[float, float]:
        jax.clear_caches()  # type: ignore[no-untyped-call]
        state = jax.eval_shape(program.init, shapes)
        begin = time.perf_counter()
        lowered = program.lower(shapes, state)
        between = time.perf_counter()
        lowered.compile()
        return between - begin, time.perf_counter() - between

    return run


def floor_bytes(case: Case, shapes: Tree) -> float:
    """Bytes that a step has to move: each input read once, each output written once.

    In a window of accumulated gradients only its last step needs parameters and inner state,
    and all of them the mean.

    >>> adam = Case("adam", gradtx.adam(1e-3), None)
    >>> floor_bytes(adam, {"w": jax.ShapeDtypeStruct((1000,), jnp.float32)})
    28008.0
    """
    state = jax.eval_shape(case.own.init, shapes)
    mean = getattr(state, "acc_grads", None)
    moved = _nbytes(shapes) + _nbytes(state) - _nbytes(mean)
    return case.gradient_reads * _nbytes(shapes) + 2 * _nbytes(mean) + 2 * moved / case.window


def _named(shapes: list[tuple[int, ...]]) -> Tree:
    shape_of: Any = jax.ShapeDtypeStruct  # JAX has no types for it
    return {f"w{i:04d}": shape_of(shape, jnp.float32) for i, shape in enumerate(shapes)}


def _nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
