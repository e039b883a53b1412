"""Minimising a function: the loop around a transformation, compiled as one `while_loop`."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.apply import apply_updates
from gradtx.core.compiled import call_compiled
from gradtx.core.compose import chain
from gradtx.core.composed import Composed
from gradtx.core.hyper import check_nonnegative, check_steps
from gradtx.core.leaf import is_optimised, path_of, real_dtype_of, with_others_of
from gradtx.core.slot import Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.linesearch.backtracking import scale_by_backtracking_linesearch
from gradtx.linesearch.common import conjugate, value_and_gradient
from gradtx.linesearch.zoom import scale_by_zoom_linesearch
from gradtx.optimizers.lbfgs import lbfgs


class Status(enum.IntEnum):
    """Why `minimize` stopped.

    >>> gradtx.Status(0)
    <Status.CONVERGED: 0>
    """

    CONVERGED = 0
    MAX_STEPS = 1
    STALLED = 2
    NON_FINITE = 3


_RUNNING = -1


class MinimizeResult(NamedTuple):
    """What `minimize` found.

    Attributes:
      params: the parameters with the lowest value that was met.
      value: the function there, float32 or wider.
      grad_norm: the largest modulus of an entry of the gradient there; under bounds, of
        x - project(x - gradient).
      steps: the number of steps that were made, int32.
      status: a `Status`; under a JAX transformation its number, as int32.
    """

    params: Any
    value: Any
    grad_norm: Any
    steps: Any
    status: Any


def minimize(
    fn: Callable[..., Any],
    x0: Params,
    tx: Any = lbfgs(),  # noqa: B008  an immutable value
    *,
    args: tuple[Any, ...] = (),
    bounds: tuple[Any, Any] | None = None,
    tol: float = 1e-5,
    max_steps: int = 1000,
    patience: int = 100,
) -> MinimizeResult:
    """Minimises `fn(x, *args)` from `x0` with any transformation.

    Stops when the largest entry of the gradient is at most `tol`, or after `max_steps`, or
    when `patience` steps in a row have found neither a lower value nor a smaller gradient (in
    float32 the gradient may never get below `tol`), or where the function is not finite. The
    answer is the best point that was met in any case. The transformation gets the extra
    arguments `value`, `grad` and `value_fn`, and complex parameters' gradients conjugated.

    The loop is compiled once for each `fn`, `tx` and shapes: pass data by `args` rather than in
    a new function each time. It works under `jit`, `vmap` and `jax.jvp`, not in reverse mode.

    Under bounds every point at which `fn` is evaluated is in the box, and so is the answer;
    a start outside is moved in. After a step the parameters are projected onto the box. For
    gradient descent that is the projected gradient method; for a direction that is not the
    gradient, projection alone may lead uphill. For L-BFGS the method is therefore
    two-metric projection: entries at a bound (or nearer to it than the smaller of 1e-3 and the
    stopping measure) whose gradient pushes them against it follow the scaled gradient, and the
    quasi-Newton direction is that of the others. It then leads downhill along the projected
    path, on which the search looks for sufficient decrease. Bertsekas proves convergence with
    Armijo's backtracking; the Wolfe search tests its slope along the path, which has kinks,
    and may end with sufficient decrease only. Other transformations, such as Adam, are
    projected after each step, without any guarantee beyond feasibility.

    Sources: Bertsekas, "Projected Newton methods for optimization problems with simple
    constraints", 1982; Schmidt, van den Berg, Friedlander, Murphy, "Optimizing costly functions
    with simple constraints: a limited-memory projected quasi-Newton algorithm", 2009; Nocedal,
    Wright, "Numerical optimization", 2nd edition, 2006, Algorithm 7.5.

    Args:
      fn: called as `fn(x, *args)`; returns a real number of shape ().
      x0: tree of parameters to start from; leaves that are not inexact stay as they are.
      tx: a gradtx transformation or any `(init, update)` pair.
      args: further arguments of `fn`; trees of arrays.
      bounds: `(lower, upper)`, each `None`, a number, or a tree like `x0` or a prefix of it,
        with entries that broadcast to the parameters; infinite ones do not bind. Real
        parameters only.
      tol: for the largest entry of the gradient, >= 0.
      max_steps: >= 0.
      patience: >= 1.

    Returns:
      A `MinimizeResult` of params, value, grad_norm, steps and status.

    Raises:
      TypeError, ValueError: an argument is of the wrong kind or out of its range; a lower bound
        is above an upper one; `fn` does not return a single real number.

    >>> def rosenbrock(x):
    ...     return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2
    >>> result = gradtx.minimize(rosenbrock, jnp.zeros(2), tol=1e-3)
    >>> result.status, bool(jnp.allclose(result.params, 1.0, atol=1e-2))
    (<Status.CONVERGED: 0>, True)
    >>> gradtx.minimize(rosenbrock, jnp.zeros(2), bounds=(None, 0.5), tol=1e-3).params
    Array([0.5 , 0.25], dtype=float32)
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function, got {fn!r}")
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {args!r}")
    tx = as_transformation(tx)
    check_nonnegative("tol", tol)
    check_steps("max_steps", max_steps)
    check_steps("patience", patience, low=1)
    box = None if bounds is None else _box(bounds, x0)
    x0, args = jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, float | complex) else x, (x0, args)
    )
    limits = jnp.asarray(tol), jnp.int32(max_steps), jnp.int32(patience)
    found: MinimizeResult = call_compiled(_solve, fn, tx, x0, args, box, *limits)
    traced = isinstance(found.status, jax.core.Tracer)
    return found._replace(
        params=with_others_of(x0, found.params),
        status=found.status if traced else Status(int(found.status)),
    )


