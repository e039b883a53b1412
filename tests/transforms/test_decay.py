"""Weight decay: constant, scheduled, masked."""

import pickle

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, Problem, check_double, constant, falling, few

PARAMS = {"w": jnp.asarray([[1.0, 2.0]]), "b": jnp.asarray([3.0])}
UPDATES = {"w": jnp.asarray([[0.5, 0.5]]), "b": jnp.asarray([0.5])}


def decayed(problem, decay):
    """L2 regularisation: the decay goes through the momentum."""
    x, v, xs = problem.x0, 0.0, []
    for t in range(STEPS):
        v = 0.9 * v + problem.grad(x) + decay(t) * x
        x = x - 0.02 * v
        xs.append(x)
    return xs


@few
@given(seed=st.integers(0, 10**6), rate=st.floats(0.0, 0.5))
def test_constant_and_scheduled(seed, rate):
    problem = Problem(seed)
    sgd = gradtx.sgd(0.02, 0.9)
    tx = gradtx.chain(gradtx.add_decayed_weights(rate), sgd)
    check_double(tx, problem, decayed(problem, constant(rate)))
    problem = Problem(seed)
    schedule = gradtx.linear_schedule(rate, 0.0, STEPS)
    tx = gradtx.chain(gradtx.add_decayed_weights(schedule), sgd)
    check_double(tx, problem, decayed(problem, falling(rate)))


def test_default_and_zero_leave_updates():
    for tx in (gradtx.add_decayed_weights(), gradtx.add_decayed_weights(0.0)):
        u, state = tx.update(UPDATES, tx.init(PARAMS), PARAMS)
        np.testing.assert_array_equal(u["w"], UPDATES["w"])
        assert state == gradtx.EmptyState()


@pytest.mark.parametrize(
    "mask", [{"w": True, "b": False}, lambda p: {"w": p["w"].ndim == 2, "b": p["b"].ndim == 2}]
)
@pytest.mark.parametrize("rate", [0.1, gradtx.constant_schedule(0.1)])
def test_mask(mask, rate):
    tx = gradtx.add_decayed_weights(rate, mask)
    u, state = tx.update(UPDATES, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(u["w"], [[0.6, 0.7]], rtol=1e-6)
    np.testing.assert_array_equal(u["b"], UPDATES["b"])
    if callable(rate):
        assert state.inner_state.count == 1


def test_no_decay_under_a_mask_that_selects_nothing():
    tx = gradtx.add_decayed_weights(0.1, False)
    u, _ = tx.update(UPDATES, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(u["w"], UPDATES["w"])


def test_count():
    tx = gradtx.add_decayed_weights(lambda count: 0.1)
    state = tx.init(PARAMS)
    assert state == gradtx.WeightDecaySchedule(0)
    for _ in range(3):
        _, state = tx.update(UPDATES, state, PARAMS)
    assert state.count == 3


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.add_decayed_weights(0.1),
        gradtx.add_decayed_weights(0.0),
        gradtx.add_decayed_weights(lambda count: 0.1),
        gradtx.add_decayed_weights(0.1, {"w": True, "b": False}),
        gradtx.adamw(0.1),
        gradtx.nadamw(0.1),
        gradtx.adamaxw(0.1),
    ],
    ids=repr,
)
def test_params_are_required(tx):
    with pytest.raises(ValueError, match="add_decayed_weights needs params"):
        tx.update(UPDATES, tx.init(PARAMS))


STACKED = {
    "layers": {"w": jnp.ones((6, 4, 4)), "b": jnp.ones((6, 4)), "gain": jnp.ones(6)},
    "head": {"w": jnp.ones((4, 2)), "b": jnp.ones(2), "none": None, "step": 3},
}


def test_matrices_are_what_has_two_axes():
    mask = gradtx.matrices()(STACKED)
    assert mask == {
        "layers": {"w": True, "b": True, "gain": False},
        "head": {"w": True, "b": False, "none": None, "step": False},
    }
    assert gradtx.matrices()(jnp.ones((2, 1, 3))) is True
    assert gradtx.matrices()(jnp.float32(1.0)) is False


def test_biases_of_stacked_layers_do_not_decay():
    params = {"layers": STACKED["layers"], "head": {"w": jnp.ones((4, 2)), "b": jnp.ones(2)}}
    axes = {"layers": 1, "head": 0}
    zeros = gradtx.scale(0.0).update(params, gradtx.EmptyState())[0]
    for tree in (axes, {"layers": 1, "head": {"w": 0, "b": 0}}):
        tx = gradtx.sgd(1.0, weight_decay=0.5, mask=gradtx.matrices(stacked_axes=tree))
        moved, _ = tx.step(zeros, tx.init(params), params)
        found = {k: float(x.ravel()[0]) for k, x in moved["layers"].items()}
        assert found == {"w": 0.5, "b": 1.0, "gain": 1.0}
        assert {k: float(x.ravel()[0]) for k, x in moved["head"].items()} == {"w": 0.5, "b": 1.0}
    assert gradtx.matrices(1)(params["layers"]) == {"w": True, "b": False, "gain": False}


def test_matrices_is_a_value():
    one, same, other = (gradtx.matrices({"a": n, "b": 0}) for n in (1, 1, 2))
    assert one == same and hash(one) == hash(same)
    assert one != other and one != gradtx.matrices()
    assert pickle.loads(pickle.dumps(one)) == one
    tx = gradtx.adamw(0.1, mask=one)
    assert eval(repr(tx), vars(gradtx)) == tx and hash(tx) == hash(tx.replace(mask=same))
    for axes in (-1, 0.5, True, "1", {"a": -1}):
        with pytest.raises(ValueError, match="stacked_axes must be whole numbers"):
            gradtx.matrices(axes)
