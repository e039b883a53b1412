from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.core.slot import (
    Boolean,
    Count,
    Counter,
    Flag,
    Inner,
    Key,
    Nested,
    Number,
    Opaque,
    RandomKey,
    Reduced,
    Scalar,
    Slot,
    is_state,
    kinds,
)


class Good(NamedTuple):
    count: Count
    loss: Scalar
    mu: Annotated[Any, Slot()]
    nu: Annotated[Any, Slot(nonnegative=True)]
    inner: Inner


class Bad(NamedTuple):
    count: Count
    mu: Any


def test_kinds():
    assert kinds(Good) == {
        "count": Counter(),
        "loss": Number(),
        "mu": Slot(),
        "nu": Slot(nonnegative=True),
        "inner": Nested(),
    }
    assert kinds(gradtx.EmptyState) == {}


class Others(NamedTuple):
    rows: Annotated[Any, Reduced()]
    done: Flag
    key: Key
    own: Annotated[Any, Opaque()]


def test_kinds_of_what_is_not_like_the_parameters():
    assert kinds(Others) == {
        "rows": Reduced(),
        "done": Boolean(),
        "key": RandomKey(),
        "own": Opaque(),
    }


def test_a_field_without_a_kind_is_named():
    with pytest.raises(TypeError, match=r"Bad\.mu does not say what kind of slot it is"):
        kinds(Bad)


def test_states_are_told_from_parameters():
    tx = gradtx.chain(gradtx.adam(0.1), gradtx.masked(gradtx.sgd(0.1, 0.9), True))
    named = gradtx.named_chain(("a", gradtx.adam(0.1)))
    params = {"w": jnp.ones(2)}
    assert is_state(tx.init(params)) and is_state(named.init(params))
    assert is_state(gradtx.EmptyState())
    for other in (params, (), {}, jnp.ones(2), None, (jnp.ones(2),), Bad(1, 2)):
        assert not is_state(other)
    assert not is_state(optax.adam(0.1).init(params))
