"""Transformations that run at some steps only, against Optax and against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.wrappers.common import (
    assert_close,
    assert_same,
    plain_run,
    run,
    spoilt,
    temporaries,
    tree,
)

NAN = jnp.nan
CONDITIONS = {
    "even": lambda step: step % 2 == 0,
    "late": lambda step: step > 2,
    "never": lambda step: step < 0,
}
WRAPPERS = ["conditionally_transform", "conditionally_mask"]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", WRAPPERS)
def test_optax(name, condition, promotion):
    params = other = tree(0)
    reference = getattr(optax, name)(optax.adam(0.1), CONDITIONS[condition])
    seen = run(
        getattr(gradtx, name)(gradtx.adam(0.1), CONDITIONS[condition]),
        params,
        [(tree(i), {}) for i in range(1, 7)],
    )
    other_state, update = reference.init(params), jax.jit(reference.update)
    for i, (x, state) in enumerate(seen, 1):
        updates, other_state = update(tree(i), other_state, other)
        other = optax.apply_updates(other, updates)
        assert_close(x, other)
        assert state._fields == other_state._fields
        assert_close(state.inner_state[0].mu, other_state.inner_state[0].mu)
        assert state.inner_state[0].count == other_state.inner_state[0].count
        assert state.step == i


def test_steps_left_out_touch_nothing():
    tx = gradtx.conditionally_mask(gradtx.adamw(0.1), lambda step: step == 1)
    params = tree(0)
    seen = run(tx, params, [(spoilt(tree(1)), {}), (tree(2), {}), (tree(3), {})])
    assert_same(seen[0][0], params)
    assert_same(seen[2][0], seen[1][0])
    assert_close(seen[1][0], plain_run(gradtx.adamw(0.1), params, [(tree(2), {})])[0][0])
    assert temporaries(tx) < 0.05


@pytest.mark.parametrize("name", WRAPPERS)
def test_extra_args(name):
    make, g = getattr(gradtx, name), jnp.asarray([3.0, 4.0])
    inner = gradtx.polyak_sgd()
    tx = make(inner, lambda step, value, **_: value < 10.0, forward_extra_args=True)
    assert dict(tx.required_extra_args) == {"value": "scale_by_polyak"}
    passed = {"conditionally_transform": 2 * g, "conditionally_mask": g}[name]
    for step in (tx.step, jax.jit(tx.step)):
        np.testing.assert_allclose(step(g, tx.init(g), g, value=5.0)[0], 0.8 * g, rtol=1e-6)
        assert_same(step(g, tx.init(g), g, value=20.0)[0], passed)
    alone = make(inner, lambda step: True)
    np.testing.assert_allclose(alone.step(g, alone.init(g), g, value=5.0)[0], 0.8 * g, rtol=1e-6)
    with pytest.raises(TypeError, match="value"):
        tx.step(g, tx.init(g), g)


@pytest.mark.parametrize("name", WRAPPERS)
def test_vmap_over_steps(name):
    tx = getattr(gradtx, name)(gradtx.adam(0.1), lambda step: step % 2 == 0)
    x = jnp.asarray([1.0, 2.0])
    states = [tx.init(x)]
    for _ in range(3):
        states.append(tx.step(x, states[-1], x)[1])
    stacked = jax.tree.map(lambda *s: jnp.stack(s), *states)
    mapped = jax.jit(jax.vmap(lambda state: tx.step(x, state, x)))(stacked)
    for i, state in enumerate(states):
        assert_close(jax.tree.map(lambda y, i=i: y[i], mapped), tx.step(x, state, x))


@pytest.mark.parametrize("name", WRAPPERS)
def test_low_precision_lookahead_and_errors(name):
    make = getattr(gradtx, name)
    params = tree(0, jnp.bfloat16)
    tx = make(gradtx.adafactor(0.1), lambda step: step % 2 == 0)
    seen = run(tx, params, [(tree(i, jnp.float16), {}) for i in range(3)])
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(seen[-1][0]))
    g = jnp.ones(2)
    tx = make(gradtx.nesterov_momentum(0.1, 0.9, lookahead=True), lambda step: True)
    x, state = tx.step(g, tx.init(g), g)
    assert (tx.lookahead_point(state, x) != x).all()
    with pytest.raises(TypeError, match="should_transform_fn"):
        make(gradtx.sgd(0.1), 2)
    with pytest.raises(TypeError, match="transformation"):
        make(0.1, lambda step: True)
    with pytest.raises(TypeError, match="forward_extra_args"):
        make(gradtx.sgd(0.1), lambda step: True, 1)
    for answer in (1.0, jnp.ones(2, bool)):
        tx = make(gradtx.sgd(0.1), lambda step, answer=answer: answer)
        with pytest.raises(ValueError, match="should_transform_fn"):
            tx.step(g, tx.init(g), g)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_apply_every(k):
    params = tree(0)
    seen = run(gradtx.apply_every(k), params, [(tree(i), {}) for i in range(1, 8)])
    reference = optax.apply_every(k)
    other, other_state = params, reference.init(params)
    for i, (x, state) in enumerate(seen, 1):
        with jax.numpy_dtype_promotion("standard"):
            updates, other_state = reference.update(tree(i), other_state)
        other = optax.apply_updates(other, updates)
        assert_close(x, other)
        assert state._fields == other_state._fields
        assert_close(tuple(state), tuple(other_state))
    assert gradtx.apply_every() == gradtx.apply_every(1)


def test_apply_every_forgets_a_bad_window():
    tx = gradtx.apply_every(2)
    state = tx.init(jnp.zeros(2))
    updates = []
    for g in (NAN, 1.0, 2.0, 3.0):
        new, state = tx.update(jnp.full(2, g), state)
        updates.append(float(new[0]))
    np.testing.assert_array_equal(updates, [0.0, NAN, 0.0, 5.0])


def test_apply_every_adds_up_in_single_precision():
    params = jnp.zeros(2, jnp.bfloat16)
    tx = gradtx.apply_every(512)
    state = tx.init(params)
    for g in [1.0] + [2.0**-9] * 511:
        updates, state = tx.update(jnp.full(2, g, jnp.bfloat16), state, params)
    assert state.grad_acc.dtype == jnp.float32
    np.testing.assert_allclose(updates.astype(jnp.float32), 2.0, rtol=1e-2)


def test_apply_every_checks_its_length():
    for k in (0, -1, 1.5, NAN):
        with pytest.raises(ValueError, match="k must"):
            gradtx.apply_every(k)
    for k in ("2", None, True):
        with pytest.raises(TypeError, match="k must"):
            gradtx.apply_every(k)
