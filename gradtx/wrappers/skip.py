"""Skipping steps that are not finite."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core.composed import Composed
from gradtx.core.hyper import check_steps
from gradtx.core.leaf import narrow
from gradtx.core.numerics import all_finite, safe_increment, zero_count
from gradtx.core.slot import Count, Flag, Inner, Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import integer, static
from gradtx.wrappers.branch import arrays_of, cond, step_if, transform_if

CHECKS = ("grads", "updates")
LIMITS = ("hold", "accept", "reset_state")


class SkipNonfiniteState(NamedTuple):
    """How many steps were not finite, and the inner state.

    Attributes:
      notfinite_count: of them, those since the last finite step.
      last_finite: whether the last step was finite.
      total_notfinite: all of them.
      inner_state: state of the inner transformation, which skipped steps leave as it was.
    """

    notfinite_count: Count
    last_finite: Flag
    total_notfinite: Count
    inner_state: Inner


ApplyIfFiniteState = SkipNonfiniteState  # Optax's name


class skip_nonfinite(GradientTransformation):
    """Skips steps whose gradients or updates hold an inf or a NaN.

    On a skipped step the updates are zero and the inner state stays as it was, counts and
    thereby bias corrections and schedules included: the next step is what it would have been
    without the bad one.

    `step` first looks whether the step is finite and then makes it in place, so that no tree
    of updates is stored. Looking at the gradients costs little; looking at the updates costs
    computing them once more.

    Args:
      inner: the transformation to guard. Updates are checked as it returns them, in the
        dtype of the parameters where `update` gets them.
      check: what has to be finite, `"grads"`, `"updates"`, or both. A finite gradient can
        give an update that is not, and the other way round: the sign of an inf is 1.
      max_consecutive: steps that may be skipped in a row before `on_limit` applies, a whole
        number >= 0; `None` for no limit.
      on_limit: what happens to further bad steps in the same row. `'hold'`: they are skipped
        too. `'accept'`: the inner transformation is run, so that values that are not finite
        are written. `'reset_state'`: the step is skipped and the inner state becomes what
        `init` returns, for states that make every step bad.

    Raises:
      TypeError, ValueError: an argument is not of its type, or out of its range;
        `on_limit` is not `'hold'` and there is no `max_consecutive`. In `update`: `params` is
        missing and `on_limit` is `'reset_state'`.

    >>> tx = gradtx.skip_nonfinite(gradtx.adam(0.1))
    >>> tx = gradtx.skip_nonfinite(gradtx.sgd(0.1), check=("grads",))
    >>> tx = gradtx.skip_nonfinite(gradtx.adam(0.1), max_consecutive=5, on_limit="reset_state")
    >>> params, state = tx.step(jnp.asarray([jnp.nan]), tx.init(jnp.zeros(1)), jnp.zeros(1))
    >>> print(params, state.notfinite_count)
    [0.] 1
    """

    inner: GradientTransformation
    check: tuple[str, ...] = static(default=CHECKS, kw_only=True)
    max_consecutive: int | jax.Array | None = integer(default=None, kw_only=True)
    on_limit: str = static(default="hold", kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        check = (self.check,) if isinstance(self.check, str) else tuple(self.check)
        if not check or not set(check) <= set(CHECKS):
            raise ValueError(f"check must hold one or both of {CHECKS}, got {self.check!r}")
        object.__setattr__(self, "check", check)
        if self.on_limit not in LIMITS:
            raise ValueError(f"on_limit must be one of {LIMITS}, got {self.on_limit!r}")
        if self.max_consecutive is not None:
            check_steps("max_consecutive", self.max_consecutive)
        elif self.on_limit != "hold":
            raise ValueError(f"on_limit={self.on_limit!r} needs max_consecutive, got None")

    def init(self, params: Params) -> SkipNonfiniteState:
        return SkipNonfiniteState(
            notfinite_count=zero_count(),
            last_finite=jnp.array(True),
            total_notfinite=zero_count(),
            inner_state=self.inner.init(params),
        )

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        runs, over, state = self._look(updates, state, params, extra_args)
        new, inner_state = transform_if(
            runs, self.inner, updates, state.inner_state, params, extra_args
        )
        return new, self._after(over, inner_state, state, params)

    def step(
        self, updates: Updates, state: State, params: Params, **extra_args: Any
    ) -> tuple[Params, State]:
        updates = self._checked(updates, state, params, extra_args)
        runs, over, state = self._look(updates, state, params, extra_args)
        new, inner_state = step_if(runs, self.inner, updates, state.inner_state, params, extra_args)
        return new, self._after(over, inner_state, state, params)

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(state.inner_state, params)

    def _look(
        self, updates: Updates, state: Any, params: Params | None, extra_args: dict[str, Any]
    ) -> tuple[Any, Any, Any]:
        """Whether to run the inner transformation, whether the limit is passed, the counts."""
        if "updates" in self.check:

            def question(new: Updates) -> jax.Array:
                new = narrow(new, like=updates if params is None else params)
                looked_at = [new, updates] if "grads" in self.check else [new]
                return _all_finite_together(*map(arrays_of, looked_at))

            finite = self.inner.judge(question, updates, state.inner_state, params, **extra_args)
        else:
            finite = all_finite(updates)
        count, total = state.notfinite_count, state.total_notfinite
        count = jnp.where(finite, 0, safe_increment(count))
        state = state._replace(
            notfinite_count=count,
            last_finite=finite,
            total_notfinite=jnp.where(finite, total, safe_increment(total)),
        )
        over = False if self.max_consecutive is None else count > self.max_consecutive
        runs = jnp.logical_or(finite, over) if self.on_limit == "accept" else finite
        return runs, over, state

    def _after(self, over: Any, inner_state: State, state: Any, params: Params | None) -> Any:
        if self.on_limit == "reset_state":
            if params is None:
                raise ValueError(
                    "on_limit='reset_state' needs params: update(updates, state, params)"
                )
            inner_state = cond(over, lambda _: self.inner.init(params), lambda s: s, inner_state)
        return state._replace(inner_state=inner_state)


def _all_finite_together(*trees: Updates) -> jax.Array:
    """Whether every leaf of these trees is finite, looked at leaf by leaf, all trees at once.

    Not `all_finite`: a value that is computed on the way costs more in a maximum than in a flag.
    XLA's CPU backend stores the flags of a leaf before it reduces them; as each leaf takes up
    the answer of the one before, those of one leaf are stored at a time.
    """
    finite = jnp.array(True)
    for leaves in zip(*map(jax.tree.leaves, trees), strict=True):
        flags = functools.reduce(jnp.logical_and, map(jnp.isfinite, leaves))
        finite = jnp.all(jnp.logical_and(finite, flags))
    return finite


class apply_if_finite(Composed):
    """`skip_nonfinite` under Optax's name, with Optax's arguments and state.

    Unlike Optax's it also skips steps whose updates are not finite though the gradients are,
    and after `max_consecutive_errors` it goes on skipping: say `on_limit="accept"` to have
    such steps made, which leaves NaN in the parameters for good.

    Args:
      inner: the transformation to guard.
      max_consecutive_errors: as `max_consecutive` of `skip_nonfinite`.
      on_limit: as for `skip_nonfinite`.

    Raises:
      TypeError, ValueError: an argument is not of its type, or out of its range.

    >>> tx = gradtx.apply_if_finite(gradtx.adam(0.1), max_consecutive_errors=5)
    """

    inner: GradientTransformation
    max_consecutive_errors: int | jax.Array = integer()
    on_limit: str = static(default="hold", kw_only=True)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        check_steps("max_consecutive_errors", self.max_consecutive_errors)
        super().validate()

    def compose(self) -> GradientTransformation:
        return skip_nonfinite(
            self.inner, max_consecutive=self.max_consecutive_errors, on_limit=self.on_limit
        )
