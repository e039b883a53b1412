"""What the searches share: a base, the loss along a line, and reading both from a state."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradtx.core.apply import apply_updates
from gradtx.core.compiled import call_compiled
from gradtx.core.hyper import Hyper, check_number
from gradtx.core.leaf import is_optimised, map_leaves, match, narrow, real_dtype_of, widen
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation

Gradient = Callable[[], Updates]


def scaled_rule(u: jax.Array, *, rate: Hyper) -> jax.Array:
    return rate * u


class LineSearch(GradientTransformation):
    """Base of the searches, which multiply the updates by a step size: they write `search`."""

    requires: ClassVar[tuple[str, ...]] = ("params", "value", "grad", "value_fn")

    def search(
        self, updates: Updates, state: State, params: Params, extra_args: dict[str, Any]
    ) -> tuple[jax.Array, State]:
        """The step size to take, which is 0 where there is none, and the new state."""
        raise NotImplementedError  # abstract

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        given = _as_constants((updates, state, params, extra_args))
        rate, new_state = call_compiled(type(self).search, self, *given)
        return map_leaves(scaled_rule, updates, rate=rate), new_state


def value_and_gradient(
    fn: Callable[[Params], Any], params: Params, name: str = "value_fn"
) -> tuple[jax.Array, Gradient]:
    """The value of `fn`, and a function that gives its gradient as `jax.grad` does.

    `fn` sees `params` as they are, in their own dtypes. The value is float32 or wider; so is
    the gradient, which is `None` for leaves that are not optimised.

    Raises:
      ValueError: `fn` does not return a single real number.
    """
    leaves, treedef = jax.tree.flatten(params, is_leaf=lambda x: x is None)
    places = [i for i, leaf in enumerate(leaves) if is_optimised(leaf)]

    def value_of(arrays: list[jax.Array]) -> jax.Array:
        filled = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            filled[i] = array
        value = jnp.asarray(fn(jax.tree.unflatten(treedef, filled)))
        if value.shape != () or jnp.iscomplexobj(value):
            raise ValueError(
                f"{name} must return a single real number, "
                f"got an array of shape {value.shape} and dtype {value.dtype}"
            )
        return value.astype(real_dtype_of(params))

    value, pull_back = jax.vjp(value_of, [jnp.asarray(leaves[i]) for i in places])

    def gradient() -> Updates:
        filled = [None] * len(leaves)
        for i, array in zip(places, pull_back(jnp.ones_like(value))[0], strict=True):
            filled[i] = array
        return widen(jax.tree.unflatten(treedef, filled))

    return value, gradient


def along(
    updates: Updates, params: Params, extra_args: dict[str, Any]
) -> Callable[[jax.Array], tuple[jax.Array, Gradient]]:
    """The loss at `params + rate * updates`, as a function of the rate.

    It is taken at the very point to which `apply_updates` will go, so in the dtypes of the
    parameters. `value_fn` gets those extra arguments that it has a parameter for.
    """
    value_fn = extra_args["value_fn"]
    arguments = _accepted(value_fn, extra_args)

    def at(rate: jax.Array) -> tuple[jax.Array, Gradient]:
        step = narrow(map_leaves(scaled_rule, updates, rate=rate), like=params)
        return value_and_gradient(
            lambda point: value_fn(point, **arguments), apply_updates(params, step)
        )

    return at


def _accepted(value_fn: Callable[..., Any], extra_args: dict[str, Any]) -> dict[str, Any]:
    rest = {k: v for k, v in extra_args.items() if k not in ("value", "grad", "value_fn")}
    parameters = list(inspect.signature(value_fn).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return rest
    return {p.name: rest[p.name] for p in parameters if p.name in rest}


def _as_constants(tree: Any) -> Any:
    """The tree, with a derivative of zero: JAX cannot differentiate a search in reverse."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if is_optimised(x) else x, tree)


def conjugate(tree: Updates) -> Updates:
    """The conjugates of the optimised leaves: from `jax.grad`'s gradients to uphill, and back."""
    return jax.tree.map(lambda x: x.conj() if is_optimised(x) and jnp.iscomplexobj(x) else x, tree)


