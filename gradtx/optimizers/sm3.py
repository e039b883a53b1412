"""SM3 (Anil et al., 2019, arXiv:1901.11150, Algorithm SM3-II).

    nu_t = min over axes i of mu_i, each broadcast along the other axes,  + g_t^2
    mu_i = max of nu_t over all axes but i
    u_t  = momentum of g_t / sqrt(nu_t + eps)

A leaf of shape (m, n) has m + n accumulators in the place of m n; a scalar has one.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    check_fraction,
    check_nonnegative,
    check_number,
)
from gradtx.core.leaf import map_leaves, reduced_zeros_like, zeros_like
from gradtx.core.numerics import abs_sq
from gradtx.core.slot import Params, Reduced, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.transforms.decay import WithDecay, descend


class ScaleBySM3State(NamedTuple):
    """For every leaf a list of accumulators, one vector an axis; and the momentum.

    A scalar, which has no axis, has a list of one number.
    """

    mu: Annotated[Updates, Reduced()]
    nu: Annotated[Updates, Slot()]


def sm3_rule(
    g: jax.Array, momentum: jax.Array, mu: list[jax.Array], *, b1: Hyper, b2: Hyper, new: Hyper,
    eps: Hyper,
) -> tuple[jax.Array, jax.Array, list[jax.Array]]:  # fmt: skip
    axes = range(g.ndim)
    others = [tuple(a for a in axes if a != i) for i in axes] or [()]
    along = [jnp.expand_dims(m, axis) for m, axis in zip(mu, others, strict=True)]
    least = functools.reduce(jnp.minimum, along)
    nu = b2 * least + new * abs_sq(g)
    u = g * jnp.where(nu > 0, jax.lax.rsqrt(nu + eps), 0)
    momentum = b1 * momentum + (1 - b1) * u
    mu = [jnp.max(nu, axis=axis, initial=0) for axis in others]
    return momentum, momentum, mu


class scale_by_sm3(GradientTransformation):
    """SM3's stage: AdaGrad with an accumulator for every row and column.

        nu = min_i mu_i + |g|^2;  mu_i <- max of nu over the other axes
        u = b1 u_old + (1 - b1) g / sqrt(nu + eps), g / sqrt(nu + eps) being 0 where nu is

    Source: Anil, Gupta, Koren, Singer, "Memory-efficient adaptive optimization", 2019,
    arXiv:1901.11150, Algorithm SM3-II.

    Args:
      b1: decay of the momentum, in [0, 1).
      b2: 1 sums squares, as in the paper; below 1 they are averaged as by RMSProp. In [0, 1].
      eps: >= 0.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_sm3()
    """

    b1: Hyper = 0.9
    b2: Hyper = 1.0
    eps: Hyper = 1e-8

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_number("b2", self.b2, 0.0, 1.0)
        check_nonnegative("eps", self.eps)

    def init(self, params: Params) -> ScaleBySM3State:
        vectors = reduced_zeros_like(
            params, lambda shape: [(axis,) for axis in range(len(shape))] or [()]
        )
        return ScaleBySM3State(vectors, zeros_like(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        new = jnp.where(jnp.asarray(self.b2) == 1, 1, 1 - self.b2)
        updates, nu, mu = map_leaves(
            sm3_rule, updates, state.nu, reduced=(state.mu,),
            b1=self.b1, b2=self.b2, new=new, eps=self.eps,
        )  # fmt: skip
        return updates, ScaleBySM3State(mu, nu)


class sm3(WithDecay):
    """SM3: adaptive rates with little more memory than momentum.

        nu = min_i mu_i + g^2;  mu_i <- max of nu over the other axes
        v <- momentum v + (1 - momentum) g / sqrt(nu + 1e-8);  x <- x - lr v

    Source: Anil, Gupta, Koren, Singer, "Memory-efficient adaptive optimization", 2019,
    arXiv:1901.11150, Algorithm SM3-II.

    Args:
      learning_rate: number >= 0, 0-d array, or (unlike Optax's) a schedule.
      momentum: decay of the momentum, in [0, 1).
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.sm3(0.1)
    """

    learning_rate: ScalarOrSchedule
    momentum: Hyper = 0.9

    def validate(self) -> None:
        check_fraction("momentum", self.momentum)
        super().validate()

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_sm3(self.momentum))
