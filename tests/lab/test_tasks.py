import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.lab.problems import LANDSCAPES
from gradtx.lab.tasks import TASKS, digits_task, landscape_task


def test_every_task_of_the_issue_is_there():
    assert set(TASKS) == {"digits", "text", *LANDSCAPES}
    assert {"quadratic", "saddle", "rosenbrock", "beale", "local-minimum"} == set(LANDSCAPES)


@pytest.mark.parametrize(("name", "chance"), [("digits", np.log(10)), ("text", np.log(103))])
def test_networks_start_near_chance(name, chance):
    task = TASKS[name]()
    assert task.name == name
    params = task.init(jax.random.key(0))
    few = jax.tree.map(lambda x: x[:32], task.split.validation)
    losses, accuracies = jax.jit(task.score)(params, few)
    assert losses.shape == accuracies.shape == (32,)
    assert jnp.mean(losses) == pytest.approx(chance, rel=0.3)
    assert accuracies.min() >= 0 and accuracies.max() <= 1 and accuracies.mean() < 0.5


def test_initial_parameters_follow_the_key():
    task = digits_task()
    first, again, other = (jax.tree.leaves(task.init(jax.random.key(k)))[1] for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", LANDSCAPES)
def test_a_landscape_is_its_function(name):
    task = TASKS[name]()
    params = task.init(jax.random.key(0))
    losses, accuracies = task.score(params, task.split.train)
    np.testing.assert_allclose(losses, [LANDSCAPES[name].function(params)])
    assert accuracies is None and not task.has_data and task.size == 1


def test_size_counts_training_examples():
    assert digits_task().size == 1280
    assert landscape_task(LANDSCAPES["beale"]).size == 1
