"""RMSProp (Tieleman & Hinton, 2012), and its centred form (Graves, 2013).

nu_t = d nu_{t-1} + (1 - d) g_t^2
u_t  = g_t / sqrt(nu_t + eps)              eps inside the root (Optax), or
u_t  = g_t / (sqrt(nu_t) + eps)            outside (the lecture, PyTorch)

mu_t = d mu_{t-1} + (1 - d) g_t            centred: nu_t - mu_t^2 in the place of nu_t
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.hyper import (
    Hyper,
    ScalarOrSchedule,
    as_float,
    check_fraction,
    check_nonnegative,
    check_number,
)
from gradtx.core.leaf import another, full_like, map_leaves, zeros_like
from gradtx.core.numerics import abs_sq, bias_correction, safe_increment, zero_count
from gradtx.core.slot import Count, Params, Slot, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static
from gradtx.transforms.decay import WithDecay, descend
from gradtx.transforms.stateless import identity
from gradtx.transforms.trace import trace


class ScaleByRmsState(NamedTuple):
    """The running mean of squares."""

    nu: Annotated[Updates, Slot(nonnegative=True)]


class ScaleByRmsWithCountState(NamedTuple):
    """The running mean of squares, and the steps that its bias correction counts."""

    count: Count  # type: ignore[assignment]
    nu: Annotated[Updates, Slot(nonnegative=True)]


class ScaleByRStdDevState(NamedTuple):
    """The running means of gradients and of squares."""

    mu: Annotated[Updates, Slot()]
    nu: Annotated[Updates, Slot(nonnegative=True)]


class ScaleByRStdDevWithCountState(NamedTuple):
    """The running means, and the steps that their bias correction counts."""

    count: Count  # type: ignore[assignment]
    mu: Annotated[Updates, Slot()]
    nu: Annotated[Updates, Slot(nonnegative=True)]


def rms_direction(
    g: jax.Array, nu: jax.Array, *, correction: Hyper, eps: Hyper, **others: Any
) -> jax.Array:
    return g / (jnp.sqrt(nu / correction) + eps)


def rms_eps_in_sqrt_direction(
    g: jax.Array, nu: jax.Array, *, correction: Hyper, eps: Hyper, **others: Any
) -> jax.Array:
    return g / jnp.sqrt(nu / correction + eps)


def rms_rule(
    g: jax.Array, nu: jax.Array, *, decay: Hyper, **numbers: Any
) -> tuple[jax.Array, jax.Array]:
    nu = decay * nu + (1 - decay) * abs_sq(g)
    return rms_direction(g, nu, **numbers), nu


def rms_eps_in_sqrt_rule(
    g: jax.Array, nu: jax.Array, *, decay: Hyper, **numbers: Any
) -> tuple[jax.Array, jax.Array]:
    nu = decay * nu + (1 - decay) * abs_sq(g)
    return rms_eps_in_sqrt_direction(g, nu, **numbers), nu


def centered_rms_direction(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, correction: Hyper, eps: Hyper, **others: Any
) -> jax.Array:
    return g / (jnp.sqrt(variance(mu / correction, nu / correction)) + eps)


def centered_rms_eps_in_sqrt_direction(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, correction: Hyper, eps: Hyper, **others: Any
) -> jax.Array:
    return g / jnp.sqrt(variance(mu / correction, nu / correction) + eps)


def centered_rms_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, decay: Hyper, **numbers: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    mu = decay * mu + (1 - decay) * g
    nu = decay * nu + (1 - decay) * abs_sq(g)
    return centered_rms_direction(g, mu, nu, **numbers), mu, nu


def centered_rms_eps_in_sqrt_rule(
    g: jax.Array, mu: jax.Array, nu: jax.Array, *, decay: Hyper, **numbers: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    mu = decay * mu + (1 - decay) * g
    nu = decay * nu + (1 - decay) * abs_sq(g)
    return centered_rms_eps_in_sqrt_direction(g, mu, nu, **numbers), mu, nu


def variance(mu: jax.Array, nu: jax.Array) -> jax.Array:
    # Rounding can bring the difference below zero, where the root would be NaN.
    return jnp.maximum(nu - abs_sq(mu), 0)


class scale_by_rms(GradientTransformation):
    """Divides by the root of a running mean of squared gradients: RMSProp's stage.

        nu <- d nu + (1 - d) |g|^2;  u = g / sqrt(nu + eps), or g / (sqrt(nu) + eps)

    Source: Tieleman, Hinton, "Lecture 6.5, rmsprop", COURSERA: Neural networks for machine
    learning, 2012.

    Args:
      decay: d, in [0, 1).
      eps: >= 0.
      initial_scale: nu before the first step, >= 0.
      eps_in_sqrt: eps inside the root (Optax) or outside (the lecture, PyTorch).
      bias_correction: whether to divide nu by 1 - d^t first, as Adam does.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_rms()
    >>> tx = gradtx.scale_by_rms(decay=0.99, eps_in_sqrt=False, bias_correction=True)
    """

    decay: Hyper = 0.9
    eps: Hyper = 1e-8
    initial_scale: Hyper = 0.0
    eps_in_sqrt: bool = static(default=True)
    bias_correction: bool = static(default=False)

    def validate(self) -> None:
        check_fraction("decay", self.decay)
        check_nonnegative("eps", self.eps)
        check_nonnegative("initial_scale", self.initial_scale)

    def init(self, params: Params) -> State:
        nu = full_like(params, self.initial_scale, real=True)
        if self.bias_correction:
            return ScaleByRmsWithCountState(zero_count(), nu)
        return ScaleByRmsState(nu)

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        state, correction = _advance(self, state)
        rule = rms_eps_in_sqrt_rule if self.eps_in_sqrt else rms_rule
        updates, nu = map_leaves(
            rule, updates, state.nu, correction=correction, decay=self.decay, eps=self.eps
        )
        return updates, state._replace(nu=nu)

    def transform_again(
        self,
        updates: Updates,
        state: State,
        new_state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> Updates | None:
        direction = rms_eps_in_sqrt_direction if self.eps_in_sqrt else rms_direction
        correction = _advance(self, state)[1]
        return map_leaves(
            direction,
            updates,
            reads=(another(new_state.nu),),
            correction=correction,
            eps=self.eps,
        )


class scale_by_stddev(GradientTransformation):
    """Divides by a running standard deviation of the gradient: centred RMSProp's stage.

        mu <- d mu + (1 - d) g;  nu <- d nu + (1 - d) |g|^2
        u = g / sqrt(nu - |mu|^2 + eps), or g / (sqrt(nu - |mu|^2) + eps)

    A difference that rounding makes negative counts as zero.

    Source: Graves, "Generating sequences with recurrent neural networks", 2013,
    arXiv:1308.0850, equations 38 to 40.

    Args:
      decay, eps, initial_scale, eps_in_sqrt, bias_correction: as for `scale_by_rms`; the
        correction is applied to mu and nu.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.scale_by_stddev()
    >>> tx = gradtx.scale_by_stddev(decay=0.99, initial_scale=1.0, eps_in_sqrt=False)
    """

    decay: Hyper = 0.9
    eps: Hyper = 1e-8
    initial_scale: Hyper = 0.0
    eps_in_sqrt: bool = static(default=True)
    bias_correction: bool = static(default=False)

    def validate(self) -> None:
        check_fraction("decay", self.decay)
        check_nonnegative("eps", self.eps)
        check_nonnegative("initial_scale", self.initial_scale)

    def init(self, params: Params) -> State:
        mu, nu = zeros_like(params), full_like(params, self.initial_scale, real=True)
        if self.bias_correction:
            return ScaleByRStdDevWithCountState(zero_count(), mu, nu)
        return ScaleByRStdDevState(mu, nu)

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        state, correction = _advance(self, state)
        rule = centered_rms_eps_in_sqrt_rule if self.eps_in_sqrt else centered_rms_rule
        updates, mu, nu = map_leaves(
            rule,
            updates,
            state.mu,
            state.nu,
            correction=correction,
            decay=self.decay,
            eps=self.eps,
        )
        return updates, state._replace(mu=mu, nu=nu)

    def transform_again(
        self,
        updates: Updates,
        state: State,
        new_state: State,
        params: Params | None,
        **extra_args: Any,
    ) -> Updates | None:
        direction = centered_rms_direction
        if self.eps_in_sqrt:
            direction = centered_rms_eps_in_sqrt_direction
        correction = _advance(self, state)[1]
        return map_leaves(
            direction,
            updates,
            reads=(new_state.mu, another(new_state.nu)),
            correction=correction,
            eps=self.eps,
        )


def _advance(tx: scale_by_rms | scale_by_stddev, state: State) -> tuple[State, Any]:
    """The state with its count raised, and what its means are to be divided by."""
    if not tx.bias_correction:
        return state, 1.0
    t = safe_increment(state.count)
    return state._replace(count=t), bias_correction(tx.decay, as_float(t))


class rmsprop(WithDecay):
    """RMSProp, plain or centred, with or without momentum.

        nu <- d nu + (1 - d) g^2;  x <- x - lr g / sqrt(nu + eps)

    The learning rate is inside the momentum, as in Optax: v <- rho v - lr u; x <- x + v. The
    lecture's form has `eps=1e-7, eps_in_sqrt=False`; PyTorch's `decay=0.99, eps=1e-8,
    eps_in_sqrt=False`, with the rate outside the momentum, which differs under a schedule.

    Source: Tieleman, Hinton, "Lecture 6.5, rmsprop", 2012; centred: Graves, 2013,
    arXiv:1308.0850.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      decay, eps, initial_scale, eps_in_sqrt: as for `scale_by_rms`.
      centered: divides by a standard deviation, as `scale_by_stddev`.
      momentum: rho, from 0 to 1; `None` for no momentum.
      nesterov: whether the momentum looks ahead.
      bias_correction: as for `scale_by_rms`.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.rmsprop(1e-3)
    >>> tx = gradtx.rmsprop(1e-3, decay=0.99, eps=1e-7, eps_in_sqrt=False)
    >>> tx = gradtx.rmsprop(1e-3, centered=True, momentum=0.9, nesterov=True)
    """

    learning_rate: ScalarOrSchedule
    decay: Hyper = 0.9
    eps: Hyper = 1e-8
    initial_scale: Hyper = 0.0
    eps_in_sqrt: bool = static(default=True)
    centered: bool = static(default=False)
    momentum: Hyper | None = None
    nesterov: bool = static(default=False)
    bias_correction: bool = static(default=False)

    def validate(self) -> None:
        if self.momentum is not None:
            check_number("momentum", self.momentum, 0.0, 1.0)
        super().validate()

    def compose(self) -> GradientTransformation:
        stage = scale_by_stddev if self.centered else scale_by_rms
        return descend(
            self,
            stage(self.decay, self.eps, self.initial_scale, self.eps_in_sqrt, self.bias_correction),
            momentum=identity() if self.momentum is None else trace(self.momentum, self.nesterov),
        )
