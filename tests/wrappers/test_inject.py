import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.hyper import Compensated
from tests.examples import EXAMPLES

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "b": jnp.ones(3)}
DESCENTS = {
    name: tx
    for name, tx in EXAMPLES.items()
    if hasattr(tx, "learning_rate") and name.endswith("-0")
    if name not in ("inject_hyperparams-0", "lbfgs-0")  # the first is one, the second searches
}


def falling(count):
    return 0.1 / (1.0 + jnp.asarray(count, jnp.float32))


def gradients(steps, params=PARAMS):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(steps, *p.shape)), p.dtype), params)


def trajectory(tx, params=PARAMS, steps=200, **extra_args):
    @jax.jit
    def run(params, grads):
        def body(carry, g):
            return tx.step(g, carry[1], carry[0], **extra_args), None

        return jax.lax.scan(body, (params, tx.init(params)), grads)[0]

    return run(params, gradients(steps, params))


def largest(tree):
    return max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", DESCENTS)
def test_same_numbers_as_the_plain_optimizer(name):
    plain, _ = trajectory(DESCENTS[name])
    injected, _ = trajectory(gradtx.inject_hyperparams(DESCENTS[name]))
    scale = largest(jax.tree.map(jnp.subtract, plain, PARAMS))
    difference = largest(jax.tree.map(jnp.subtract, plain, injected))
    assert difference <= 1e-6 * max(scale, 1.0), (difference, scale)


@pytest.mark.parametrize("name", ["adam-0", "adamw-0", "nadam-0", "lamb-0", "amsgrad-0", "radam-0"])
def test_bfloat16_parameters(name):
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    _, plain_state = trajectory(DESCENTS[name], params)
    injected, state = trajectory(gradtx.inject_hyperparams(DESCENTS[name]), params)
    for a, b in zip(jax.tree.leaves(plain_state), jax.tree.leaves(state.inner_state), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-7)
    assert all(x.dtype == jnp.float32 for x in state.hyperparams.values())
    jax.tree.map(lambda x: np.testing.assert_array_less(-jnp.inf, x.astype(jnp.float32)), injected)


def test_a_rounded_decay_would_not_do():
    """The test above can fail: 1 - float32(0.999) is off by 1.3e-5."""
    b2 = jnp.float32(0.999)
    assert abs(float(1 - b2) / 0.001 - 1) > 1e-6
    error = jnp.float32(0.999 - float(b2))
    assert abs(float(1 - Compensated(b2, error)) / 0.001 - 1) < 1e-7


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
def test_optaxs_form_state_and_numbers():
    def make(library):
        schedule = library.linear_schedule(0.9, 0.5, 5)
        return library.inject_hyperparams(library.scale_by_adam)(b1=schedule, b2=0.99)

    ours, theirs = make(gradtx), make(optax)
    state, their_state = ours.init(PARAMS), theirs.init(PARAMS)
    assert type(state).__name__ == type(their_state).__name__
    assert state._fields == their_state._fields
    for _ in range(8):
        updates, state = ours.update(PARAMS, state, PARAMS)
        expected, their_state = theirs.update(PARAMS, their_state, PARAMS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), updates, expected)
        assert set(state.hyperparams) <= set(their_state.hyperparams)
        for name, value in state.hyperparams.items():
            np.testing.assert_allclose(value, their_state.hyperparams[name], rtol=1e-6)
        assert optax.tree.get(state, "b2") == state.hyperparams["b2"]
    assert int(state.count) == 8


