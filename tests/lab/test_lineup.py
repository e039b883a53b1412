import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.lab.lineup import DEFAULT, FACTORS, LECTURE, enter, names, try_out
from gradtx.parse import ParseError

RATES = (0.1, 0.2)


def test_the_lecture_s_six_and_adamw_run_by_default():
    assert DEFAULT == ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
    assert LECTURE["adagrad"].initial_accumulator_value == 0.0
    assert not LECTURE["adagrad"].eps_in_sqrt and not LECTURE["rmsprop"].eps_in_sqrt
    assert LECTURE["momentum"].momentum == LECTURE["nesterov"].momentum == 0.9


def test_every_public_optimizer_has_its_name_and_no_stage_has():
    public = {"adamw", "nadam", "nadamw", "adamax", "adamaxw", "amsgrad", "classical_momentum"}
    assert public < set(names())
    assert not {"scale", "scale_by_learning_rate", "clip", "chain", "trace"} & set(names())


@pytest.mark.parametrize("name", names())
def test_every_name_builds_and_steps(name):
    entrant = enter(name, RATES)
    assert entrant.grid == RATES and not entrant.is_factor
    assert entrant.build(0.2).learning_rate == 0.2
    try_out(entrant, {"w": jnp.ones((2, 3))})


def test_a_constant_rate_stands_in_the_middle_of_its_grid():
    entrant = enter("adam(2e-3)", RATES)
    assert entrant.grid[len(FACTORS) // 2] == 2e-3 and not entrant.is_factor
    assert entrant.build(0.5) == gradtx.adam(0.5)
    assert entrant.show(0.5) == "0.5"


@pytest.mark.parametrize(
    "text", ["chain(clip(1.0), sgd(0.1))", "sgd(linear_schedule(0.1, 0.0, 10))"]
)
def test_without_a_constant_rate_the_updates_are_multiplied(text):
    entrant = enter(text, RATES)
    assert entrant.grid == FACTORS and entrant.is_factor
    assert entrant.show(3.0) == "x 3"
    params = jnp.asarray([1.0, -2.0])
    grads = jnp.asarray([0.5, 0.25])

    def move(tx):
        return tx.update(grads, tx.init(params), params)[0]

    np.testing.assert_allclose(
        move(entrant.build(3.0)), 3.0 * move(entrant.transformation), rtol=1e-6
    )


def test_unknown_names_are_told_their_neighbours():
    with pytest.raises(ParseError, match=r"unknown optimizer 'momentun'; did you mean momentum"):
        enter("momentun", RATES)


def test_what_cannot_train_the_parameters_is_refused_before_it_runs():
    entrant = enter("masked(adam(1e-3), {'a': True})", RATES)
    with pytest.raises(ParseError, match="cannot train this task") as caught:
        try_out(entrant, {"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert len(str(caught.value).splitlines()) == 1
