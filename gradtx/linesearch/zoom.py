"""A search for a step size that meets the strong Wolfe conditions.

Nocedal, Wright, Numerical Optimization, 2nd ed., 2006: Algorithm 3.5 brackets such a step, and
Algorithm 3.6 zooms into the bracket. Near a minimum, where differences of the loss drown in
rounding, the approximate Wolfe condition of Hager and Zhang (2006) decides instead.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.hyper import Hyper, check_nonnegative, check_number, check_positive, check_steps
from gradtx.core.leaf import real_dtype_of, zeros_like
from gradtx.core.numerics import real_vdot, safe_increment, zero_count
from gradtx.core.slot import Count, Inner, Params, Scalar, Slot, State, Updates
from gradtx.core.value import integer, static
from gradtx.linesearch.common import (
    LineSearch,
    along,
    check_or_infinite,
    conjugate,
    grad_of_state,
    positive_part,
    report,
)


class ZoomLinesearchInfo(NamedTuple):
    """How often the last search evaluated the loss, and its last trial's violations."""

    num_linesearch_steps: Count
    decrease_error: Scalar
    curvature_error: Scalar


class ScaleByZoomLinesearchState(NamedTuple):
    """The last step size, and the loss and its gradient where it led."""

    learning_rate: Scalar
    value: Scalar
    grad: Annotated[Updates, Slot(exact=True)]
    info: Inner


class Point(NamedTuple):
    """A place on the line: its step size, the loss there, and its slope along the line."""

    rate: jax.Array
    value: jax.Array
    slope: jax.Array


class _Search(NamedTuple):
    count: jax.Array  # type: ignore[assignment]
    last: Point
    decrease_error: jax.Array
    curvature_error: jax.Array
    bracketed: jax.Array
    ended: jax.Array
    # The bracket: `low` is the better end, which need not be the left one.
    low: Point
    high: Point
    third: Point  # the end that was last given up; the cubic passes through it
    # What the search returns if it ends now. It is `safe` once the loss has decreased enough.
    kept: Point
    kept_grad: Any
    safe: jax.Array


def pick(condition: jax.Array, this: Any, other: Any) -> Any:
    return jax.tree.map(functools.partial(jnp.where, condition), this, other)


def cubic_minimum(low: Point, high: Point, third: Point) -> jax.Array:
    """Where the cubic through three values and the slope at `low` is least; else not finite.

    With p(t) = f + s t + B t^2 + A t^3 around `low`, written so that A = 0 does no harm.
    """
    t, t3 = high.rate - low.rate, third.rate - low.rate
    q = (high.value - low.value - low.slope * t) / t**2
    q3 = (third.value - low.value - low.slope * t3) / t3**2
    a = (q - q3) / (t - t3)
    b = q - a * t
    return low.rate - low.slope / (b + jnp.sqrt(b * b - 3 * a * low.slope))


def quadratic_minimum(low: Point, high: Point) -> jax.Array:
    """Where the parabola through two values and the slope at `low` is least."""
    t = high.rate - low.rate
    return low.rate - low.slope * t**2 / (2 * (high.value - low.value - low.slope * t))


def interpolate(low: Point, high: Point, third: Point) -> jax.Array:
    """A step size well inside the bracket: by a cubic, else a parabola, else the middle."""
    left, right = jnp.minimum(low.rate, high.rate), jnp.maximum(low.rate, high.rate)
    width = right - left
    rate = (low.rate + high.rate) / 2
    for margin, candidate in (
        (0.1, quadratic_minimum(low, high)),
        (0.2, cubic_minimum(low, high, third)),
    ):
        inside = (candidate > left + margin * width) & (candidate < right - margin * width)
        rate = jnp.where(inside, candidate, rate)
    return rate