def test_the_first_update_sees_the_schedule_at_0():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=gradtx.linear_schedule(1.0, 11.0, 10))
    updates, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    assert float(updates[0]) == -1.0 and float(state.hyperparams["learning_rate"]) == 1.0
    assert float(gradtx.hyperparams(tx, state)["learning_rate"]) == 2.0


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
def test_writing_into_the_state_as_optaxs_users_do():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(0.1)
    state = tx.init(jnp.ones(1))
    for value in (0.5, jnp.float32(0.5), np.float64(0.5)):
        state.hyperparams["learning_rate"] = value
        updates, new_state = tx.update(jnp.ones(1), state)
        assert float(updates[0]) == -0.5
        assert new_state.hyperparams["learning_rate"].dtype == jnp.float32
        assert not new_state.hyperparams["learning_rate"].weak_type


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
def test_foreign_and_own_functions():
    def mine(learning_rate, size=3, nesterov=False):
        assert isinstance(size, int)
        return optax.chain(optax.scale_by_adam(), optax.scale(-learning_rate))

    for factory in (mine, optax.adam, functools.partial(optax.adam, b1=0.8)):
        tx = gradtx.inject_hyperparams(factory)(learning_rate=0.1)
        state = gradtx.set_hyperparams(tx, tx.init(PARAMS), learning_rate=0.2)
        updates, _ = jax.jit(tx.update)(PARAMS, state, PARAMS)
        plain = factory(learning_rate=0.2)
        expected, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), updates, expected)


def test_static_args_and_dtype():
    schedule = gradtx.linear_schedule(1.0, 0.0, 10)
    tx = gradtx.inject_hyperparams(gradtx.sgd, static_args="learning_rate")(schedule, momentum=0.5)
    state = tx.init(jnp.ones(1))
    assert list(state.hyperparams) == ["momentum"]
    assert state.inner_state[1].count == 0
    half = gradtx.inject_hyperparams(gradtx.adam, hyperparam_dtype=jnp.bfloat16)(0.1)
    updates, state = half.update(jnp.ones(1), half.init(jnp.ones(1)))
    assert state.hyperparams["b2"].dtype == jnp.bfloat16
    assert bool(jnp.isfinite(updates[0]))
    with pytest.raises(ValueError, match=r"static_args must be among .*'momentum'.* got \['x'\]"):
        gradtx.inject_hyperparams(gradtx.sgd, static_args=["x"])


@pytest.mark.parametrize("name", DESCENTS)
def test_init_is_abstract(name):
    tx = gradtx.inject_hyperparams(DESCENTS[name])
    assert jax.tree.structure(jax.eval_shape(tx.init, PARAMS)) == jax.tree.structure(
        tx.init(PARAMS)
    )
    jax.jit(tx.init)(PARAMS)


def test_stateful_schedules():
    class Halving:
        def init(self):
            return jnp.float32(1.0)

        def update(self, state, *, value, **extra_args):
            return jnp.where(value > 1.0, state / 2, state)

        def __call__(self, state, **extra_args):
            return state

    assert isinstance(Halving(), gradtx.StatefulSchedule)
    tx = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=Halving())
    state = tx.init(jnp.ones(1))
    seen = []
    for value in (2.0, 0.5, 2.0, 0.0):
        updates, state = tx.update(jnp.ones(1), state, value=value)
        seen.append(-float(updates[0]))
    assert seen == [1.0, 0.5, 0.5, 0.25]


def nested():
    inner = gradtx.partition(
        {
            "fast": gradtx.inject_hyperparams(gradtx.adam(0.1)),
            "slow": gradtx.inject_hyperparams(gradtx.sgd)(gradtx.linear_schedule(1.0, 0.0, 4)),
        },
        {"w": "fast", "b": "slow"},
    )
    return gradtx.chain(gradtx.clip(2.0), gradtx.masked(inner, True))


def test_stateful_schedules_see_extra_args():
    class of_the_loss:
        def init(self):
            return jnp.zeros(())

        def update(self, state, **extra_args):
            return state + extra_args.get("value", 0.0)

        def __call__(self, state, **extra_args):
            return state + 2.0 * extra_args.get("value", 0.0)

    tx = gradtx.inject_hyperparams(gradtx.sgd)(of_the_loss())
    state = tx.init(jnp.ones(()))
    for expected in (-2.0, -3.0):
        updates, state = tx.update(jnp.ones(()), state, value=1.0)
        assert updates == expected


