"""Backtracking until the loss has decreased enough (Armijo, 1966).

Nocedal, Wright, Numerical Optimization, 2nd ed., 2006, Algorithm 3.1; Vaswani et al., 2019,
arXiv:1905.09997, for steps that may grow again.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper, check_nonnegative, check_number, check_positive, check_steps
from gradtx.core.leaf import real_dtype_of, zeros_like
from gradtx.core.numerics import real_vdot, zero_count
from gradtx.core.slot import Count, Inner, Params, Scalar, Slot, State, Updates
from gradtx.core.value import integer, static
from gradtx.linesearch.common import (
    LineSearch,
    along,
    check_or_infinite,
    grad_of_state,
    positive_part,
    report,
)


class BacktrackingLinesearchInfo(NamedTuple):
    """How often the last search evaluated the loss, and by how much it missed the criterion."""

    num_linesearch_steps: Count
    decrease_error: Scalar


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """The last step size, and the loss and its gradient (or `None`) where it led."""

    learning_rate: Scalar
    value: Scalar
    grad: Annotated[Updates, Slot(exact=True)]
    info: Inner


class _Trial(NamedTuple):
    rate: jax.Array
    value: jax.Array
    grad: Any
    error: jax.Array
    count: jax.Array  # type: ignore[assignment]


class scale_by_backtracking_linesearch(LineSearch):
    """Multiplies the updates by a step size at which the loss is low enough.

    From min(increase_factor * rate, max_learning_rate), with the rate of the step before and
    1 at first, the rate is multiplied by `decrease_factor` until

        f(x + rate u) <= (1 + rtol) f(x) + slope_rtol rate <u, grad f(x)> + atol

    A trial whose loss is not finite counts as too long. After `max_backtracking_steps` further
    trials the last is taken, as it is; where no trial was finite there is no step, and the
    next search begins where this one ended.

    `u` must point downhill, as the negative gradient does. The step size is a constant to
    differentiation, and so are the value and the gradient in the state.

    Source: Armijo, "Minimization of functions having Lipschitz continuous first partial
    derivatives", 1966; Nocedal, Wright, "Numerical optimization", 2nd edition, 2006, Algorithm
    3.1; Vaswani et al., "Painless stochastic gradient", 2019, arXiv:1905.09997.

    Args:
      max_backtracking_steps: how many times the rate may decrease, >= 1.
      slope_rtol: the part of the decrease that the slope promises, to be kept; in (0, 1).
      decrease_factor: in (0, 1).
      increase_factor: >= 1; infinity begins every search at `max_learning_rate`.
      max_learning_rate: > 0.
      atol, rtol: how much the criterion may be missed, >= 0.
      store_grad: evaluates the gradient at the end of the step too, and keeps it in the state
        for `value_and_grad_from_state`.
      verbose: prints when a search fails.

    `update` takes the extra arguments `value`, the loss at `params`; `grad`, its gradient there
    (for complex parameters the conjugate of what `jax.grad` returns, as for `updates`); and
    `value_fn`, the loss as a function of the parameters. Further extra arguments are passed to
    `value_fn` if it has parameters of their names.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range. In `update`:
        an extra argument or `params` is missing, or `value_fn` returns no single real number.

    >>> tx = gradtx.scale_by_backtracking_linesearch(max_backtracking_steps=15)
    >>> def loss(x):
    ...     return jnp.sum(x**2)
    >>> descent = gradtx.chain(gradtx.sgd(1.0), tx)
    >>> x = jnp.asarray([3.0])
    >>> value, grad = jax.value_and_grad(loss)(x)
    >>> x, state = descent.step(grad, descent.init(x), x, value=value, grad=grad, value_fn=loss)
    >>> bool(loss(x) < value)
    True
    """

    max_backtracking_steps: int = integer()
    slope_rtol: Hyper = 1e-4
    decrease_factor: Hyper = 0.8
    increase_factor: Hyper = 1.5
    max_learning_rate: Hyper = 1.0
    atol: Hyper = 0.0
    rtol: Hyper = 0.0
    store_grad: bool = static(default=False)
    verbose: bool = static(default=False)

    def validate(self) -> None:
        check_steps("max_backtracking_steps", self.max_backtracking_steps, low=1)
        for name in ("slope_rtol", "decrease_factor"):
            value = getattr(self, name)
            check_number(name, value, 0.0, 1.0, open_low=True, open_high=True)
        check_or_infinite("increase_factor", self.increase_factor, 1.0)
        check_positive("max_learning_rate", self.max_learning_rate)
        check_nonnegative("atol", self.atol)
        check_nonnegative("rtol", self.rtol)

    def init(self, params: Params) -> ScaleByBacktrackingLinesearchState:
        dtype = real_dtype_of(params)
        return ScaleByBacktrackingLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), jnp.inf, dtype),
            grad=zeros_like(params) if self.store_grad else None,
            info=BacktrackingLinesearchInfo(zero_count(), jnp.full((), jnp.inf, dtype)),
        )

    def search(
        self,
        updates: Updates,
        state: ScaleByBacktrackingLinesearchState,
        params: Params,
        extra_args: dict[str, Any],
    ) -> tuple[jax.Array, State]:
        dtype = state.value.dtype
        low, high, c1, atol, rtol, most = (
            jnp.asarray(x, dtype)
            for x in (self.decrease_factor, self.increase_factor, self.slope_rtol, self.atol,
                      self.rtol, self.max_learning_rate)
        )  # fmt: skip
        limit = jnp.asarray(self.max_backtracking_steps, jnp.int32)
        value, grad = jnp.asarray(extra_args["value"], dtype), extra_args["grad"]
        slope = real_vdot(grad, updates).astype(dtype)
        at = along(updates, params, extra_args)

        def ended(trial: _Trial) -> jax.Array:
            return (trial.error <= atol) | (trial.count > limit)

        def try_next(last: _Trial) -> _Trial:
            rate = jnp.where(last.count > 0, low * last.rate, last.rate)
            new_value, gradient = at(rate)
            excess = new_value - (1 + rtol) * value - rate * c1 * slope
            error = positive_part(excess, where_finite=jnp.isfinite(new_value))
            trial = _Trial(rate, new_value, last.grad, error, last.count + 1)
            if not self.store_grad:
                return trial
            kept = jax.lax.cond(ended(trial), gradient, lambda: last.grad)
            return trial._replace(grad=kept)

        first = _Trial(
            rate=jnp.minimum(high * state.learning_rate, most),
            value=value,
            grad=zeros_like(params) if self.store_grad else None,
            error=jnp.full((), jnp.inf, dtype),
            count=zero_count(),
        )
        last = jax.lax.while_loop(lambda trial: ~ended(trial), try_next, first)
        rejected = jnp.isinf(last.error)
        if self.verbose:
            rest = {"value": value, "slope": slope, "rate": last.rate, "error": last.error}
            report(last.error > atol, type(self).__name__, **rest)
        return jnp.where(rejected, 0, last.rate), ScaleByBacktrackingLinesearchState(
            learning_rate=last.rate,
            value=jnp.where(rejected, value, last.value),
            grad=grad_of_state(rejected, grad, last.grad) if self.store_grad else None,
            info=BacktrackingLinesearchInfo(last.count, last.error),
        )
