"""Each law goes red for a transformation that breaks it, and is green for one that does not."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.core.slot import Flag, Key, Opaque, Reduced, Scalar, Slot
from gradtx.testing import LAWS, check_transformation

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 32).reshape(8, 4), "b": jnp.ones(4, jnp.bfloat16)}


class SlotState(NamedTuple):
    slot: Annotated[Any, Slot(nonnegative=True)]


class Stage(gradtx.GradientTransformation):
    rate: float = 1.0

    def init(self, params):
        return gradtx.EmptyState()

    def transform(self, updates, state, params, **extra_args):
        return updates, state


class lists_its_leaves(Stage):
    names: Any = ("a",)


class negative(Stage):
    def init(self, params):
        return SlotState(jax.tree.map(lambda p: -jnp.ones(jnp.shape(p)), params))


class promotes(Stage):
    def init(self, params):
        return SlotState(jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.bfloat16), params))

    def transform(self, updates, state, params, **extra_args):
        with jax.numpy_dtype_promotion("standard"):
            return updates, SlotState(jax.tree.map(jnp.add, state.slot, updates))


class needs_values(Stage):
    def init(self, params):
        float(jnp.sum(jax.tree.leaves(params)[0]))
        return gradtx.EmptyState()


class aliases(Stage):
    def init(self, params):
        return SlotState(params)


class knows_of_jit(Stage):
    def transform(self, updates, state, params, **extra_args):
        traced = isinstance(jax.tree.leaves(updates)[0], jax.core.Tracer)
        return gradtx.map_leaves(scale_rule, updates, c=2.0 if traced else 1.0), state


class branches_on_values(Stage):
    def transform(self, updates, state, params, **extra_args):
        if jax.tree.leaves(updates)[0].sum() > 0:
            return updates, state
        return updates, state


class never_equal(Stage):
    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


class divides_by_zero(Stage):
    def transform(self, updates, state, params, **extra_args):
        return gradtx.map_leaves(normalise_rule, updates), state


class touches_everything(Stage):
    def transform(self, updates, state, params, **extra_args):
        return jax.tree.map(lambda u: 2 * u if hasattr(u, "dtype") else u, updates), state


class rounds_its_rate(Stage):
    def transform(self, updates, state, params, **extra_args):
        return gradtx.map_leaves(scale_rule, updates, c=float(self.rate)), state


class has_no_derivative(Stage):
    def transform(self, updates, state, params, **extra_args):
        return gradtx.map_leaves(nan_rule, updates), state


class takes_anything(Stage):
    def update(self, updates, state, params=None, **extra_args):
        return updates, state


def scale_rule(u, *, c):
    return c * u


def normalise_rule(u):
    return u / jnp.sqrt(jnp.sum(u * u))


def nan_rule(u):
    return u * jnp.nan


class cannot_be_pickled(Stage):
    def __reduce__(self):
        raise RuntimeError("no")


class forgets_shardings(Stage):
    def init(self, params):
        return SlotState(jax.tree.map(lambda p: jnp.zeros(jnp.shape(p)), params))

    def transform(self, updates, state, params, **extra_args):
        return updates, SlotState(jax.tree.map(jnp.zeros_like, updates))


BREAKERS = {
    "is_a_value": lists_its_leaves(),
    "says_what_its_state_is": negative(),
    "keeps_explicit_shardings": forgets_shardings(),
    "has_a_type_fixed_point": promotes(),
    "initialises_abstractly": needs_values(),
    "never_aliases": aliases(),
    "is_the_same_under_jit": knows_of_jit(),
    "scans": branches_on_values(),
    "compiles_once": never_equal(),
    "keeps_still_without_gradient": divides_by_zero(),
    "passes_over_other_leaves": touches_everything(),
    "maps_over_hyperparameters": rounds_its_rate(),
    "differentiates": has_no_derivative(),
    "tells_what_is_wrong": takes_anything(),
}


@pytest.mark.parametrize("law", BREAKERS)
def test_a_law_goes_red(law):
    with pytest.raises(AssertionError, match=f"^{law}: "):
        check_transformation(BREAKERS[law], PARAMS, laws=[law])


def test_pickling_is_part_of_being_a_value():
    with pytest.raises(AssertionError, match=r"^is_a_value: "):
        check_transformation(cannot_be_pickled(), PARAMS, laws=["is_a_value"])
    unpicklable = gradtx.stateless(lambda updates, params: updates)
    check_transformation(unpicklable, PARAMS, laws=["is_a_value"])


def test_the_dtype_of_the_gradients_does_not_matter():
    with pytest.raises(AssertionError, match=r"updates have dtypes .*float16"):
        check_transformation(takes_anything(), PARAMS, laws=["has_a_type_fixed_point"])


def test_sharding_goes_red(monkeypatch):
    """Under `jit` nothing sees the devices, so the comparison itself is broken here."""
    real = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda x, s: real(2 * x, s))
    with pytest.raises(AssertionError, match="shards: "):
        check_transformation(gradtx.sgd(0.1), PARAMS, laws=["shards"])


def test_every_law_has_a_breaker():
    assert set(BREAKERS) | {"shards"} == set(LAWS)


class ReducedState(NamedTuple):
    rows: Annotated[Any, Reduced()]
    done: Flag
    key: Key
    size: Scalar
    own: Annotated[Any, Opaque()]


KEY = jax.random.key(0)


class remembers(Stage):
    """A stage with a field of every kind that is not like the parameters, and none wrong."""

    def init(self, params):
        rows = gradtx.core.leaf.reduced_zeros_like(params, lambda shape: [(0,), ()])
        return ReducedState(
            rows, jnp.array(False), jnp.array(KEY), jnp.zeros(()), {"a": jnp.ones(99)}
        )


def test_fields_of_every_kind_are_let_pass():
    check_transformation(remembers(), PARAMS)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("rows", {"w": jnp.zeros(33)}, "rows is larger than any parameter"),
        ("rows", {"w": jnp.zeros(2, complex)}, "rows is complex"),
        ("done", jnp.zeros(()), "done is not a bool"),
        ("done", jnp.zeros(2, bool), "done is not a bool"),
        ("key", jnp.zeros(2, jnp.uint32), "key is not a prng_key"),
        ("key", jax.random.split(KEY), "key is not a prng_key"),
        ("size", jnp.zeros((), jnp.int32), "size is not a floating"),
        ("own", {"a": 3.0}, "own holds what is not an array"),
    ],
)
def test_fields_of_the_wrong_kind(field, value, words):
    class wrong(remembers):
        def init(self, params):
            return super().init(params)._replace(**{field: value})

    with pytest.raises(AssertionError, match=words):
        check_transformation(wrong(), PARAMS, laws=["says_what_its_state_is"])


def test_a_key_of_ones_own_in_the_state_is_seen():
    class shares_its_key(remembers):
        own: Any = gradtx.core.value.static(default=None)

        def init(self, params):
            return super().init(params)._replace(key=self.own)

    with pytest.raises(AssertionError, match=r"(?s)never_aliases: .*own, which was donated"):
        check_transformation(shares_its_key(own=jax.random.key(1)), PARAMS, laws=["never_aliases"])


def test_keys_are_compared():
    class draws_another(remembers):
        def transform(self, updates, state, params, **extra_args):
            other = isinstance(state.size, jax.core.Tracer)
            return updates, state._replace(key=jax.random.fold_in(state.key, int(other)))

    with pytest.raises(AssertionError, match="the state differs under jit"):
        check_transformation(draws_another(), PARAMS, laws=["is_the_same_under_jit"])