def test_hyperparams_at_any_depth():
    tx = nested()
    state = tx.init(PARAMS)
    for step in range(3):
        found = gradtx.hyperparams(tx, state)
        assert found["max_delta"] == 2.0 and float(found["b2"]) == np.float32(0.999)
        assert float(found["1/inner/slow/learning_rate"]) == 1.0 - step / 4
        assert float(found["1/inner/fast/learning_rate"]) == np.float32(0.1)
        _, state = tx.update(PARAMS, state, PARAMS)


def two(*rules):
    return gradtx.groups([(rule, gradtx.sgd(0.1)) for rule in rules], default=gradtx.sgd(0.2))


NESTED = {
    "chain in chain": gradtx.chain(gradtx.chain(gradtx.sgd(0.1), gradtx.sgd(0.2)), gradtx.sgd(0.3)),
    "named_chain": gradtx.named_chain(("a", gradtx.sgd(0.1)), ("b/c", gradtx.sgd(0.2))),
    "partition": gradtx.partition({1: gradtx.sgd(0.1), "b": gradtx.sgd(0.2)}, {"w": 1, "b": "b"}),
    "groups": two("^b"),
    "groups whose rules have one name": two("default", "b/w"),
    "masked": gradtx.masked(gradtx.chain(gradtx.ema(0.5), gradtx.ema(0.9)), True),
    "accumulate": gradtx.chain(gradtx.accumulate(gradtx.sgd(0.1), 2), gradtx.sgd(0.2)),
    "accumulate, scheduled": gradtx.accumulate(gradtx.sgd(0.1), gradtx.linear_schedule(1, 3, 2)),
    "lookahead": gradtx.chain(gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5), gradtx.sgd(0.2)),
    "selective_transform": gradtx.chain(
        gradtx.selective_transform(gradtx.sgd(0.1), freeze_mask=False), gradtx.sgd(0.2)
    ),
    "lbfgs": gradtx.chain(gradtx.lbfgs(), gradtx.lbfgs()),
    "schedules": gradtx.chain(gradtx.sgd(falling), gradtx.sgd(falling)),
}
PARAMS_OF_RULES = {"default": jnp.ones(3), "b": {"w": jnp.ones(2)}, "x": jnp.ones(2)}


@pytest.mark.parametrize("name", NESTED)
def test_names_are_those_of_the_transformation_as_it_is(name):
    params = PARAMS_OF_RULES if "rules" in name else PARAMS
    tx = NESTED[name]
    injected = gradtx.inject_hyperparams(tx)
    state = injected.init(params)
    plain = gradtx.hyperparams(tx, tx.init(params))
    found = gradtx.hyperparams(injected, state)
    assert set(found) == set(plain)
    assert set(state.hyperparams) <= set(found)
    for number in plain:
        np.testing.assert_allclose(found[number], plain[number], rtol=1e-6)


def test_names_in_the_state():
    def in_state(tx, params=PARAMS):
        return set(gradtx.inject_hyperparams(tx).init(params).hyperparams)

    rates = {name: {f"{p}/learning_rate" for p in places} for name, places in {
        "chain in chain": ("0/0", "0/1", "1"), "named_chain": ("a", "b/c"), "partition": ("1", "b"),
        "groups": ("^b", "default"),
    }.items()}  # fmt: skip
    assert {name: in_state(NESTED[name]) for name in rates} == rates
    assert in_state(two("default", "b/w"), PARAMS_OF_RULES) == {
        "default/learning_rate", "b/w/learning_rate", "default'/learning_rate"
    }  # fmt: skip
    assert in_state(NESTED["accumulate, scheduled"]) == {"learning_rate"}
    assert in_state(NESTED["selective_transform"]) == {"0/train/learning_rate", "1/learning_rate"}