def grad_of_state(rejected: jax.Array, old: Updates, new: Updates) -> Updates:
    """`new`, or where the step was `rejected` the conjugate of the uphill gradient `old`."""
    leaves, treedef = jax.tree.flatten(new, is_leaf=lambda x: x is None)
    olds = match(new, conjugate(old), "the gradient of value_fn", "grad")
    chosen = [
        jnp.where(rejected, o.astype(n.dtype), n) if is_optimised(n) and is_optimised(o) else n
        for n, o in zip(leaves, olds, strict=True)
    ]
    return jax.tree.unflatten(treedef, chosen)


def positive_part(error: jax.Array, *, where_finite: jax.Array) -> jax.Array:
    """By how much a criterion is violated: at least 0, and inf where the trial was not finite."""
    judged = where_finite & ~jnp.isnan(error)
    return jnp.where(judged, jnp.maximum(error, 0), jnp.inf)


def report(failed: jax.Array, name: str, **values: Any) -> None:
    """Prints these values when the compiled program gets here with `failed` true."""
    text = ", ".join(f"{key} {{{key}}}" for key in values)
    jax.lax.cond(
        failed,
        lambda: jax.debug.print(f"{name}: no step size meets the criteria: {text}", **values),
        lambda: None,
    )


def check_or_infinite(name: str, value: Any, low: float, *, open_low: bool = False) -> None:
    """Raises unless `value` is at least (or above) `low`; infinity is allowed."""
    infinite = not isinstance(value, jax.core.Tracer) and value in (math.inf,)
    if not infinite:
        check_number(name, value, low, open_low=open_low)


def value_and_grad_from_state(
    value_fn: Callable[..., Any],
) -> Callable[..., tuple[jax.Array, Updates]]:
    """`jax.value_and_grad` that reuses what a line search has already evaluated.

    The searches evaluate the loss at the point to which they step. While the loss stays the
    same function, that is the value and the gradient with which the next step begins. Before
    the first step, where the state has no finite value yet, `value_fn` is evaluated.

    The search must be the last stage that changes the updates: the value in its state is that
    at the point where its own step ends.

    Args:
      value_fn: the loss, `value_fn(params, *args, **kwargs)`, shape ().

    Returns:
      A function `(params, *args, state=..., **kwargs)` that gives the value and the gradient,
      both in float32 or wider, the gradient in `jax.grad`'s convention: conjugate that of
      complex parameters before `update`.

    Raises:
      ValueError: the state holds no value with its gradient, or several; for
        `scale_by_backtracking_linesearch` set `store_grad=True`.

    >>> def loss(x):
    ...     return jnp.sum((x - 1.0) ** 2)
    >>> tx = gradtx.lbfgs()
    >>> params = jnp.asarray([3.0, -1.0])
    >>> state = tx.init(params)
    >>> for _ in range(3):
    ...     value, grad = gradtx.value_and_grad_from_state(loss)(params, state=state)
    ...     params, state = tx.step(grad, state, params, value=value, grad=grad, value_fn=loss)
    >>> bool(jnp.allclose(params, 1.0))
    True
    """
    if not callable(value_fn):
        raise TypeError(f"value_fn must be a function, got {value_fn!r}")

    def value_and_grad(
        params: Params, *args: Any, state: State, **kwargs: Any
    ) -> tuple[jax.Array, Updates]:
        found = [s for s in _searches_in(state) if s.grad is not None]
        if len(found) != 1:
            raise ValueError(
                f"the state holds {len(found)} values with their gradients, and must hold one: "
                "use lbfgs, scale_by_zoom_linesearch, or "
                "scale_by_backtracking_linesearch(store_grad=True)"
            )
        (search,) = found

        def evaluate() -> tuple[jax.Array, Updates]:
            value, gradient = value_and_gradient(lambda p: value_fn(p, *args, **kwargs), params)
            grad = narrow(gradient(), like=search.grad)
            return value.astype(search.value.dtype), grad

        known = jnp.isfinite(search.value)
        value, grad = jax.lax.cond(known, lambda: (search.value, search.grad), evaluate)
        return value, grad

    return value_and_grad


def _searches_in(state: State) -> Iterator[Any]:
    fields = getattr(state, "_fields", ())
    if {"value", "grad", "learning_rate"} <= set(fields):
        yield state
    elif isinstance(state, tuple | list):
        for inner in state:
            yield from _searches_in(inner)
    elif isinstance(state, dict):
        for inner in state.values():
            yield from _searches_in(inner)