class scale_by_zoom_linesearch(LineSearch):
    """Multiplies the updates by a step size that meets the strong Wolfe conditions.

    With f(a) the loss at x + a u and f'(a) its slope there:

        f(a) <= f(0) + slope_rtol a f'(0) + tol     (sufficient decrease)
        |f'(a)| <= curv_rtol |f'(0)| + tol          (small slope)

    In the place of the first, f'(a) <= (2 slope_rtol - 1) f'(0) suffices where f(a) is at most
    f(0) + approx_dec_rtol |f(0)|: near a minimum the first is lost in rounding.

    The step size grows by `increase_factor` until an interval is known to hold a good one, and
    interpolation then shrinks the interval. If that does not succeed within
    `max_linesearch_steps` evaluations, or the interval is shorter than `stepsize_precision`,
    the best step with sufficient decrease is taken; else the last one tried, even if the loss
    is higher there; and none where the last loss or slope was not finite. Trials that are not
    finite count as too long.

    `u` must point downhill, as the negative gradient does. The step size is a constant to
    differentiation, and so are the value and the gradient in the state.

    Source: Nocedal, Wright, "Numerical optimization", 2nd edition, 2006, Algorithms 3.5 and
    3.6; Hager, Zhang, "Algorithm 851: CG_DESCENT", 2006, equations 23, 26 and 27.

    Args:
      max_linesearch_steps: how often the loss may be evaluated, >= 1.
      max_learning_rate: the largest step size, > 0, or `None`.
      tol: how much the conditions may be missed, >= 0.
      increase_factor: > 1.
      slope_rtol: in (0, 1); curv_rtol: above 0, infinity leaves out the second condition.
      approx_dec_rtol: >= 0, or `None` to leave out the approximate condition.
      stepsize_precision: >= 0.
      initial_guess_strategy: the first trial: `'one'`, as is best for L-BFGS, or `'keep'` for
        the step size of the step before.
      verbose: prints when a search fails.

    `update` takes the extra arguments `value`, the loss at `params`; `grad`, its gradient there
    (for complex parameters the conjugate of what `jax.grad` returns, as for `updates`); and
    `value_fn`, the loss as a function of the parameters. Further extra arguments are passed to
    `value_fn` if it has parameters of their names.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range;
        `initial_guess_strategy` is neither. In `update`: an extra argument or `params` is
        missing, or `value_fn` returns no single real number.

    >>> tx = gradtx.scale_by_zoom_linesearch(max_linesearch_steps=15)
    >>> def loss(x):
    ...     return jnp.sum(x**2)
    >>> descent = gradtx.chain(gradtx.sgd(1.0), tx)
    >>> x = jnp.asarray([3.0])
    >>> value, grad = jax.value_and_grad(loss)(x)
    >>> x, state = descent.step(grad, descent.init(x), x, value=value, grad=grad, value_fn=loss)
    >>> x
    Array([0.], dtype=float32)
    """

    max_linesearch_steps: int = integer()
    max_learning_rate: Hyper | None = None
    tol: Hyper = 0.0
    increase_factor: Hyper = 2.0
    slope_rtol: Hyper = 1e-4
    curv_rtol: Hyper = 0.9
    approx_dec_rtol: Hyper | None = 1e-6
    stepsize_precision: Hyper = 1e-5
    initial_guess_strategy: str = static(default="keep")
    verbose: bool = static(default=False)

    def validate(self) -> None:
        check_steps("max_linesearch_steps", self.max_linesearch_steps, low=1)
        if self.max_learning_rate is not None:
            check_positive("max_learning_rate", self.max_learning_rate)
        check_nonnegative("tol", self.tol)
        check_number("increase_factor", self.increase_factor, 1.0, open_low=True)
        check_number("slope_rtol", self.slope_rtol, 0.0, 1.0, open_low=True, open_high=True)
        check_or_infinite("curv_rtol", self.curv_rtol, 0.0, open_low=True)
        if self.approx_dec_rtol is not None:
            check_nonnegative("approx_dec_rtol", self.approx_dec_rtol)
        check_nonnegative("stepsize_precision", self.stepsize_precision)
        if self.initial_guess_strategy not in ("one", "keep"):
            raise ValueError(
                "initial_guess_strategy must be 'one' or 'keep', "
                f"got {self.initial_guess_strategy!r}"
            )

    def init(self, params: Params) -> ScaleByZoomLinesearchState:
        dtype = real_dtype_of(params)
        infinite = [jnp.full((), jnp.inf, dtype) for _ in range(3)]
        return ScaleByZoomLinesearchState(
            learning_rate=jnp.ones((), dtype),
            value=infinite[0],
            grad=zeros_like(params),
            info=ZoomLinesearchInfo(zero_count(), infinite[1], infinite[2]),
        )

    def search(
        self,
        updates: Updates,
        state: ScaleByZoomLinesearchState,
        params: Params,
        extra_args: dict[str, Any],
    ) -> tuple[jax.Array, State]:
        dtype = state.value.dtype
        value, grad = jnp.asarray(extra_args["value"], dtype), extra_args["grad"]
        start = Point(jnp.zeros((), dtype), value, real_vdot(grad, updates).astype(dtype))
        guess = jnp.ones((), dtype)
        if self.initial_guess_strategy == "keep":
            guess = jnp.where(state.learning_rate > 0, state.learning_rate, guess)
        at = along(updates, params, extra_args)

        def evaluate(rate: jax.Array) -> tuple[Point, Updates]:
            value, gradient = at(rate)
            grad = gradient()
            return Point(rate, value, real_vdot(conjugate(grad), updates).astype(dtype)), grad

        found = _search(self, start, guess, evaluate, zeros_like(params))
        rejected = ~found.safe & jnp.isinf(found.decrease_error)
        errors = {"decrease_error": found.decrease_error, "curvature_error": found.curvature_error}
        if self.verbose:
            missed = ~(jnp.maximum(*errors.values()) <= self.tol)
            rest = {"value": value, "slope": start.slope, "rate": found.kept.rate}
            report(missed, type(self).__name__, **rest, **errors)
        rate = jnp.where(rejected, 0, found.kept.rate)
        return rate, ScaleByZoomLinesearchState(
            learning_rate=rate,
            value=jnp.where(rejected, value, found.kept.value),
            grad=grad_of_state(rejected, grad, found.kept_grad),
            info=ZoomLinesearchInfo(found.count, **errors),
        )


