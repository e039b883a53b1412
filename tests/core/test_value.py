import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.value import Value, content, hyper, integer, is_plain_callable, items_of, static


class thing(Value):
    rate: float
    steps: int = integer(default=3)
    flag: bool = static(default=False)
    mask: object = static(default=None)
    late: float = hyper(default=1.0, kw_only=True)


def double(x):
    return 2 * x


def test_fields_are_positional_and_keyword():
    value = thing(0.5, 4, flag=True, late=2.0)
    assert (value.rate, value.steps, value.flag, value.late) == (0.5, 4, True, 2.0)
    with pytest.raises(TypeError):
        thing(0.5, 4, True, None, 2.0)
    with pytest.raises(TypeError):
        thing()


def test_is_immutable():
    with pytest.raises(AttributeError):
        thing(0.5).rate = 1.0


@pytest.mark.parametrize(
    "number", [1, np.float32(1), np.asarray(1.0), jnp.asarray(1), jnp.ones(())]
)
def test_numbers_become_python_floats(number):
    assert type(thing(number).rate) is float
    assert thing(number) == thing(1.0)


def test_integers_stay_integers():
    assert type(thing(0.5, np.int64(7)).steps) is int
    assert type(thing(0.5, 7).steps) is int


def test_equality_and_hash_are_by_content():
    masks = [{"a": np.array([True, False]), "b": [True]} for _ in range(2)]
    one, same = (thing(0.5, mask=mask) for mask in masks)
    assert one == same and hash(one) == hash(same)
    assert one != thing(0.5, mask={"a": np.array([True, True]), "b": [True]})
    assert one != thing(0.25, mask=masks[0])
    assert thing(0.5) != gradtx.scale(0.5)
    assert thing(0.5) != 0.5


def test_keys_and_arrays_hash_by_content():
    assert content(jax.random.key(1)) == content(jax.random.key(1)) != content(jax.random.key(2))
    assert hash(content(jax.random.key(1))) == hash(content(jax.random.key(1)))
    rates = thing(jnp.asarray([0.1, 0.2]))
    assert rates == thing(jnp.asarray([0.1, 0.2])) != thing(jnp.asarray([0.1, 0.3]))
    assert hash(rates) == hash(thing(jnp.asarray([0.1, 0.2])))


def test_empty_containers_hash():
    for empty in ({}, [], (), None):
        assert hash(content(empty)) == hash(content(type(empty)() if empty is not None else None))
    assert content({}) != content([])


def test_functions_compare_by_identity():
    assert thing(0.5, mask=double) == thing(0.5, mask=double)
    assert thing(0.5, mask=double) != thing(0.5, mask=lambda x: 2 * x)


def test_tracers_stay_tracers_and_do_not_hash():
    @jax.jit
    def f(rate):
        value = thing(rate)
        assert isinstance(value.rate, jax.core.Tracer)
        assert value == value.replace() and value != thing(2 * rate)
        with pytest.raises(TypeError):
            hash(value)
        return value

    assert f(0.5).rate == 0.5


def test_pytree_children_are_the_numbers():
    value = thing(0.5, flag=True, mask={"a": True}, late=2.0)
    leaves, treedef = jax.tree.flatten(value)
    assert leaves == [0.5, 3, 2.0]
    assert jax.tree.unflatten(treedef, leaves) == value
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(value)]
    assert paths == [".rate", ".steps", ".late"]
    same = jax.tree.structure(thing(0.1, flag=True, mask={"a": True}))
    assert same == treedef and hash(same) == hash(treedef)
    assert jax.tree.structure(thing(0.1)) != treedef


def test_functions_among_numbers_are_structure():
    value = thing(double)
    leaves, treedef = jax.tree.flatten(value)
    assert leaves == [3, 1.0]
    assert jax.tree.unflatten(treedef, leaves).rate is double
    assert treedef != jax.tree.structure(thing(abs))


def test_unflattening_never_validates():
    tx = gradtx.adam(1e-3)
    treedef = jax.tree.structure(tx)
    strange = jax.tree.unflatten(treedef, [object()] * treedef.num_leaves)
    assert jax.tree.structure(strange) == treedef
    axes = jax.tree.unflatten(treedef, [0] + [None] * (treedef.num_leaves - 1))
    batch = jax.tree.unflatten(treedef, [jnp.asarray([0.1, 0.2]), *jax.tree.leaves(tx)[1:]])
    assert jax.vmap(lambda tx: tx.learning_rate, in_axes=(axes,))(batch).shape == (2,)
    assert jax.vmap(gradtx.adam)(jnp.asarray([0.1, 0.2])).learning_rate.shape == (2,)


def test_replace():
    assert thing(0.5).replace(steps=5) == thing(0.5, 5)
    with pytest.raises(TypeError, match=r"no field 'rat'.*'rate', 'steps'"):
        thing(0.5).replace(rat=1.0)
    with pytest.raises(ValueError, match="b1"):
        gradtx.adam(1e-3).replace(b1=1.5)
    pair = gradtx.chain(gradtx.scale(1.0), gradtx.scale(2.0))
    assert pair.replace(transforms=(gradtx.scale(1.0),)) == gradtx.chain(gradtx.scale(1.0))


def test_repr_shows_numbers_and_what_was_changed():
    assert repr(thing(0.5)) == "thing(rate=0.5, steps=3, late=1.0)"
    assert repr(thing(0.5, flag=True)) == "thing(rate=0.5, steps=3, flag=True, late=1.0)"
    assert "mu_dtype='bfloat16'" in repr(gradtx.adam(1e-3, mu_dtype=jnp.bfloat16))


def test_pickle():
    tx = gradtx.chain(gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 9), mask={"a": True}))
    assert pickle.loads(pickle.dumps(tx)) == tx


def test_plain_callables():
    assert is_plain_callable(double) and is_plain_callable(abs)
    assert not is_plain_callable(gradtx.constant_schedule(1.0))
    assert not is_plain_callable(1.0) and not is_plain_callable(None)


def test_dtypes_are_normalised():
    assert gradtx.adam(1e-3, mu_dtype="bfloat16") == gradtx.adam(1e-3, mu_dtype=jnp.bfloat16)
    assert gradtx.trace(0.9).accumulator_dtype is None
    for bad in ("int32", "nonsense", 3.5):
        with pytest.raises(TypeError, match="mu_dtype must be a floating dtype"):
            gradtx.adam(1e-3, mu_dtype=bad)


def test_flags_are_booleans_and_numbers_are_not_none():
    assert gradtx.sgd(0.1, nesterov=np.True_) == gradtx.sgd(0.1, nesterov=True)
    with pytest.raises(TypeError, match="nesterov must be True or False, got 'yes'"):
        gradtx.sgd(0.1, 0.9, nesterov="yes")
    with pytest.raises(TypeError, match="learning_rate must be a number, got None"):
        gradtx.adam(None)
    assert gradtx.scale_by_learning_rate(None).learning_rate is None


def test_whole_numbers():
    assert type(thing(0.5, 7.0).steps) is int
    assert thing(0.5, 7.0) == thing(0.5, 7)


def test_items_and_where_they_stand():
    class holds(Value):
        rate: float
        parts: tuple[object, ...]
        named: dict[str, object]
        text: str = static(default="a")

    found = list(items_of(holds(0.5, (1.0, (2.0,)), {"b": 3.0, "c": {}})))
    assert found == [
        (("rate",), 0.5),
        (("parts", 0), 1.0),
        (("parts", 1, 0), 2.0),
        (("named", "b"), 3.0),
    ]