def test_what_stays_constant_is_shown_and_cannot_be_set():
    schedule = gradtx.linear_schedule(1.0, 0.0, 10)
    tx = gradtx.inject_hyperparams(
        gradtx.accumulate(gradtx.sgd(schedule, 0.5), 2), static_args="learning_rate"
    )
    state = tx.init(PARAMS)
    found = gradtx.hyperparams(tx, state)
    assert {name: float(x) for name, x in found.items()} == {
        "k": 2.0, "learning_rate": 1.0, "momentum": 0.5
    }  # fmt: skip
    for name in ("k", "learning_rate"):
        with pytest.raises(ValueError, match=rf"'{name}' is a constant .* are \['momentum'\]"):
            gradtx.set_hyperparams(tx, state, **{name: 1})


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
def test_what_optax_has_injected():
    adam = optax.inject_hyperparams(optax.adam)(1e-3)
    falls = optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(1.0, 0.0, 4))
    assert float(gradtx.hyperparams(adam, adam.init(PARAMS))["b1"]) == np.float32(0.9)

    deep = optax.chain(optax.clip(1.0), optax.masked(adam, True), falls)
    tx = gradtx.chain(gradtx.accumulate(deep, 1), gradtx.sgd(0.5))
    state = tx.init(PARAMS)
    found = gradtx.hyperparams(tx, state)
    place = "0/inner/1/inner_state/learning_rate"
    assert float(found[place]) == np.float32(1e-3) and float(found["b2"]) == np.float32(0.999)
    assert float(found["0/inner/2/learning_rate"]) == 1.0 and found["1/learning_rate"] == 0.5
    new = gradtx.set_hyperparams(tx, state, **{place: 1e-2, "b1": 0.5})
    assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
    assert float(gradtx.hyperparams(tx, state)["b1"]) == np.float32(0.9)
    other = gradtx.chain(
        optax.chain(optax.clip(1.0), optax.adam(1e-2, b1=0.5), falls), gradtx.sgd(0.5)
    )
    updates, new = tx.update(PARAMS, new, PARAMS)
    expected, _ = other.update(PARAMS, other.init(PARAMS), PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)
    with pytest.raises(ValueError, match="follows a schedule"):
        gradtx.set_hyperparams(tx, state, **{"0/inner/2/learning_rate": 0.1})
    with pytest.raises(ValueError, match=r"is a constant .* can be set are \['0/inner/1/inner_st"):
        gradtx.set_hyperparams(tx, state, **{"1/learning_rate": 0.1})


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
def test_optaxs_inside_injected_and_injected_inside_optaxs():
    adam = optax.inject_hyperparams(optax.adam)(1e-3)
    tx = gradtx.inject_hyperparams(gradtx.chain(adam, gradtx.sgd(0.2)))
    values = {"0/learning_rate": 0.5, "1/learning_rate": 0.25, "b1": 0.75}
    state = gradtx.set_hyperparams(tx, tx.init(PARAMS), **values)
    found = gradtx.hyperparams(tx, state)
    assert {name: float(found[name]) for name in values} == values
    assert state.hyperparams["learning_rate"] == 0.25

    around = optax.chain(optax.identity(), gradtx.inject_hyperparams(gradtx.sgd)(0.2))
    state = gradtx.set_hyperparams(around, around.init(PARAMS), learning_rate=0.5)
    updates, _ = around.update(PARAMS, state, PARAMS)
    np.testing.assert_array_equal(updates["w"], -0.5 * PARAMS["w"])


def test_a_foreign_transformation_is_injected_as_it_is():
    tx = gradtx.inject_hyperparams(optax.sgd(0.5))
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert state.hyperparams == {}
    np.testing.assert_array_equal(updates["w"], -0.5 * PARAMS["w"])


SCHEDULED = [name for name in DESCENTS if not re.search("rprop|optimistic_adam-", name)]


@pytest.mark.parametrize("name", SCHEDULED)
def test_the_rate_that_is_told_is_the_one_applied(name):
    """A schedule that records what it returns, beside what `hyperparams` says before each step."""
    tx = DESCENTS[name].replace(learning_rate=falling)
    state = tx.init(PARAMS)
    for step in range(3):
        np.testing.assert_allclose(gradtx.hyperparams(tx, state)["learning_rate"], 0.1 / (1 + step))
        _, state = tx.update(PARAMS, state, PARAMS, value=1.0)