def _search(
    tx: scale_by_zoom_linesearch, start: Point, guess: jax.Array, evaluate: Any, no_grad: Updates
) -> _Search:
    dtype = start.value.dtype
    c1, c2, grow, tol, precision = (
        jnp.asarray(x, dtype)
        for x in (tx.slope_rtol, tx.curv_rtol, tx.increase_factor, tx.tol,
                  tx.stepsize_precision)
    )  # fmt: skip
    most = jnp.asarray(jnp.inf if tx.max_learning_rate is None else tx.max_learning_rate, dtype)
    limit = jnp.asarray(tx.max_linesearch_steps, jnp.int32)

    def errors_at(trial: Point) -> tuple[jax.Array, jax.Array]:
        excess = trial.value - start.value - c1 * trial.rate * start.slope
        if tx.approx_dec_rtol is not None:
            slack = jnp.asarray(tx.approx_dec_rtol, dtype) * jnp.abs(start.value)
            steep = trial.slope - (2 * c1 - 1) * start.slope
            approximate = jnp.maximum(steep, trial.value - start.value - slack)
            excess = jnp.minimum(excess, approximate)
        bent = jnp.abs(trial.slope) - c2 * jnp.abs(start.slope)
        finite = jnp.isfinite(trial.value) & jnp.isfinite(trial.slope)
        return positive_part(excess, where_finite=finite), positive_part(bent, where_finite=finite)

    def try_next(s: _Search) -> _Search:
        first, zooming = s.count == 0, s.bracketed
        longer = jnp.where(first, guess, grow * s.last.rate)
        at_most = ~zooming & (longer >= most)
        rate = jnp.where(zooming, interpolate(s.low, s.high, s.third), jnp.minimum(longer, most))
        trial, grad = evaluate(rate)
        decrease_error, curvature_error = errors_at(trial)
        enough = decrease_error <= tol
        good = enough & (curvature_error <= tol)

        # While bracketing, the trial before takes the part of `low`: Algorithm 3.5 then
        # decides as 3.6 does, but for the slope, which says if there is a bracket at all.
        low = pick(zooming, s.low, s.last)
        worse = (decrease_error > 0) | ((trial.value >= low.value) & ~(first & ~zooming))
        turned = jnp.where(zooming, trial.slope * (s.high.rate - s.low.rate) >= 0, trial.slope >= 0)
        new_high = pick(worse, trial, pick(turned, low, s.high))
        new_low = pick(worse, low, trial)
        third = pick(zooming & (worse | turned), s.high, low)
        # The first bracket has no third point: the cubic has none to pass through.
        third = pick(zooming, third, new_low)
        bracketed = zooming | worse | turned | good

        better = trial.value < jnp.where(s.safe, s.kept.value, start.value)
        safer = enough & (~zooming | better)
        done = good | (at_most & ~bracketed)
        keep = done | safer | ~s.safe
        safe = s.safe | safer
        narrow = zooming & (jnp.abs(s.high.rate - s.low.rate) <= precision) & safe
        count = safe_increment(s.count)
        return _Search(
            count=count,
            last=trial,
            decrease_error=decrease_error,
            curvature_error=curvature_error,
            bracketed=bracketed,
            ended=done | narrow | (count >= limit),
            low=new_low,
            high=new_high,
            third=third,
            kept=pick(keep, trial, s.kept),
            kept_grad=pick(keep, grad, s.kept_grad),
            safe=safe,
        )

    infinite = jnp.full((), jnp.inf, dtype)
    false = jnp.zeros((), bool)
    return jax.lax.while_loop(
        lambda s: ~s.ended,
        try_next,
        _Search(
            zero_count(), start, infinite, infinite, false, false,
            start, start, start, start, no_grad, false,
        ),
    )  # fmt: skip
