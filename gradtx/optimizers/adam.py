"""Adam (Kingma & Ba, 2014, arXiv:1412.6980, Algorithm 1) and AdamW.

    mu_t = b1 mu_{t-1} + (1 - b1) g_t                first moment
    nu_t = b2 nu_{t-1} + (1 - b2) g_t^2              second moment
    u_t  = (mu_t / (1 - b1^t)) / (sqrt(nu_t / (1 - b2^t) + eps_root) + eps)

Without the two corrections this is the lecture's "almost Adam". With Nesterov momentum
(Dozat, 2016) the first moment that the step uses looks one step ahead:

    b1 mu_t / (1 - b1^(t+1)) + (1 - b1) g_t / (1 - b1^t)

AdamW (Loshchilov & Hutter, 2017, arXiv:1711.05101) adds weight_decay x_t to u_t.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.core.composed import Composed
from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_fraction, check_nonnegative
from gradtx.core.leaf import another, map_leaves, zeros_like
from gradtx.core.numerics import abs_sq, bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, hyper, static
from gradtx.transforms.decay import WithDecay, descend


class ScaleByAdamState(NamedTuple):
    """The number of steps and the two moments."""

    count: Count  # type: ignore[assignment]
    mu: Annotated[Updates, Slot()]
    nu: Annotated[Updates, Slot(nonnegative=True)]


def moments(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, b1: Hyper, b2: Hyper, **others: Any
) -> tuple[jax.Array, jax.Array]:
    return b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * abs_sq(g)


def adam_direction(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> jax.Array:  # fmt: skip
    mu_hat = mu / bias_correction(b1, t)
    nu_hat = nu / bias_correction(b2, t)
    u: jax.Array = mu_hat / (jnp.sqrt(nu_hat + eps_root) + eps)
    return u


def almost_adam_direction(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, eps: Hyper, eps_root: Hyper, **others: Any
) -> jax.Array:
    return mu / (jnp.sqrt(nu + eps_root) + eps)


def nesterov_adam_direction(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, t: jax.Array,
    b1: Hyper, b2: Hyper, eps: Hyper, eps_root: Hyper,
) -> jax.Array:  # fmt: skip
    mu_hat = b1 * mu / bias_correction(b1, t + 1) + (1 - b1) * g / bias_correction(b1, t)
    nu_hat = nu / bias_correction(b2, t)
    u: jax.Array = mu_hat / (jnp.sqrt(nu_hat + eps_root) + eps)
    return u


def adam_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, **numbers: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    mu, nu = moments(g, mu, nu, **numbers)
    return adam_direction(g, mu, nu, **numbers), mu, nu


def almost_adam_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, **numbers: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    mu, nu = moments(g, mu, nu, **numbers)
    return almost_adam_direction(g, mu, nu, **numbers), mu, nu


def nesterov_adam_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, **numbers: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    mu, nu = moments(g, mu, nu, **numbers)
    return nesterov_adam_direction(g, mu, nu, **numbers), mu, nu


class scale_by_adam(GradientTransformation):
    """Adam's stage: the mean gradient over the root of the mean squared gradient.

        mu <- b1 mu + (1 - b1) g;  nu <- b2 nu + (1 - b2) |g|^2
        u = (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Source: Kingma, Ba, "Adam: a method for stochastic optimization", 2014, arXiv:1412.6980,
    Algorithm 1; with `nesterov`: Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second moment, in [0, 1).
      eps: added outside the root, >= 0.
      eps_root: added inside the root, >= 0; positive to differentiate through the step.
      mu_dtype: dtype of mu; by default the parameter's, at least float32. nu is real.
      nesterov: whether the first moment looks one step ahead.
      bias_correction: `False` leaves out the two corrections: the lecture's "almost Adam".

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; `nesterov`
        without `bias_correction`.

    >>> tx = gradtx.scale_by_adam()
    >>> tx = gradtx.scale_by_adam(nesterov=True)
    >>> tx = gradtx.scale_by_adam(mu_dtype="bfloat16", bias_correction=False)
    """

    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    nesterov: bool = static(default=False, kw_only=True)
    bias_correction: bool = static(default=True, kw_only=True)

    def validate(self) -> None:
        check_fraction("b1", self.b1)
        check_fraction("b2", self.b2)
        check_nonnegative("eps", self.eps)
        check_nonnegative("eps_root", self.eps_root)
        if self.nesterov and not self.bias_correction:
            raise ValueError("nesterov=True is defined with bias_correction=True only")

    def init(self, params: Params) -> ScaleByAdamState:
        return ScaleByAdamState(
            zero_count(), zeros_like(params, self.mu_dtype), zeros_like(params, real=True)
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        rule = nesterov_adam_rule if self.nesterov else adam_rule
        if not self.bias_correction:
            rule = almost_adam_rule
        t = safe_increment(state.count)
        updates, mu, nu = map_leaves(
            rule, updates, state.mu, state.nu,
            t=t, b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip
        return updates, ScaleByAdamState(t, mu, nu)

    def transform_again(
        self,
        updates: Updates,
        state: State,
        new_state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> Updates | None:
        if self.mu_dtype is not None:
            return None  # the update was formed before mu was rounded
        direction = nesterov_adam_direction if self.nesterov else adam_direction
        if not self.bias_correction:
            direction = almost_adam_direction
        return map_leaves(
            direction, updates, reads=(new_state.mu, another(new_state.nu)),
            t=new_state.count, b1=self.b1, b2=self.b2, eps=self.eps, eps_root=self.eps_root,
        )  # fmt: skip


class adam(WithDecay):
    """Adam: momentum, and a rate for each parameter from its mean squared gradient.

        mu <- b1 mu + (1 - b1) g;  nu <- b2 nu + (1 - b2) g^2
        x <- x - lr (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Source: Kingma, Ba, "Adam: a method for stochastic optimization", 2014, arXiv:1412.6980,
    Algorithm 1.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root, mu_dtype, nesterov, bias_correction: as for `scale_by_adam`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.adam(1e-3)
    >>> tx.init(jnp.zeros(2))[0].count
    Array(0, dtype=int32)
    >>> tx = gradtx.adam(1e-3, bias_correction=False)
    >>> tx = gradtx.adam(gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100), b1=0.95)
    """

    learning_rate: ScalarOrSchedule = 1e-3
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    nesterov: bool = static(default=False, kw_only=True)
    bias_correction: bool = static(default=True, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(
            self,
            scale_by_adam(
                self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype,
                nesterov=self.nesterov, bias_correction=self.bias_correction,
            ),
        )  # fmt: skip


class adamw(Composed):
    """AdamW: Adam, with weights that decay at the learning rate and not through the moments.

        x <- x - lr (adam's u + weight_decay x)

    The four arguments on decay are those of every optimizer here. They name how the decay is
    coupled to the learning rate, lr_max being the largest rate of a schedule:

        'l2'             g + weight_decay x in the place of g
        'learning_rate'  x <- x - lr u - lr weight_decay x             (the default)
        'schedule'       x <- x - lr u - (lr / lr_max) weight_decay x
        'corrected'      x <- x - lr u - (lr^2 / lr_max) weight_decay x
        'independent'    x <- x - lr u - weight_decay x

    Source: Loshchilov, Hutter, "Decoupled weight decay regularization", 2017,
    arXiv:1711.05101, Algorithm 2, which is `'schedule'`; as everywhere in practice the default
    multiplies by the learning rate. `'corrected'` is AdamC: Defazio, "Why gradients rapidly
    increase near the end of training", 2025, arXiv:2506.02285, for the weights of normalised
    layers.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      b1, b2, eps, eps_root, mu_dtype, nesterov: as for `scale_by_adam`.
      weight_decay: number >= 0, 0-d array, or schedule. PyTorch's default is 1e-2.
      mask: which leaves decay: a tree of booleans or a function of the parameters; by
        default all, biases and norms included. `matrices()` leaves these out.
      coupling: one of the names above.
      peak_learning_rate: lr_max, > 0; needed where the learning rate is a schedule and the
        coupling divides by it. A constant rate is its own peak.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range; `coupling` is
        none of the five, or lacks its peak. In `update`: `params` is missing.

    >>> tx = gradtx.adamw(1e-3, weight_decay=0.01)
    >>> tx = gradtx.adamw(1e-3, mask=gradtx.matrices())
    >>> tx = gradtx.adamw(
    ...     gradtx.linear_schedule(1e-3, 0.0, 100), coupling="corrected", peak_learning_rate=1e-3
    ... )
    """

    learning_rate: ScalarOrSchedule
    b1: Hyper = 0.9
    b2: Hyper = 0.999
    eps: Hyper = 1e-8
    eps_root: Hyper = 0.0
    mu_dtype: DTypeLike | None = dtype(default=None)
    weight_decay: ScalarOrSchedule = 1e-4
    mask: Any = static(default=None)
    nesterov: bool = static(default=False, kw_only=True)
    coupling: str = static(default="learning_rate", kw_only=True)
    peak_learning_rate: Hyper | None = hyper(default=None, kw_only=True)

    def compose(self) -> GradientTransformation:
        return descend(
            self,
            scale_by_adam(
                self.b1, self.b2, self.eps, self.eps_root, self.mu_dtype, nesterov=self.nesterov
            ),
        )
