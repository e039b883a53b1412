"""Training one entrant with its whole grid of learning rates, in one compiled program."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx.lab import data
from gradtx.lab.lineup import Entrant
from gradtx.lab.tasks import Scores, Task

TARGET_ACCURACY = 0.95


@dataclasses.dataclass(frozen=True)
class Curve:
    """What was seen along one run, at the step counts `steps`, of which the first is 0.

    Attributes:
      steps: when the validation examples were scored.
      train_loss: mean loss of the batches since the look before; at 0 that of the first batch.
      validation_loss: mean loss over all validation examples.
      validation_accuracy: likewise, or `None` where the task has no accuracy.
    """

    steps: list[int]
    train_loss: list[float]
    validation_loss: list[float]
    validation_accuracy: list[float] | None


@dataclasses.dataclass(frozen=True)
class Best:
    """The run with the lowest validation loss after its last step.

    Attributes:
      rate: its point of the grid.
      shown_rate: the point as a reader wants to see it.
      transformation: the code that builds the optimizer at that point.
      validation_loss: after the last step.
      test_accuracy: after the last step; `None` where the task has no accuracy.
      steps_to_target: the first look with `TARGET_ACCURACY` on validation; `None` if never.
      curve: what was seen along the run.
    """

    rate: float
    shown_rate: str
    transformation: str
    validation_loss: float
    test_accuracy: float | None
    steps_to_target: int | None
    curve: Curve


@dataclasses.dataclass(frozen=True)
class Result:
    """How an entrant did.

    Attributes:
      label: the entrant's.
      best: its best run, or `None` if every point of the grid diverged.
      state_bytes_per_parameter: what the optimizer keeps from step to step.
      seconds_per_step: of all points of the grid together, without compilation.
      grid: each point with its last validation loss, which is not finite if it diverged.
    """

    label: str
    best: Best | None
    state_bytes_per_parameter: float
    seconds_per_step: float
    grid: list[tuple[float, float]]


def run_entrant(
    entrant: Entrant,
    task: Task,
    steps: int,
    batch_size: int,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda steps: None,
) -> Result:
    """Trains at every point of the grid at once.

    All points, and all entrants, start from the same parameters and see the same batches.

    Args:
      entrant: the optimizer and its grid.
      task: what to train.
      steps: number of steps, >= 1.
      batch_size: examples in a batch, from 1 to `task.size`.
      seed: decides the initial parameters and the batches.
      on_progress: called after each compiled piece with the number of steps that it took.
    """
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    start = task.init(init_key)
    grid = jnp.asarray(entrant.grid)
    params = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(grid), *x.shape)), start)
    state = jax.vmap(lambda rate, params: entrant.build(rate).init(params))(grid, params)
    train = _trainer(entrant, task, batch_size)
    score = _scorer(task)

    looks = [0]
    scores = [score(params, task.split.validation)]
    losses: list[jax.Array] = []
    durations: list[float] = []
    compiled: dict[int, Any] = {}
    for first in range(0, steps, task.evaluate_every):
        length = min(task.evaluate_every, steps - first)
        arguments = (grid, params, state, task.split.train, batch_key, jnp.asarray(first))
        if length not in compiled:  # ahead of time, so that no duration holds a compilation
            compiled[length] = train.lower(*arguments, length=length).compile()
        begin = time.perf_counter()
        params, state, piece = compiled[length](*arguments)
        piece.block_until_ready()
        durations.append((time.perf_counter() - begin) / length)
        losses += [piece[:, :1]] * (first == 0) + [piece]
        looks.append(first + length)
        scores.append(score(params, task.split.validation))
        on_progress(length)

    last = [float(loss) for loss in scores[-1].losses]
    return Result(
        label=entrant.label,
        best=_best(entrant, looks, losses, scores, score(params, task.split.test)),
        state_bytes_per_parameter=state_bytes_per_parameter(entrant.transformation, start),
        seconds_per_step=statistics.median(durations),
        grid=list(zip(entrant.grid, last, strict=True)),
    )


def state_bytes_per_parameter(tx: Any, params: Any) -> float:
    """Bytes that the state of `tx` holds, divided by the number of parameters.

    >>> state_bytes_per_parameter(gradtx.sgd(0.1, momentum=0.9), jnp.zeros(100))
    4.0
    """
    state = jax.eval_shape(tx.init, params)
    count: int = sum(leaf.size for leaf in jax.tree.leaves(params))
    size: int = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return size / count


def _trainer(entrant: Entrant, task: Task, batch_size: int) -> Any:
    """The compiled piece of training: `length` steps at every point of the grid."""
    per_epoch = data.batches_per_epoch(task.size, batch_size)

    def at_one_point(
        length: int,
        rate: jax.Array,
        params: Any,
        state: Any,
        train: Any,
        key: jax.Array,
        first: Any,
    ) -> Any:
        tx = entrant.build(rate)

        def step(carry: tuple[Any, Any], number: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            params, state = carry
            epoch, index = number // per_epoch, number % per_epoch
            batch = data.minibatch(key, epoch, index, task.size, batch_size)
            examples = data.take(train, batch)

            def loss(params: Any) -> jax.Array:
                return data.weighted_mean(task.score(params, examples).losses, batch)

            value, grads = jax.value_and_grad(loss)(tx.lookahead_point(state, params))
            return tx.step(grads, state, params), value

        (params, state), losses = jax.lax.scan(step, (params, state), first + jnp.arange(length))
        return params, state, losses

    @functools.partial(jax.jit, static_argnames="length", donate_argnums=(1, 2))
    def at_all_points(
        grid: jax.Array,
        params: Any,
        state: Any,
        train: Any,
        key: jax.Array,
        first: Any,
        *,
        length: int,
    ) -> Any:
        at_point = functools.partial(at_one_point, length)
        return jax.vmap(at_point, (0, 0, 0, None, None, None))(
            grid, params, state, train, key, first
        )

    return at_all_points


@functools.cache
def _scorer(task: Task) -> Callable[[Any, Any], Scores]:
    """Mean scores over all examples, for each point of the grid."""

    def mean_scores(params: Any, examples: Any) -> Scores:
        means: Scores = jax.tree.map(jnp.mean, task.score(params, examples))
        return means

    return jax.jit(jax.vmap(mean_scores, (0, None)))


def _best(
    entrant: Entrant,
    looks: list[int],
    losses: list[jax.Array],
    validation: list[Scores],
    test: Scores,
) -> Best | None:
    def ranking(point: int) -> float:
        loss = float(validation[-1].losses[point])
        return loss if math.isfinite(loss) else math.inf

    point = min(range(len(entrant.grid)), key=ranking)
    if ranking(point) == math.inf:
        return None
    accuracy = None
    if test.accuracies is not None:
        accuracy = [float(s.accuracies[point]) for s in validation if s.accuracies is not None]
    reached = [n for n, a in zip(looks, accuracy or [], strict=False) if a >= TARGET_ACCURACY]
    rate = entrant.grid[point]
    return Best(
        rate=rate,
        shown_rate=entrant.show(rate),
        transformation=repr(entrant.build(rate)),
        validation_loss=ranking(point),
        test_accuracy=None if test.accuracies is None else float(test.accuracies[point]),
        steps_to_target=min(reached, default=None),
        curve=Curve(
            steps=looks,
            train_loss=[float(jnp.mean(piece[point])) for piece in losses],
            validation_loss=[float(s.losses[point]) for s in validation],
            validation_accuracy=accuracy,
        ),
    )
