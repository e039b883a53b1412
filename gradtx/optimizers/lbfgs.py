"""L-BFGS: a quasi-Newton direction out of the last few steps (Liu, Nocedal, 1989).

s_k = x_{k+1} - x_k,  y_k = g_{k+1} - g_k,  rho_k = 1 / <s_k, y_k>
H   = the inverse Hessian that BFGS builds from gamma I with the last m pairs, oldest first
u   = H g, by the two loops of Nocedal, Wright, Numerical Optimization, 2006, Algorithm 7.4
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.compose import chain
from gradtx.core.hyper import ScalarOrSchedule, check_rate, check_steps
from gradtx.core.leaf import (
    common_precision,
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
from gradtx.core.transformation import Composed, GradientTransformation
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
    params: Annotated[Params, Slot()]
    updates: Annotated[Updates, Slot()]
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

    memory_size: int = static(default=10)
    scale_init_precond: bool = static(default=True)

    def validate(self) -> None:
        check_steps("memory_size", self.memory_size, low=1)
        object.__setattr__(self, "memory_size", int(self.memory_size))

    def init(self, params: Params) -> State:
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
        if params is None:
            raise ValueError("scale_by_lbfgs needs params: update(updates, state, params)")
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
        pairs = _Pairs(gradient, s, y, extra_args.get("free"))
        curvature, _ = pairs.products(latest)
        dtype = state.weights_memory.dtype
        weights = state.weights_memory.at[latest].set(inverse_of_positive(curvature.astype(dtype)))
        direction = pairs.direction(state.count, weights, self.scale_init_precond)
        return direction, ScaleByLBFGSState(
            safe_increment(state.count), x_old, g_old, s, y, weights
        )


def inverse_of_positive(x: jax.Array) -> jax.Array:
    """1 / x, or 0 where x is not positive or the inverse not finite."""
    inverse = 1 / jnp.where(x > 0, x, 1)
    return jnp.where((x > 0) & jnp.isfinite(inverse), inverse, 0)


class _Pairs:
    """The gradient and the pairs as lists of the arrays that take part, in one precision."""

    def __init__(self, gradient: Updates, s: Updates, y: Updates, free: Any) -> None:
        leaves, self.treedef = jax.tree.flatten(gradient, is_leaf=_is_none)
        masks = [None] * len(leaves) if free is None else match(gradient, free, "updates", "free")
        self.leaves = leaves
        self.places = [i for i, leaf in enumerate(leaves) if is_optimised(leaf)]
        self.g, self.s, self.y, self.masks = (
            [column[i] for i in self.places]
            for column in (leaves, *(jax.tree.leaves(x, is_leaf=_is_none) for x in (s, y)), masks)
        )
        self.restricted = free is not None
        casts = [common_precision(arrays) for arrays in zip(self.g, self.s, self.y, strict=True)]
        self.g = [cast(g) for cast, g in zip(casts, self.g, strict=True)]

    def at(self, memory: list[jax.Array], place: jax.Array) -> list[jax.Array]:
        entries = [jax.lax.dynamic_index_in_dim(x, place, 0, keepdims=False) for x in memory]
        return self.free([e.astype(g.dtype) for e, g in zip(entries, self.g, strict=True)])

    def free(self, arrays: list[jax.Array]) -> list[jax.Array]:
        return [
            x if mask is None else jnp.where(mask, x, jnp.zeros_like(x))
            for x, mask in zip(arrays, self.masks, strict=True)
        ]

    def products(self, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        """<s, y> and <y, y> of one pair."""
        s, y = self.at(self.s, place), self.at(self.y, place)
        return real_vdot(s, y), real_vdot(y, y)

    def direction(self, count: jax.Array, weights: jax.Array, scaled: bool) -> Updates:
        """H times the gradient: the two loops, over the ring from its oldest entry."""
        size = len(weights)
        ring = (count + jnp.arange(size, dtype=count.dtype)) % size
        dtype = weights.dtype

        def weight(s: list[jax.Array], y: list[jax.Array], place: jax.Array) -> jax.Array:
            if not self.restricted:
                return weights[place]
            return inverse_of_positive(real_vdot(s, y).astype(dtype))

        def newest_first(q: list[jax.Array], place: jax.Array) -> Any:
            s, y = self.at(self.s, place), self.at(self.y, place)
            alpha = weight(s, y, place) * real_vdot(s, q).astype(dtype)
            return _add(q, -alpha, y), alpha

        def oldest_first(q: list[jax.Array], step: Any) -> Any:
            place, alpha = step
            s, y = self.at(self.s, place), self.at(self.y, place)
            beta = weight(s, y, place) * real_vdot(y, q).astype(dtype)
            return _add(q, alpha - beta, s), None

        gamma = self._gamma((count - 1) % size, dtype) if scaled else jnp.ones((), dtype)
        q, alphas = jax.lax.scan(newest_first, self.free(self.g), ring, reverse=True)
        q = [gamma.astype(x.dtype) * x for x in q]
        q, _ = jax.lax.scan(oldest_first, q, (ring, alphas))
        new = list(self.leaves)
        for i, x, g, mask in zip(self.places, q, self.g, self.masks, strict=True):
            new[i] = x if mask is None else jnp.where(mask, x, gamma.astype(g.dtype) * g)
        return jax.tree.unflatten(self.treedef, new)

    def _gamma(self, latest: jax.Array, dtype: Any) -> jax.Array:
        curvature, square = (x.astype(dtype) for x in self.products(latest))
        norm = jax.lax.stop_gradient(global_norm(self.g)).astype(dtype)
        cautious = 1 / jnp.maximum(norm, 1)
        known = (inverse_of_positive(curvature) > 0) & (inverse_of_positive(square) > 0)
        return jnp.where(known, curvature * inverse_of_positive(square), cautious)


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
