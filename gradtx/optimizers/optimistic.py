"""Optimistic gradient descent (Daskalakis et al., 2017; Mokhtari et al., 2019).

u_t = (alpha + beta) g_t - beta g_{t-1}                  g_0 = g_1
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_nonnegative, check_number
from gradtx.core.leaf import map_leaves, zeros_like
from gradtx.core.slot import Flag, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, hyper, static
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import WithDecay, descend
from gradtx.transforms.scale import scale


class ScaleByOptimisticGradientState(NamedTuple):
    """Whether no step was made yet, and the last gradient."""

    is_initial_step: Flag
    previous_gradient: Annotated[Updates, Slot(read_late=True)]


def optimistic_rule(
    g: jax.Array, g_old: jax.Array, again: jax.Array, *,
    initial: jax.Array, alpha: Hyper, beta: Hyper,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    # At the first step alpha g, as g_old = g would give. XLA repeats a root for one use of g only.
    beta = jnp.where(initial, 0, beta)
    return (alpha + beta) * g - beta * g_old, again


class scale_by_optimistic_gradient(GradientTransformation):
    """The gradient, and its change since the last step once more.

        u = (alpha + beta) g - beta g_old;  g_old <- g

    At the first step g_old = g.

    Source: Mokhtari, Ozdaglar, Pattathil, "A unified analysis of extra-gradient and
    optimistic gradient methods for saddle point problems", 2019, arXiv:1901.08511.

    Args:
      alpha: weight of the gradient.
      beta: weight of its change.

    Raises:
      TypeError, ValueError: an argument is not a finite number.

    >>> tx = gradtx.scale_by_optimistic_gradient()
    """

    uses_twice: ClassVar[bool] = True

    alpha: Hyper = 1.0
    beta: Hyper = 1.0

    def validate(self) -> None:
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)

    def init(self, params: Params) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(jnp.array(True), zeros_like(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        return self.transform_twice(updates, updates, state, params)

    def transform_twice(
        self,
        updates: Updates,
        again: Updates,
        state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> tuple[Updates, State]:
        updates, gradient = map_leaves(
            optimistic_rule,
            updates,
            state.previous_gradient,
            reads=(again,),
            initial=state.is_initial_step,
            alpha=self.alpha,
            beta=self.beta,
        )
        return updates, ScaleByOptimisticGradientState(jnp.array(False), gradient)


class optimistic_gradient_descent(WithDecay):
    """Optimistic gradient descent, for games where plain descent circles.

        u = (alpha + beta) g - beta g_old;  x <- x - lr u

    Source: Daskalakis, Ilyas, Syrgkanis, Zeng, "Training GANs with optimism", 2017,
    arXiv:1711.00141; Mokhtari, Ozdaglar, Pattathil, 2019, arXiv:1901.08511.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      alpha, beta: as for `scale_by_optimistic_gradient`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.optimistic_gradient_descent(0.1)
    """

    learning_rate: ScalarOrSchedule
    alpha: Hyper = 1.0
    beta: Hyper = 1.0

    def compose(self) -> GradientTransformation:
        return descend(self, scale_by_optimistic_gradient(self.alpha, self.beta))


class optimistic_adam(Composed):
    """Optimistic Adam as in Optax's first version, which `optimistic_adam_v2` replaces.

        u = adam's u;  x <- x - learning_rate u - optimism (u - u_old);  u_old <- u

    Both numbers are constants: with a schedule the difference would mix two rates.

    Source: Daskalakis, Ilyas, Syrgkanis, Zeng, "Training GANs with optimism", 2017,
    arXiv:1711.00141, Algorithm 1.

    Args:
      learning_rate: number >= 0 or 0-d array.
      optimism: weight of the change; `None` for the learning rate, as in the paper.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as for `scale_by_adam`; the paper's is
        `nesterov=False`.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.optimistic_adam(1e-3)
    """

    learning_rate: Hyper
    optimism: Hyper | None = None
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    nesterov: bool = static(default=True, kw_only=True)

    def validate(self) -> None:
        check_nonnegative("learning_rate", self.learning_rate)
        if self.optimism is not None:
            check_number("optimism", self.optimism)
        super().validate()

    def compose(self) -> GradientTransformation:
        optimism = self.learning_rate if self.optimism is None else self.optimism
        return chain(
            scale_by_adam(
                self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype, nesterov=self.nesterov
            ),
            scale_by_optimistic_gradient(self.learning_rate, optimism),
            scale(-1.0),
        )


class optimistic_adam_v2(WithDecay):
    """Optimistic Adam: the optimistic difference of Adam's updates.

        u = adam's u;  x <- x - lr ((alpha + beta) u - beta u_old);  u_old <- u

    Source: Daskalakis, Ilyas, Syrgkanis, Zeng, "Training GANs with optimism", 2017,
    arXiv:1711.00141, Algorithm 1.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      alpha, beta: as for `scale_by_optimistic_gradient`.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as for `scale_by_adam`; the paper's is
        `nesterov=False`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.optimistic_adam_v2(1e-3)
    """

    learning_rate: ScalarOrSchedule
    alpha: Hyper = hyper(default=1.0, kw_only=True)
    beta: Hyper = hyper(default=1.0, kw_only=True)
    b1: Hyper = hyper(default=0.9, kw_only=True)
    b2: Hyper = hyper(default=0.999, kw_only=True)
    eps: Hyper = hyper(default=1e-8, kw_only=True)
    eps_root: Hyper = hyper(default=0.0, kw_only=True)
    mu_dtype: DTypeLike | None = dtype(default=None, kw_only=True)
    nesterov: bool = static(default=True, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(
            self,
            scale_by_adam(
                self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype, nesterov=self.nesterov
            ),
            scale_by_optimistic_gradient(self.alpha, self.beta),
        )
