import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.lab import data
from gradtx.lab.lineup import Entrant, enter
from gradtx.lab.race import run_entrant, state_bytes_per_parameter
from gradtx.lab.tasks import Scores, Task


def regression(**settings):
    """Fit y = 2 x by one weight: five examples, so that batches of two leave a short one."""
    x = jnp.asarray([-1.0, -0.5, 0.25, 0.5, 1.0])
    split = data.Split(x, x[:3], x[2:])

    def score(params, x):
        errors = (params["w"] - 2.0) * x
        return Scores(errors**2, (jnp.abs(errors) < 0.1).astype(errors.dtype))

    return Task(
        "regression", "y = 2 x", lambda key: {"w": jnp.zeros(())}, score, split,
        evaluate_every=4, **settings,
    )  # fmt: skip


def test_the_grid_is_the_same_as_one_run_for_each_rate_by_hand():
    task, rates, steps = regression(), (0.05, 0.1), 11
    result = run_entrant(enter("momentum", rates), task, steps, batch_size=2, seed=3)
    key = jax.random.split(jax.random.key(3))[1]
    for rate, reported in result.grid:
        w, v = 0.0, 0.0
        for number in range(steps):
            batch = data.minibatch(key, number // 3, number % 3, 5, 2)
            x = np.asarray(task.split.train[batch.indices])[np.asarray(batch.weights) == 1]
            v = 0.9 * v + np.mean(2 * (w - 2.0) * x**2)
            w -= rate * v
        validation = np.mean(((w - 2.0) * np.asarray(task.split.validation)) ** 2)
        assert reported == pytest.approx(validation, rel=1e-4)
    assert result.best.rate == min(result.grid, key=lambda point: point[1])[0]


def test_curves_cover_every_step_and_progress_is_told():
    told = []
    task = regression()
    result = run_entrant(enter("sgd", (0.1,)), task, 10, 5, on_progress=told.append)
    curve = result.best.curve
    assert curve.steps == [0, 4, 8, 10] and told == [4, 4, 2]
    w, losses, validations, accuracies = 0.0, [], [], []
    x, y = np.asarray(task.split.train), np.asarray(task.split.validation)
    for number in range(11):
        if number in curve.steps:
            validations.append(np.mean(((w - 2) * y) ** 2))
            accuracies.append(np.mean(np.abs((w - 2) * y) < 0.1))
        losses.append(np.mean(((w - 2) * x) ** 2))
        w -= 0.1 * np.mean(2 * (w - 2) * x**2)
    means = [losses[0], *(np.mean(losses[a:b]) for a, b in ((0, 4), (4, 8), (8, 10)))]
    np.testing.assert_allclose(curve.train_loss, means, rtol=1e-5)
    np.testing.assert_allclose(curve.validation_loss, validations, rtol=1e-5)
    np.testing.assert_allclose(curve.validation_accuracy, accuracies)


def test_the_best_is_reported_with_test_accuracy_and_steps_to_target():
    result = run_entrant(enter("sgd", (1e-4, 0.5)), regression(), 40, 5)
    assert result.best.rate == 0.5 and result.best.shown_rate == "0.5"
    assert result.best.transformation == "sgd(learning_rate=0.5)"
    assert result.best.test_accuracy == 1.0
    accuracy = dict(
        zip(result.best.curve.steps, result.best.curve.validation_accuracy, strict=True)
    )
    reached = result.best.steps_to_target
    assert accuracy[reached] >= 0.95
    assert all(a < 0.95 for step, a in accuracy.items() if step < reached)
    assert result.seconds_per_step > 0


def test_accuracy_is_that_of_the_test_examples():
    # After one step the weight is 1, so that an example is met where |x| < 0.1.
    task = regression()
    split = data.Split(jnp.ones(4), jnp.ones(4), jnp.asarray([0.01, 0.02, 0.03, 1.0]))
    tested = dataclasses.replace(task, split=split)
    result = run_entrant(enter("sgd", (0.25,)), tested, 1, 4)
    assert result.best.test_accuracy == 0.75
    assert result.best.curve.validation_accuracy == [0.0, 0.0]


def test_diverged_rates_do_not_win():
    result = run_entrant(enter("sgd", (1e30, 0.5, 1e30)), regression(), 40, 5)
    assert result.best.rate == 0.5
    assert [math.isfinite(loss) for _, loss in result.grid] == [False, True, False]


def test_where_all_rates_diverge_there_is_no_best():
    result = run_entrant(enter("sgd", (1e30, 1e31)), regression(), 40, 5)
    assert result.best is None and len(result.grid) == 2


def test_a_target_never_reached_is_none():
    assert run_entrant(enter("sgd", (1e-4,)), regression(), 4, 5).best.steps_to_target is None


def test_gradients_are_taken_at_the_lookahead_point():
    ahead = gradtx.nesterov_momentum(0.1, 0.9, lookahead=True)
    entrant = Entrant("nesterov", ahead, (0.1,), is_factor=False)
    result = run_entrant(entrant, regression(), 3, 5)
    x, w, v = np.asarray(regression().split.train), 0.0, 0.0
    for _ in range(3):
        v = 0.9 * v - 0.1 * np.mean(2 * (w + 0.9 * v - 2.0) * x**2)
        w += v
    validation = np.mean(((w - 2.0) * np.asarray(regression().split.validation)) ** 2)
    assert result.grid[0][1] == pytest.approx(validation, rel=1e-5)


def test_same_seed_same_result_other_seed_another():
    def losses(seed):
        return run_entrant(enter("adam", (0.01,)), regression(), 3, 2, seed).grid

    assert losses(0) == losses(0) != losses(1)


def test_one_trace_trains_the_whole_grid():
    task, traces = regression(), []

    def score(params, x):
        traces.append(None)
        return task.score(params, x)

    counted = dataclasses.replace(task, score=score)
    for rates in ((0.1,), tuple(np.linspace(0.01, 0.2, 9).tolist())):
        traces.clear()
        run_entrant(enter("adam", rates), counted, 12, 5)
        assert len(traces) <= 4  # training, two sizes of scoring, and JAX's own retracing


def test_state_bytes_count_what_the_optimizer_keeps():
    params = {"w": jnp.zeros((4, 5)), "b": jnp.zeros(5)}
    assert state_bytes_per_parameter(gradtx.sgd(0.1), params) == 0
    assert state_bytes_per_parameter(gradtx.adam(0.1), params) == pytest.approx(8 + 4 / 25)