def test_constants_are_told_as_they_were_given():
    tx = gradtx.adamw(3e-4, weight_decay=0.1)
    found = gradtx.hyperparams(tx, tx.init(PARAMS))
    assert found["learning_rate"] == 3e-4 and found["weight_decay"] == 0.1 and found["b2"] == 0.999


def test_setting_compiles_nothing_anew_and_leaves_the_old_state():
    tx, traced = nested(), []

    @jax.jit
    def step(params, state):
        traced.append(1)
        return tx.step(PARAMS, state, params)

    state = tx.init(PARAMS)
    params, state = step(PARAMS, state)
    new = gradtx.set_hyperparams(tx, state, **{"1/inner/fast/learning_rate": 0.0, "b1": 0.5})
    still, _ = step(params, new)
    assert len(traced) == 1
    np.testing.assert_array_equal(still["w"], params["w"])
    found = gradtx.hyperparams(tx, new)
    assert float(found["1/inner/fast/learning_rate"]) == 0.0 and float(found["b1"]) == 0.5
    assert float(gradtx.hyperparams(tx, state)["b1"]) == np.float32(0.9)


def test_set_numbers_act_as_constants_do():
    tx = gradtx.inject_hyperparams(gradtx.adam(0.1))
    state = gradtx.set_hyperparams(tx, tx.init(PARAMS), learning_rate=0.01, b1=0.5, b2=0.95)
    plain = gradtx.adam(0.01, 0.5, 0.95)
    plain_state = plain.init(PARAMS)
    params = plain_params = PARAMS
    for _ in range(20):
        params, state = tx.step(PARAMS, state, params)
        plain_params, plain_state = plain.step(PARAMS, plain_state, plain_params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, plain_params)


def test_errors_of_setting():
    tx = nested()
    state = tx.init(PARAMS)
    with pytest.raises(
        ValueError, match=r"'lr' is no hyperparameter; those that can be set are \["
    ):
        gradtx.set_hyperparams(tx, state, lr=0.1)
    with pytest.raises(ValueError, match=r"'max_delta' is a constant of the transformation"):
        gradtx.set_hyperparams(tx, state, max_delta=0.1)
    with pytest.raises(ValueError, match="follows a schedule"):
        gradtx.set_hyperparams(tx, state, **{"1/inner/slow/learning_rate": 0.1})
    with pytest.raises(ValueError, match=r"b1 must be in \[0, 1\), got 1\.5"):
        gradtx.set_hyperparams(tx, state, b1=1.5)
    plain = gradtx.adam(0.1)
    with pytest.raises(ValueError, match="wrap the transformation in inject_hyperparams"):
        gradtx.set_hyperparams(plain, plain.init(PARAMS), learning_rate=0.1)
    with pytest.raises(TypeError, match="takes a transformation or a function"):
        gradtx.inject_hyperparams(3)
    with pytest.raises(TypeError, match="a second time"):
        once = gradtx.inject_hyperparams(gradtx.sgd(0.1))
        gradtx.inject_hyperparams(gradtx.chain(once)).init(PARAMS)
    with pytest.raises(ValueError, match="learning_rate must be finite and >= 0, got -1"):
        gradtx.inject_hyperparams(gradtx.sgd)(-1.0)
    with pytest.raises(ValueError, match="the state has the hyperparameters"):
        other = gradtx.inject_hyperparams(gradtx.sgd(0.1))
        other.update(PARAMS, gradtx.inject_hyperparams(gradtx.adam(0.1)).init(PARAMS), PARAMS)


def test_under_x64_nothing_is_rounded(x64):
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), PARAMS)
    plain, _ = trajectory(gradtx.adam(0.1), params)
    injected, state = trajectory(gradtx.inject_hyperparams(gradtx.adam(0.1)), params)
    assert state.hyperparams["b2"].dtype == jnp.float64
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), plain, injected)