class _Run(NamedTuple):
    params: Params
    state: State
    value: jax.Array
    grad: Updates
    best: Params
    best_value: jax.Array
    best_norm: jax.Array
    least_norm: jax.Array
    steps: jax.Array
    idle: jax.Array
    status: jax.Array


def _solve(
    fn: Callable[..., Any],
    tx: GradientTransformation,
    x0: Params,
    args: tuple[Any, ...],
    box: Any,
    tol: jax.Array,
    max_steps: jax.Array,
    patience: jax.Array,
) -> MinimizeResult:
    dtype = real_dtype_of(x0)
    whole = x0
    x0 = jax.tree.map(lambda x: x if is_optimised(x) else None, x0)
    tol = tol.astype(dtype)

    def loss(x: Params) -> Any:
        return fn(with_others_of(whole, x), *args)

    def project(x: Params) -> Params:
        return x if box is None else _with_optimised(x, _projected, box)

    def inside(x: Params) -> Any:
        return loss(project(x))

    def evaluate(x: Params) -> tuple[jax.Array, Updates]:
        value, gradient = value_and_gradient(loss, x, "fn")
        return value, conjugate(gradient())

    def measured(x: Params, grad: Updates) -> jax.Array:
        return _largest(grad if box is None else _with_optimised(grad, _reduced, x, box), dtype)

    def judge(run: _Run, norm: jax.Array) -> _Run:
        finite = jnp.isfinite(run.value) & jnp.isfinite(norm)
        slack = 4 * jnp.finfo(dtype).eps * jnp.abs(run.best_value)  # type: ignore[no-untyped-call]
        lower = run.value < run.best_value
        as_low = (run.value <= run.best_value + slack) & (norm < run.best_norm)
        better = finite & (lower | as_low)
        idle = jnp.where(finite & (lower | (norm < run.least_norm)), 0, run.idle + 1)
        status = jnp.full((), _RUNNING, jnp.int32)
        for condition, name in (
            (run.steps >= max_steps, Status.MAX_STEPS),
            (idle >= patience, Status.STALLED),
            (norm <= tol, Status.CONVERGED),
            (~finite, Status.NON_FINITE),
        ):
            status = jnp.where(condition, jnp.int32(name), status)
        return run._replace(
            best=jax.tree.map(lambda new, old: jnp.where(better, new, old), run.params, run.best),
            best_value=jnp.where(better, run.value, run.best_value),
            best_norm=jnp.where(better, norm, run.best_norm),
            least_norm=jnp.where(finite, jnp.minimum(norm, run.least_norm), run.least_norm),
            idle=idle,
            status=status,
        )

    def step(run: _Run) -> _Run:
        point = tx.lookahead_point(run.state, run.params)
        same = jax.tree.leaves(point) == [] or all(
            a is b for a, b in zip(jax.tree.leaves(point), jax.tree.leaves(run.params), strict=True)
        )
        gradient = run.grad if same else evaluate(project(point))[1]
        extra_args = {"value": run.value, "grad": gradient, "value_fn": inside}
        if box is not None:
            free = _free(run.params, gradient, box)
            extra_args |= {
                "free": free,
                "grad": jax.tree.map(lambda g, f: jnp.where(f, g, 0), gradient, free),
            }
        updates, state = tx.update(gradient, run.state, run.params, **extra_args)
        params = project(apply_updates(run.params, updates))
        known = _evaluated(tx, state) if box is None else None
        value, grad = evaluate(params) if known is None else known
        moved = run._replace(
            params=params, state=state, value=value, grad=grad, steps=run.steps + 1
        )
        return judge(moved, measured(params, grad))

    x0 = project(x0)
    value, grad = evaluate(x0)
    norm = measured(x0, grad)
    zero, infinite = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, dtype)
    running = jnp.full((), _RUNNING, jnp.int32)
    start = _Run(x0, tx.init(x0), value, grad, x0, value, norm, infinite, zero, zero, running)
    first = judge(start, norm)
    last = jax.lax.while_loop(lambda run: run.status == _RUNNING, step, first)
    return MinimizeResult(last.best, last.best_value, last.best_norm, last.steps, last.status)


def _evaluated(tx: GradientTransformation, state: State) -> tuple[jax.Array, Updates] | None:
    """The value and the gradient where the step ends, if `tx` ends in a search that has them."""
    while isinstance(tx, Composed | chain):
        if isinstance(tx, Composed):
            tx = tx._composition
        elif not tx.transforms:
            return None
        else:
            tx, state = tx.transforms[-1], state[-1]
    searches = scale_by_zoom_linesearch, scale_by_backtracking_linesearch
    if not isinstance(tx, searches) or state.grad is None:
        return None
    return state.value, conjugate(state.grad)


