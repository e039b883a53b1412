"""L-BFGS: a quasi-Newton direction out of the last few steps (Liu, Nocedal, 1989).

s_k = x_{k+1} - x_k,  y_k = g_{k+1} - g_k,  rho_k = 1 / <s_k, y_k>
H   = the inverse Hessian that BFGS builds from gamma I with the last m pairs, oldest first
u   = H g, by the two loops of Nocedal, Wright, Numerical Optimization, 2006, Algorithm 7.4
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.compiled import call_compiled
from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import ScalarOrSchedule, check_rate, check_steps
from gradtx.core.leaf import (
    history_like,
    is_optimised,
    map_leaves,
    match,
    real_dtype_of,
    zeros_like,
)
from gradtx.core.numerics import global_norm, real_vdot, safe_increment, zero_count
from gradtx.core.slot import (
    Count,
    History,
    Numbers,
    Params,
    Slot,
    State,
    Updates,
)
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static
from gradtx.linesearch.zoom import scale_by_zoom_linesearch
from gradtx.transforms.scale import scale, scale_by_learning_rate
from gradtx.transforms.stateless import identity


class ScaleByLBFGSState(NamedTuple):
    """Steps, the last parameters and gradients, and the last pairs in a ring buffer.

    Entry `(count - 1) % memory_size` is the latest pair. A weight is 1 / <s, y>, or 0 for a
    pair that is not used.
    """

    count: Count  # type: ignore[assignment]
    params: Annotated[Params, Slot(exact=True)]
    updates: Annotated[Updates, Slot(exact=True)]
    diff_params_memory: Annotated[Updates, History()]
    diff_updates_memory: Annotated[Updates, History()]
    weights_memory: Annotated[jax.Array, Numbers()]


def remember_rule(
    g: jax.Array, x_old: jax.Array, g_old: jax.Array, s: jax.Array, y: jax.Array, x: jax.Array,
    *, place: Any, moved: Any,
) -> tuple[jax.Array, ...]:  # fmt: skip
    place = place.astype(jnp.int32)
    pair = (
        jax.lax.dynamic_update_index_in_dim(memory, jnp.where(moved, new - old, 0), place, 0)
        for memory, new, old in ((s, x, x_old), (y, g, g_old))
    )
    return g, x, g, *pair


class scale_by_lbfgs(GradientTransformation):
    """Multiplies the gradient by L-BFGS's approximation of the inverse Hessian.

        H <- V_k^T H V_k + rho_k s_k s_k^T,  V_k = I - rho_k y_k s_k^T;  u <- H g

    for the last `memory_size` pairs s_k = x_{k+1} - x_k, y_k = g_{k+1} - g_k, oldest first, from
    H = gamma I with gamma = <s, y> / <y, y> of the latest pair. The first direction has
    gamma = min(1, 1 / |g|), so it is no longer than 1.

    A pair with <s, y> <= 0 shows no convexity and would make H indefinite: it is not used, and
    gamma is min(1, 1 / |g|) again where it is the latest. A line search that meets the Wolfe
    conditions never makes one.

    The memory is 2 memory_size + 2 times the parameters, in float32 or wider. One entry of it
    is written at a step.

    Source: Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", 1989;
    Nocedal, Wright, "Numerical optimization", 2nd edition, 2006, Algorithms 7.4 and 7.5.

    Args:
      memory_size: the number of pairs, >= 1.
      scale_init_precond: `False` for gamma = 1.

    `update` takes the optional extra argument `free`: a tree of booleans like the parameters.
    Entries that are not free get gamma g alone, and H is built of the others' parts of the
    pairs, as in two-metric projection (Bertsekas, 1982). `minimize` passes it under bounds.

    Raises:
      TypeError, ValueError: `memory_size` is not a whole number >= 1. In `update`: `params` is
        missing.

    >>> tx = gradtx.scale_by_lbfgs()
    >>> tx = gradtx.scale_by_lbfgs(memory_size=3, scale_init_precond=False)
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    memory_size: int = static(default=10)
    scale_init_precond: bool = static(default=True)

    def validate(self) -> None:
        check_steps("memory_size", self.memory_size, low=1)
        object.__setattr__(self, "memory_size", int(self.memory_size))

    def init(self, params: Params) -> ScaleByLBFGSState:
        return ScaleByLBFGSState(
            count=zero_count(),
            params=zeros_like(params),
            updates=zeros_like(params),
            diff_params_memory=history_like(params, self.memory_size),
            diff_updates_memory=history_like(params, self.memory_size),
            weights_memory=jnp.zeros(self.memory_size, real_dtype_of(params)),
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        latest = (state.count - 1) % self.memory_size
        gradient, x_old, g_old, s, y = map_leaves(
            remember_rule,
            updates,
            state.params,
            state.updates,
            reduced=(state.diff_params_memory, state.diff_updates_memory),
            reads=(params,),
            place=latest,
            moved=state.count > 0,
        )
        leaves, treedef = jax.tree.flatten(gradient, is_leaf=_is_none)
        taking_part = [i for i, leaf in enumerate(leaves) if is_optimised(leaf)]
        free = extra_args.get("free")
        columns = (
            leaves,
            jax.tree.leaves(s, is_leaf=_is_none),
            jax.tree.leaves(y, is_leaf=_is_none),
            leaves if free is None else match(gradient, free, "updates", "free"),
            *(match(gradient, x, "updates", "the state") for x in (params, *state[1:3])),
        )
        g_list, s_list, y_list, masks, x_list, *old = (
            [column[i] for i in taking_part] for column in columns
        )
        direction, weights = call_compiled(
            _direction, state.count, state.weights_memory, self.scale_init_precond,
            g_list, s_list, y_list, None if free is None else masks, [x_list, *old],
        )  # fmt: skip
        for i, leaf in zip(taking_part, direction, strict=True):
            leaves[i] = leaf
        return jax.tree.unflatten(treedef, leaves), ScaleByLBFGSState(
            safe_increment(state.count), x_old, g_old, s, y, weights
        )


def inverse_of_positive(x: jax.Array) -> jax.Array:
    """1 / x, or 0 where x is not positive or the inverse not finite."""
    inverse = 1 / jnp.where(x > 0, x, 1)
    return jnp.where((x > 0) & jnp.isfinite(inverse), inverse, 0)


def _direction(
    count: jax.Array,
    weights: jax.Array,
    scaled: bool,
    gradient: list[jax.Array],
    s_memory: list[jax.Array],
    y_memory: list[jax.Array],
    free: list[jax.Array] | None,
    around: list[list[jax.Array]],
) -> tuple[list[jax.Array], jax.Array]:
    """H times the gradient by the two loops over the ring; and the weights, with the latest."""
    size, dtype = len(weights), weights.dtype
    latest = (count - 1) % size

    def of_the_free(arrays: list[jax.Array]) -> list[jax.Array]:
        if free is None:
            return arrays
        return [jnp.where(f, x, jnp.zeros_like(x)) for f, x in zip(free, arrays, strict=True)]

    def entry(memory: list[jax.Array], place: jax.Array) -> list[jax.Array]:
        entries = (jax.lax.dynamic_index_in_dim(x, place, 0, keepdims=False) for x in memory)
        return of_the_free([e.astype(g.dtype) for e, g in zip(entries, gradient, strict=True)])

    def pair(place: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        return entry(s_memory, place), entry(y_memory, place)

    def inner(a: list[jax.Array], b: list[jax.Array]) -> jax.Array:
        return real_vdot(a, b).astype(dtype)

    # Not read back from the memory: XLA would copy all of it, to have it before the write too.
    def moved(new: jax.Array, old: jax.Array, g: jax.Array) -> jax.Array:
        return jnp.where(count > 0, jnp.asarray(new, g.dtype) - jnp.asarray(old, g.dtype), 0)

    x, x_old, g_old = around
    s = of_the_free(list(map(moved, x, x_old, gradient)))
    y = of_the_free(list(map(moved, gradient, g_old, gradient)))
    curvature, square = inner(s, y), inner(y, y)
    weights = weights.at[latest].set(inverse_of_positive(curvature))

    def weight(place: jax.Array, s: list[jax.Array], y: list[jax.Array]) -> jax.Array:
        return weights[place] if free is None else inverse_of_positive(inner(s, y))

    def newest_first(q: list[jax.Array], place: jax.Array) -> Any:
        s, y = pair(place)
        alpha = weight(place, s, y) * inner(s, q)
        return _add(q, -alpha, y), alpha

    def oldest_first(q: list[jax.Array], step: Any) -> Any:
        place, alpha = step
        s, y = pair(place)
        beta = weight(place, s, y) * inner(y, q)
        return _add(q, alpha - beta, s), None

    gamma = jnp.ones((), dtype)
    if scaled:
        norm = jax.lax.stop_gradient(global_norm(gradient)).astype(dtype)
        known = (inverse_of_positive(curvature) > 0) & (inverse_of_positive(square) > 0)
        ratio = curvature * inverse_of_positive(square)
        gamma = jnp.where(known, ratio, 1 / jnp.maximum(norm, 1))
    ring = (count + jnp.arange(size, dtype=count.dtype)) % size
    q, alphas = jax.lax.scan(newest_first, of_the_free(gradient), ring, reverse=True)
    q, _ = jax.lax.scan(oldest_first, [gamma.astype(x.dtype) * x for x in q], (ring, alphas))
    if free is not None:
        q = [
            jnp.where(f, x, gamma.astype(g.dtype) * g)
            for f, x, g in zip(free, q, gradient, strict=True)
        ]
    return q, weights


def _add(x: list[jax.Array], factor: jax.Array, y: list[jax.Array]) -> list[jax.Array]:
    return [a + factor.astype(a.dtype) * b for a, b in zip(x, y, strict=True)]


def _is_none(x: Any) -> bool:
    return x is None


class lbfgs(Composed):
    """L-BFGS with a line search: the method of choice for smooth losses without noise.

        x <- x - a H g,  H <- V^T H V + rho s s^T

    where a is the step size that the search finds, H the inverse Hessian as `scale_by_lbfgs`
    builds it from the last steps.

    `update` takes the extra arguments that the search needs, `value`, `grad` and `value_fn`;
    `gradtx.minimize` is the loop that passes them, and `value_and_grad_from_state` saves an
    evaluation at each step of one's own loop.

    Source: Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", 1989;
    Nocedal, Wright, "Numerical optimization", 2nd edition, 2006, Algorithm 7.5.

    Args:
      learning_rate: factor of the direction before the search: number >= 0, schedule, or `None`
        for 1.
      memory_size, scale_init_precond: as for `scale_by_lbfgs`.
      linesearch: the search; `None` for none, with a learning rate that one has to know.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; `linesearch` is
        not a transformation. In `update`: an argument that the search needs is missing.

    >>> tx = gradtx.lbfgs()
    >>> tx = gradtx.lbfgs(0.1, memory_size=5, linesearch=None)
    """

    learning_rate: ScalarOrSchedule | None = None
    memory_size: int = static(default=10)
    scale_init_precond: bool = static(default=True)
    linesearch: GradientTransformation | None = scale_by_zoom_linesearch(
        20, initial_guess_strategy="one"
    )

    def validate(self) -> None:
        if self.learning_rate is not None:
            check_rate("learning_rate", self.learning_rate)
        super().validate()

    def compose(self) -> GradientTransformation:
        rate = self.learning_rate
        return chain(
            scale_by_lbfgs(self.memory_size, self.scale_init_precond),
            scale(-1.0) if rate is None else scale_by_learning_rate(rate),
            identity() if self.linesearch is None else self.linesearch,
        )
