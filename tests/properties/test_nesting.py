"""What passes through every wrapper: hyperparameters, extra arguments, what is required."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.core.hyper import Hyper
from gradtx.core.value import static
from tests.properties.test_composition import PARAMS, WRAPPERS

GRADS = jax.tree.map(jnp.ones_like, PARAMS)
STEPS = 2  # a window, or a period, of every wrapper in the table

# Around what `inject_hyperparams` has made, and why not.
NOT_AROUND_INJECTED = {"inject_hyperparams": "the numbers are in the state already: an error"}
# One wrapper around another, and why not.
NO_LEAF = "both go by rules, and the inner one's rule fits no leaf that the outer one leaves to it"
NOT_AROUND = dict.fromkeys(itertools.product(("groups", "freeze"), repeat=2), NO_LEAF)
NOT_AROUND["inject_hyperparams", "inject_hyperparams"] = NOT_AROUND_INJECTED["inject_hyperparams"]
# Where the numbers of `sgd` are among others of the same name.
PLACE = {"partition": "vector/", "groups": "default/"}


class probe(gradtx.GradientTransformation):
    """Adds the extra argument `value`, and notes the names of all that it was given."""

    gain: Hyper
    seen: list = static()
    requires = ("value",)

    def init(self, params):
        return gradtx.EmptyState()

    def transform(self, updates, state, params, **extra_args):
        self.seen.append(set(extra_args))
        added = self.gain * extra_args["value"]
        return jax.tree.map(lambda u: u + jnp.asarray(added, u.dtype), updates), state


def moved(tx, state=None, **extra_args):
    """The parameters after a few steps."""
    params = PARAMS
    state = tx.init(params) if state is None else state
    for _ in range(STEPS):
        params, state = tx.step(GRADS, state, params, **extra_args)
    return params


def assert_same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), one, other)


def differ(one, other):
    return any(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), one, other)))


def injected_sgd(wrapper, rate):
    inside = gradtx.sgd(rate)
    if wrapper not in NOT_AROUND_INJECTED:
        inside = gradtx.inject_hyperparams(inside)
    return WRAPPERS[wrapper](inside)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_hyperparams_are_found_and_set(wrapper):
    name = PLACE.get(wrapper, "") + "learning_rate"
    plain = WRAPPERS[wrapper](gradtx.sgd(0.1))
    np.testing.assert_allclose(gradtx.hyperparams(plain, plain.init(PARAMS))[name], 0.1)

    tx = injected_sgd(wrapper, 0.1)
    state = tx.init(PARAMS)
    np.testing.assert_allclose(gradtx.hyperparams(tx, state)[name], 0.1)
    new = gradtx.set_hyperparams(tx, state, **{name: 0.025})
    np.testing.assert_allclose(gradtx.hyperparams(tx, new)[name], 0.025)
    assert_same(moved(tx, new), moved(injected_sgd(wrapper, 0.025)))
    assert differ(moved(tx, new), moved(tx, state))


@pytest.mark.parametrize("wrapper", NOT_AROUND_INJECTED)
def test_what_cannot_be_around_injected(wrapper):
    with pytest.raises(TypeError, match="a second time"):
        WRAPPERS[wrapper](gradtx.inject_hyperparams(gradtx.sgd(0.1)))


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_those_of_optax_are_found_and_set(wrapper):
    name = PLACE.get(wrapper, "") + "learning_rate"
    tx, other = (WRAPPERS[wrapper](optax.inject_hyperparams(optax.sgd)(x)) for x in (0.1, 0.025))
    state = tx.init(PARAMS)
    np.testing.assert_allclose(gradtx.hyperparams(tx, state)[name], 0.1)
    new = gradtx.set_hyperparams(tx, state, **{name: 0.025})
    assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
    assert_same(moved(tx, new), moved(other))
    assert differ(moved(tx, new), moved(tx, state))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_are_the_same_injected_and_not(wrapper):
    several = gradtx.chain(gradtx.scale(2.0), gradtx.sgd(0.1, momentum=0.9), gradtx.sgd(0.2))
    for inside in (gradtx.sgd(0.1), several):
        tx = WRAPPERS[wrapper](inside)
        if wrapper == "inject_hyperparams":
            tx = inside
        injected = gradtx.inject_hyperparams(tx)
        state = injected.init(PARAMS)
        found = gradtx.hyperparams(injected, state)
        assert set(found) == set(gradtx.hyperparams(tx, tx.init(PARAMS)))
        assert set(state.hyperparams) <= set(found)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_extra_arguments_arrive(wrapper):
    seen = []
    tx = WRAPPERS[wrapper](probe(1.0, seen))
    small, large = (moved(tx, value=value, other=0) for value in (0.01, 0.05))
    state = tx.init(PARAMS)
    for _ in range(STEPS):  # `update` is not `step` in every wrapper
        _, state = tx.update(GRADS, state, PARAMS, value=0.05, other=0)
    assert seen and all({"value", "other"} <= names for names in seen)
    assert differ(small, large)


def assert_one_error_names_the_stage(tx):
    state = tx.init(PARAMS)
    assert dict(tx.required_extra_args) == {"value": "probe"}
    for call in (tx.update, tx.step):
        with pytest.raises(TypeError, match="probe needs the extra argument 'value'") as raised:
            call(GRADS, state, PARAMS, other=0)
        error = raised.value
        assert error.__cause__ is None and error.__context__ is None


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_a_stage_requires_is_asked_for(wrapper):
    assert_one_error_names_the_stage(WRAPPERS[wrapper](probe(1.0, [])))


@pytest.mark.parametrize("outer", WRAPPERS)
def test_what_a_stage_requires_is_asked_for_two_deep(outer):
    for inner in WRAPPERS:
        if (outer, inner) not in NOT_AROUND:
            assert_one_error_names_the_stage(WRAPPERS[outer](WRAPPERS[inner](probe(1.0, []))))


@pytest.mark.parametrize("outer,inner", NOT_AROUND)
def test_what_cannot_be_around_another(outer, inner):
    with pytest.raises((TypeError, ValueError), match=r"a second time|fits no leaf"):
        WRAPPERS[outer](WRAPPERS[inner](probe(1.0, []))).init(PARAMS)
