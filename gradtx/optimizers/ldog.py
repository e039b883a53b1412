"""Layer-wise distance over gradients, L-DoG (Ivgi et al., 2023, arXiv:2302.12022, section 3.3).

For each leaf:
    r_t = max(r_{t-1}, |x_t - x_0|),  r_0 = reps_rel (1 + |x_0|)
    s_t = s_{t-1} + |g_t|^2
    u_t = r_t / sqrt(s_t + eps) g_t
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.hyper import Hyper, check_number, check_positive
from gradtx.core.leaf import copy_of, map_leaves, optimised_only, reduced_zeros_like
from gradtx.core.numerics import abs_sq
from gradtx.core.slot import Params, Reduced, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype
from gradtx.transforms.trust import leaf_norm


class ScaleByDistanceOverGradientsState(NamedTuple):
    """For each leaf the largest distance so far, the sum of squared gradients, and the start."""

    max_dist: Annotated[Updates, Reduced()]
    grad_sum_of_squares: Annotated[Updates, Reduced()]
    init_params: Annotated[Updates, Slot(exact=True)]


def first_distance_rule(p: jax.Array, d: jax.Array, *, reps_rel: Hyper) -> Any:
    return p, reps_rel * (1 + leaf_norm(p, 0.0))


def ldog_rule(
    g: jax.Array, d: jax.Array, s: jax.Array, p: jax.Array, start: jax.Array, *,
    eps: Hyper, global_scale: Hyper,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    d = leaf_norm(p - start, d)
    s = s + jnp.sum(abs_sq(g))
    return global_scale * d * jax.lax.rsqrt(s + eps) * g, d, s


class scale_by_distance_over_gradients(GradientTransformation):
    """L-DoG's stage: a learning rate for each leaf, from how far it has come.

        r <- max(r, |x - x_0|);  s <- s + |g|^2;  u <- global_scale r / sqrt(s + eps) g

    Needs no learning rate. The last iterate is noisy: the authors evaluate an average of the
    parameters, as `ema_params` keeps it.

    Source: Ivgi, Hinder, Carmon, "DoG is SGD's best friend: a parameter-free dynamic step
    size schedule", 2023, arXiv:2302.12022, section 3.3.

    Args:
      reps_rel: the first distance, relative to 1 + |x_0|; > 0. The authors' values are 1e-4
        with batch normalisation and 1e-6 without.
      eps: added to the sum of squared gradients, > 0.
      param_dtype: dtype of the copy of x_0; by default the parameter's, at least float32.
      global_scale: factor of the update; -1 to descend without a further stage.

    Raises:
      TypeError, ValueError: a number is not one, or out of its range; `param_dtype` is not a
        floating dtype. In `update`: `params` is missing.

    >>> tx = gradtx.scale_by_distance_over_gradients(1e-4, global_scale=-1.0)
    >>> tx = gradtx.chain(tx, gradtx.ema_params(0.999))
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    reps_rel: Hyper = 1e-6
    eps: Hyper = 1e-8
    param_dtype: DTypeLike | None = dtype(default=None)
    global_scale: Hyper = 1.0

    def validate(self) -> None:
        check_positive("reps_rel", self.reps_rel)
        check_positive("eps", self.eps)
        check_number("global_scale", self.global_scale)

    def init(self, params: Params) -> ScaleByDistanceOverGradientsState:
        zeros = reduced_zeros_like(params, lambda shape: ())
        _, first = map_leaves(
            first_distance_rule, optimised_only(params), reduced=(zeros,), reps_rel=self.reps_rel
        )
        sums = reduced_zeros_like(params, lambda shape: ())
        return ScaleByDistanceOverGradientsState(first, sums, copy_of(params, self.param_dtype))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        updates, distances, sums = map_leaves(
            ldog_rule, updates, reduced=(state.max_dist, state.grad_sum_of_squares),
            reads=(params, state.init_params), eps=self.eps, global_scale=self.global_scale,
        )  # fmt: skip
        return updates, ScaleByDistanceOverGradientsState(distances, sums, state.init_params)
