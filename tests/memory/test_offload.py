import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.memory import offload
from tests.memory.common import assert_same_bits

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 16).reshape(8, 2), "b": jnp.ones(2)}
GRADS = {"w": jnp.full((8, 2), 0.5), "b": jnp.full(2, 0.5)}
HOST, DEVICE = "pinned_host", "device"


def kinds(tree):
    return jax.tree.map(lambda x: x.sharding.memory_kind, tree)


def places(state, name):
    [(_, slot)] = gradtx.tree.get_all_with_path(state, name)
    return kinds(slot)


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
@pytest.mark.parametrize(
    "options, mu, nu",
    [
        ({}, {"w": HOST, "b": HOST}, {"w": HOST, "b": HOST}),
        ({"slots": ["nu"]}, {"w": DEVICE, "b": DEVICE}, {"w": HOST, "b": HOST}),
        ({"paths": "w"}, {"w": HOST, "b": DEVICE}, {"w": HOST, "b": DEVICE}),
        (
            {"slots": ("mu",), "paths": lambda path, leaf: leaf.ndim == 1},
            {"w": DEVICE, "b": HOST},
            {"w": DEVICE, "b": DEVICE},
        ),
    ],
)
@pytest.mark.parametrize("inner", [gradtx.adamw(0.1), optax.adamw(0.1)], ids=["ours", "optax"])
def test_what_is_offloaded_stays_so(inner, options, mu, nu):
    tx = gradtx.offload_state(inner, **options)

    def applied(grads, state, params):
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    for make in (tx.step, jax.jit(tx.step), applied, jax.jit(applied)):
        for init in (tx.init, jax.jit(tx.init)):
            params, state = PARAMS, init(PARAMS)
            for _ in range(2):
                assert places(state, "mu") == mu and places(state, "nu") == nu
                params, state = make(GRADS, state, params)
            assert set(jax.tree.leaves(kinds(params))) == {DEVICE}


def test_numbers_are_the_inner_transformations():
    inner = gradtx.adamw(0.1)
    tx = gradtx.offload_state(inner)
    found, expected = ((t.init(PARAMS), PARAMS) for t in (tx, inner))
    for _ in range(3):
        found, expected = (
            jax.jit(t.step)(GRADS, *pair)[::-1] for t, pair in ((tx, found), (inner, expected))
        )
    assert_same_bits(jax.device_put(found, jax.memory.Space.Device), expected)


def test_in_loops_and_donated():
    tx = gradtx.offload_state(gradtx.adam(0.1))

    def body(carry, _):
        return tx.step(GRADS, carry[1], carry[0]), None

    params, state = jax.jit(
        lambda params: jax.lax.scan(body, (params, tx.init(params)), length=3)[0]
    )(PARAMS)
    assert set(jax.tree.leaves(kinds((state[0].mu, state[0].nu)))) == {HOST}

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        return tx.step(GRADS, state, params)

    own = jax.tree.map(jnp.array, PARAMS)
    own_state = tx.init(own)
    for _ in range(3):
        before = own_state[0].mu["w"]
        own, own_state = step(own, own_state)
        assert before.is_deleted()
    assert_same_bits(own, params)


def test_inside_accumulate_only_its_steps_move_anything():
    tx = gradtx.accumulate(gradtx.offload_state(gradtx.adam(0.1)), 2)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(4):
        params, state = jax.jit(tx.step)(GRADS, state, params)
        assert set(jax.tree.leaves(places(state, "mu"))) == {HOST}
        assert set(jax.tree.leaves(places(state, "acc_grads"))) == {DEVICE}
    tx = gradtx.adam(0.1)
    expected, state = PARAMS, tx.init(PARAMS)
    for _ in range(2):
        expected, state = jax.jit(tx.step)(GRADS, state, expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), params, expected)


def test_init_under_jit_is_on_the_parameters_devices():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    params = {"w": jax.device_put(PARAMS["w"], split)}
    tx = gradtx.offload_state(gradtx.adam(0.1))
    for init in (tx.init, jax.jit(tx.init)):
        state = init(params)
        assert state[0].mu["w"].sharding.device_set == set(jax.devices())
        _, state = jax.jit(tx.step)({"w": GRADS["w"]}, state, params)
        assert state[0].mu["w"].sharding == split.with_memory_kind(HOST)


def test_a_device_without_host_memory_is_refused(monkeypatch):
    monkeypatch.setattr(offload, "KIND", "another")
    with pytest.raises(ValueError, match=r"the kind 'another', and .* has only \['device', 'pinn"):
        gradtx.offload_state(gradtx.adam(0.1)).init(PARAMS)


def test_looks_ahead_with_its_state_on_the_device():
    tx = gradtx.offload_state(gradtx.nesterov_momentum(0.1, 0.9, lookahead=True))
    params = jnp.ones(3)
    params, state = tx.step(params, tx.init(params), params)
    point = tx.lookahead_point(state, params)
    assert kinds(point) == DEVICE
    np.testing.assert_allclose(point, 0.9 - 0.09, rtol=1e-6)


def test_it_stands_outside_of_what_stores_otherwise():
    def quantized(tx, formats="8bit"):
        return gradtx.quantize_state(tx, formats, min_size=1)

    def narrow(tx):
        return gradtx.slot_dtypes(tx, {"mu": "bfloat16"})

    adam = gradtx.adam(0.1)
    for wrap in (quantized, narrow):
        tx = gradtx.offload_state(wrap(adam))
        _, state = jax.jit(tx.step)(GRADS, tx.init(PARAMS), PARAMS)
        assert set(jax.tree.leaves(places(state, "mu"))) == {HOST}
        tx = wrap(gradtx.chain(gradtx.offload_state(adam)))
        for init in (tx.init, jax.jit(tx.init), functools.partial(jax.eval_shape, tx.init)):
            with pytest.raises(ValueError, match=r"'b' is in the host.*: offload_state\(\w+\(tx"):
                init(PARAMS)
    # Other slots may be there.
    for wrap in (functools.partial(quantized, formats={"mu": "8bit", "nu": None}), narrow):
        tx = wrap(gradtx.offload_state(adam, ["nu"]))
        _, state = jax.jit(tx.step)(GRADS, tx.init(PARAMS), PARAMS)
        assert set(jax.tree.leaves(places(state, "nu"))) == {HOST}


def test_validation():
    tx = gradtx.adam(0.1)
    for slots in ("mu", [0], 3):
        with pytest.raises(TypeError, match="slots must be a sequence of names, got"):
            gradtx.offload_state(tx, slots=slots)
    with pytest.raises(ValueError, match="is no regular expression"):
        gradtx.offload_state(tx, paths="(")
    with pytest.raises(TypeError, match="a rule must be"):
        gradtx.offload_state(tx, paths=3)
    with pytest.raises(ValueError, match=r"names the slot 'ny', .* its slots are \['mu', 'nu'\]"):
        gradtx.offload_state(tx, slots=["ny"]).init(PARAMS)
    with pytest.raises(ValueError, match="fits no leaf"):
        gradtx.offload_state(tx, paths="nowhere").init(PARAMS)
