"""A function that is run or not: as a conditional, and as the loop that GPUs get in its place."""

import functools
import importlib.metadata
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.wrappers import branch
from gradtx.wrappers.in_place import gpu_in_reach, in_place_if
from tests.wrappers.common import assert_close, assert_same, tree

WRAPPERS = {
    "accumulate": gradtx.accumulate(gradtx.adamw(0.1), 2),
    "skip": gradtx.skip_nonfinite(gradtx.adamw(0.1)),
    "mask": gradtx.conditionally_mask(gradtx.adamw(0.1), lambda step: step % 2 == 0),
    "nested": gradtx.skip_nonfinite(gradtx.accumulate(gradtx.adamw(0.1), 2)),
}


@pytest.fixture(params=["cuda", "default"])
def form(request, monkeypatch):
    """Has this machine compile what each platform would."""
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, **forms: forms[request.param](*args)
    )
    monkeypatch.setattr(branch, "gpu_in_reach", lambda: True)
    return request.param


def steps_of(tx, params):
    """Parameters and state after four steps by a `scan`."""

    def body(carry, grads):
        return tx.step(grads, carry[1], carry[0]), None

    grads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(tree, range(1, 5)))
    return jax.lax.scan(body, (params, tx.init(params)), grads)[0]


@pytest.mark.parametrize("name", WRAPPERS)
def test_both_forms_run_or_leave(form, name):
    tx, params = WRAPPERS[name], tree(0)
    expected = params, tx.init(params)
    for seed in range(1, 5):
        expected = tx.step(tree(seed), expected[1], expected[0])
    assert_close(jax.jit(functools.partial(steps_of, tx))(params), expected)


def test_what_is_left_is_the_same(form):
    operands = tree(0), jnp.arange(3), jax.random.key(1)
    run = functools.partial(in_place_if, function=lambda *xs: (tree(1), xs[1] + 1, xs[2]))
    for known, expected in ((False, operands), (True, (tree(1), jnp.arange(1, 4), operands[2]))):
        found = jax.jit(lambda known: run(known, operands=operands))(known)
        assert_same(found[:2], expected[:2])
        assert found[2] == expected[2]


def test_flags_of_a_batch(form):
    flags, xs = jnp.array([True, False, True]), jnp.arange(3.0)
    found = jax.vmap(lambda flag, x: in_place_if(flag, lambda x: (x + 10,), (x,))[0])(flags, xs)
    np.testing.assert_array_equal(found, [10, 1, 12])


def loss(tx_of, numbers, params):
    moved, _ = steps_of(tx_of(numbers), params)
    return sum(jnp.sum(x**2) for x in jax.tree.leaves(moved))


@pytest.mark.parametrize("name", ["accumulate", "skip"])
def test_derivatives_are_those_of_the_conditional(name, form, monkeypatch):
    def tx_of(rate):
        inner = gradtx.adamw(rate)
        return gradtx.accumulate(inner, 2) if name == "accumulate" else gradtx.skip_nonfinite(inner)

    of = functools.partial(loss, tx_of)
    rate, params = jnp.float32(0.1), tree(0)
    taken = (jax.grad(of, (0, 1)), jax.jacfwd(of, 0), jax.grad(jax.grad(of, 0), 1))
    found = [jax.jit(derivative)(rate, params) for derivative in taken]
    monkeypatch.setattr(branch, "gpu_in_reach", lambda: False)
    assert_close(found, [jax.jit(derivative)(rate, params) for derivative in taken])
    # Against a difference quotient in the place of the conditional's own derivative.
    ahead, behind = (float(of(rate + h, params)) for h in (1e-2, -1e-2))
    np.testing.assert_allclose(found[0][0], (ahead - behind) / 2e-2, rtol=1e-3)


def test_a_derivative_of_what_the_function_closes_over(form):
    def of(y, flag):
        return in_place_if(flag, lambda x: (x * y,), (jnp.float32(3.0),))[0]

    slope = jax.jit(jax.grad(of))
    assert slope(jnp.float32(2.0), True) == 3 and slope(jnp.float32(2.0), False) == 0


@pytest.mark.parametrize("mode", [jax.grad, jax.jacfwd])
def test_constants_stay_constants_to_a_derivative(form, mode):
    """A zero times the infinite slope of a root at zero would be NaN."""

    def of(rate, flag):
        x, nu = jnp.float32(1.0), jnp.float32(0.0)
        for _ in range(2):
            x, nu = in_place_if(flag, lambda x, nu: (x - rate * jnp.sqrt(nu), nu), (x, nu))
        return x

    assert jax.jit(mode(of))(jnp.float32(0.1), True) == 0


def test_a_derivative_where_all_is_constant(form):
    def of(y, flag):
        return in_place_if(flag, lambda x: (x * jax.lax.stop_gradient(y),), (jnp.ones(()),))[0]

    assert jax.jit(jax.grad(of))(jnp.float32(2.0), True) == 0


def test_explicit_shardings_are_kept(form):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = jax.device_put(jnp.ones((4, 2)), jax.P("x"))
        tx = gradtx.accumulate(gradtx.adamw(0.1), 1)
        moved, state = jax.jit(tx.step)(params, tx.init(params), params)
    for array in (moved, state.inner_opt_state[0].mu):
        assert jax.typeof(array).sharding.spec == jax.P("x", None)


def test_each_platform_gets_its_own(monkeypatch):
    monkeypatch.setattr(branch, "gpu_in_reach", lambda: True)
    tx, params = WRAPPERS["accumulate"], tree(0)
    traced = jax.jit(tx.step).trace(params, tx.init(params), params)
    for platform, loops in {"cpu": 0, "tpu": 0, "cuda": 1, "rocm": 1}.items():
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.while") == loops


def test_without_a_gpu_there_is_one_form(monkeypatch):
    tx, params = WRAPPERS["accumulate"], tree(0)
    for reach in (False, True):
        monkeypatch.setattr(branch, "gpu_in_reach", lambda reach=reach: reach)
        text = str(jax.make_jaxpr(lambda p: tx.step(p, tx.init(p), p))(params))
        assert text.count("while") == reach


def test_plugins_of_gpus(monkeypatch):
    for names, reach in (
        ((), False),
        (("tpu",), False),
        (("xla_cuda13",), True),
        (("tpu", "xla_rocm7"), True),
    ):
        points = [types.SimpleNamespace(name=name) for name in names]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group, points=points: points)
        gpu_in_reach.cache_clear()
        assert gpu_in_reach() == reach
    gpu_in_reach.cache_clear()
