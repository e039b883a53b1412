"""The lecture's landscapes: functions of two numbers on which optimizers can be watched.

All are at least 0, and 0 at their minima, so that a value is also a distance to the best one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gradtx


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A function of a point `[x, y]`, and how to look at it.

    Attributes:
      name: what the race calls it.
      function: from an array of shape (2,) to a number.
      start: where a path begins.
      minima: the points where the function is 0.
      window: the part that a picture shows, `(left, right, bottom, top)`.
    """

    name: str
    function: Callable[[jax.Array], jax.Array]
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...]
    window: tuple[float, float, float, float]


class Path(NamedTuple):
    """Where an optimizer went: `points` of shape (steps + 1, 2), and `values` there."""

    points: jax.Array
    values: jax.Array


def quadratic(point: jax.Array) -> jax.Array:
    """(x^2 + 30 y^2) / 2: thirty times as steep across the valley as along it."""
    x, y = point[0], point[1]
    return 0.5 * (x**2 + 30.0 * y**2)


def local_minimum(point: jax.Array) -> jax.Array:
    """x^4/4 - x^3/3 - x^2 + 8/3 + y^2/2: a shallow minimum at x = -1, the best at x = 2.

    Its slope along x is (x + 1) x (x - 2), so the two are separated by a ridge at x = 0,
    5/12 above the shallow one.
    """
    x, y = point[0], point[1]
    return x**4 / 4.0 - x**3 / 3.0 - x**2 + 8.0 / 3.0 + 0.5 * y**2


def saddle(point: jax.Array) -> jax.Array:
    """x^2 / 2 + (y^2 - 1)^2 / 4: a saddle point at the origin between minima at y = -1 and 1."""
    x, y = point[0], point[1]
    return 0.5 * x**2 + 0.25 * (y**2 - 1.0) ** 2


def rosenbrock(point: jax.Array) -> jax.Array:
    """(1 - x)^2 + 100 (y - x^2)^2: a bent valley with a nearly flat floor (Rosenbrock, 1960)."""
    x, y = point[0], point[1]
    return (1.0 - x) ** 2 + 100.0 * (y - x**2) ** 2


def beale(point: jax.Array) -> jax.Array:
    """The sum of (c_k - x (1 - y^k))^2 for c = 1.5, 2.25, 2.625 and k = 1, 2, 3 (Beale, 1958)."""
    x, y = point[0], point[1]
    return (
        (1.5 - x * (1.0 - y)) ** 2
        + (2.25 - x * (1.0 - y**2)) ** 2
        + (2.625 - x * (1.0 - y**3)) ** 2
    )


LANDSCAPES = {
    landscape.name: landscape
    for landscape in (
        Landscape("quadratic", quadratic, (-9.0, 2.2), ((0.0, 0.0),), (-10.0, 3.0, -3.4, 3.4)),
        Landscape(
            "local-minimum", local_minimum, (-2.2, 1.0), ((2.0, 0.0),), (-2.6, 3.2, -1.6, 1.6)
        ),
        Landscape(
            "saddle", saddle, (-1.6, 0.001), ((0.0, 1.0), (0.0, -1.0)), (-1.9, 1.3, -0.7, 1.6)
        ),
        Landscape("rosenbrock", rosenbrock, (-1.2, 1.0), ((1.0, 1.0),), (-2.0, 2.0, -1.0, 3.0)),
        Landscape("beale", beale, (1.0, 1.5), ((3.0, 0.5),), (-1.0, 4.5, -2.0, 2.0)),
    )
}


def trace_path(tx: gradtx.GradientTransformation, landscape: Landscape, steps: int) -> Path:
    """The path of `tx` from the landscape's start over `steps` steps.

    Args:
      tx: the optimizer; its gradients are taken at `tx.lookahead_point(state, params)`.
      landscape: where it walks.
      steps: how many steps, >= 0.

    >>> path = trace_path(gradtx.sgd(0.01), LANDSCAPES["quadratic"], steps=3)
    >>> path.points.shape, path.values.shape
    ((4, 2), (4,))
    """
    start = jnp.asarray(landscape.start)

    def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], jax.Array]:
        point, state = carry
        grads = jax.grad(landscape.function)(tx.lookahead_point(state, point))
        point, state = tx.step(grads, state, point)
        return (point, state), point

    _, points = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    points = jnp.concatenate([start[None], points])
    return Path(points, jax.vmap(landscape.function)(points))