def _with_optimised(tree: Any, change: Callable[..., Any], *others: Any) -> Any:
    """The tree, with `change` applied to its optimised leaves and the leaves of `others`."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_none)
    columns = [jax.tree.leaves(x, is_leaf=_is_none_or_pair) for x in others]
    changed = [
        change(leaf, *(column[i] for column in columns)) if is_optimised(leaf) else leaf
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, changed)


class _Interval(NamedTuple):
    lower: Any
    upper: Any


def _is_none(x: Any) -> bool:
    return x is None


def _is_none_or_pair(x: Any) -> bool:
    return x is None or isinstance(x, _Interval)


def _projected(x: jax.Array, box: _Interval | None) -> jax.Array:
    if box is None:
        return x
    # By `where`, so that the derivative on a bound is that inside, and not half of it.
    low, high = _ends(box, x)
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def _ends(box: _Interval, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    low, high = (jnp.broadcast_to(jnp.asarray(b, x.dtype), x.shape) for b in box)
    return low, high


def _reduced(grad: jax.Array, x: jax.Array, box: _Interval) -> jax.Array:
    """The step to project(x - grad), negated: exactly the gradient where no bound is in the way."""
    x = x.astype(grad.dtype)
    low, high = _ends(box, x)
    return jnp.where(x - grad < low, x - low, jnp.where(x - grad > high, x - high, grad))


def _free(x: Params, grad: Updates, box: Any) -> Any:
    """Which entries no bound holds: Bertsekas' set, whose margin vanishes at a solution."""
    reduced = _with_optimised(grad, _reduced, x, box)
    margin = jnp.minimum(_largest(reduced, real_dtype_of(x)), 1e-3)

    def free(grad: jax.Array, x: jax.Array, box: _Interval) -> jax.Array:
        x = x.astype(grad.dtype)
        low, high = _ends(box, x)
        near = margin.astype(grad.dtype)
        held = ((x <= low + near) & (grad > 0)) | ((x >= high - near) & (grad < 0))
        return ~held

    return _with_optimised(grad, free, x, box)


def _largest(tree: Updates, dtype: Any) -> jax.Array:
    entries = [
        jnp.max(jnp.abs(x), initial=0).astype(dtype)
        for x in jax.tree.leaves(tree)
        if is_optimised(x)
    ]
    return functools.reduce(jnp.maximum, entries, jnp.zeros((), dtype))


def _box(bounds: Any, x0: Params) -> Any:
    """The bounds as one list of intervals, one for each leaf of `x0`."""
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise TypeError(f"bounds must be a pair (lower, upper), got {bounds!r}")
    lower, upper = (
        _spread(bound, x0, name, unbounded)
        for bound, name, unbounded in zip(
            bounds, ("lower", "upper"), (-np.inf, np.inf), strict=True
        )
    )
    leaves = jax.tree.leaves(x0, is_leaf=_is_none)
    box: list[Any] = []
    for i, (x, low, high) in enumerate(zip(leaves, lower, upper, strict=True)):
        if not is_optimised(x):
            box.append(None)
            continue
        where = f"bounds of x0{path_of(x0, i)}"
        if jnp.iscomplexobj(x) and not (np.shape(low) == np.shape(high) == () and _open(low, high)):
            raise ValueError(f"{where}: a complex parameter has no bounds")
        for end in (low, high):
            trailing = np.shape(x)[max(np.ndim(x) - np.ndim(end), 0) :]
            fits = all(n in (1, m) for n, m in zip(np.shape(end), trailing, strict=False))
            if np.ndim(end) > np.ndim(x) or not fits:
                raise ValueError(f"{where} have shape {np.shape(end)}, but x0 has {np.shape(x)}")
        concrete = not any(isinstance(end, jax.core.Tracer) for end in (low, high))
        if concrete and not np.all(np.asarray(low) <= np.asarray(high)):
            raise ValueError(f"{where}: lower must be at most upper, got {low} and {high}")
        box.append(None if jnp.iscomplexobj(x) else _Interval(_as_array(low), _as_array(high)))
    return box


def _as_array(end: Any) -> Any:
    return end if hasattr(end, "dtype") else np.asarray(end, float)


def _open(low: Any, high: Any) -> bool:
    return bool(np.isneginf(low)) and bool(np.isposinf(high))


def _spread(bound: Any, x0: Params, name: str, unbounded: float) -> list[Any]:
    def spread(b: Any, subtree: Any) -> Any:
        b = unbounded if b is None else b
        return jax.tree.map(lambda _: b, subtree, is_leaf=_is_none)

    try:
        full = jax.tree.map(spread, bound, x0, is_leaf=_is_none)
    except ValueError as error:
        raise ValueError(
            f"the {name} bounds must be a number, or have the structure of x0 or a prefix of it: "
            f"{error}"
        ) from error
    return jax.tree.leaves(full)
