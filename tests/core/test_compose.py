import chex
import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.core.compose import steps_in_place
from gradtx.testing import gradients_like

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.ones(2)}
GRADS = gradients_like(PARAMS)
A, B, C = gradtx.clip_by_global_norm(1.0), gradtx.scale_by_adam(), gradtx.scale(-0.1)


def run(tx, steps=3):
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(steps):
        params, state = tx.step(GRADS, state, params)
    return params, state


def test_chain_is_associative():
    flat, _ = run(gradtx.chain(A, B, C))
    chex.assert_trees_all_equal(flat, run(gradtx.chain(A, gradtx.chain(B, C)))[0])
    chex.assert_trees_all_equal(flat, run(gradtx.chain(gradtx.chain(A, B), C))[0])


def test_identity_is_neutral():
    alone, _ = run(B)
    chex.assert_trees_all_equal(alone, run(gradtx.chain(gradtx.identity(), B))[0])
    chex.assert_trees_all_equal(alone, run(gradtx.chain(B, gradtx.chain()))[0])


def test_order_matters():
    before, _ = run(gradtx.chain(gradtx.clip(0.1), gradtx.scale(2.0)))
    after, _ = run(gradtx.chain(gradtx.scale(2.0), gradtx.clip(0.1)))
    assert not jnp.allclose(before["w"], after["w"])


def test_state_is_the_tuple_of_states():
    _, state = run(gradtx.chain(A, B, C))
    assert isinstance(state, tuple) and len(state) == 3
    assert isinstance(state[1], gradtx.ScaleByAdamState) and int(state[1].count) == 3


def test_named_chain_is_chain_with_names():
    chained, state = run(gradtx.chain(A, B, C))
    named, by_name = run(gradtx.named_chain(("clip", A), ("adam", B), ("descend", C)))
    chex.assert_trees_all_equal(chained, named)
    chex.assert_trees_all_equal(by_name["adam"], state[1])
    assert list(by_name) == ["clip", "adam", "descend"]


def test_named_chain_keeps_its_order_as_a_pytree():
    tx = gradtx.named_chain(("z", gradtx.scale(2.0)), ("a", gradtx.clip(0.1)))
    copy = jax.tree.map(lambda x: x, tx)
    assert repr(copy) == repr(tx)
    chex.assert_trees_all_equal(run(copy)[0], run(tx)[0])
    traced = jax.jit(lambda tx: run(tx)[0])(tx)
    chex.assert_trees_all_close(traced, run(tx)[0], rtol=1e-6)


def test_named_chain_refuses_bad_pairs():
    with pytest.raises(ValueError, match="'a' stands twice"):
        gradtx.named_chain(("a", A), ("a", B))
    with pytest.raises(TypeError, match="pairs"):
        gradtx.named_chain(A)
    with pytest.raises(TypeError, match="pairs"):
        gradtx.named_chain((A, "a"))


def test_a_state_of_another_chain_is_refused():
    with pytest.raises(ValueError, match="chain of 2 transformations needs a state of 2 parts"):
        gradtx.chain(A, B).update(GRADS, gradtx.chain(A, B, C).init(PARAMS))
    with pytest.raises(ValueError, match="needs a state of 2 parts"):
        gradtx.chain(A, B).update(GRADS, 3)


class ChainVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_step(self):
        tx = gradtx.chain(A, B, C)
        params, state = self.variant(tx.step)(GRADS, tx.init(PARAMS), PARAMS)
        chex.assert_trees_all_close(params, run(tx, steps=1)[0], rtol=1e-6)
        chex.assert_trees_all_equal_shapes_and_dtypes(state, tx.init(PARAMS))
        chex.assert_tree_all_finite((params, state))


def test_replace_normalises_and_checks_as_construction_does():
    assert gradtx.chain(A).replace(transforms=[A, B]) == gradtx.chain(A, B)
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.chain(A).replace(transforms=(3,))
    named = gradtx.named_chain(("a", A), ("b", B))
    with pytest.raises(ValueError, match="'a' stands twice"):
        named.replace(names=("a", "a"))
    with pytest.raises(ValueError, match="2 transformations need as many names"):
        named.replace(names=("a",))


@pytest.mark.parametrize(
    "outer",
    [
        lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
        lambda tx: gradtx.chain(A, gradtx.chain(gradtx.identity(), tx)),
        lambda tx: gradtx.named_chain(("clip", A), ("tx", tx)),
    ],
)
def test_what_steps_in_place_does_so_at_the_end_of_a_chain(outer):
    """As it does by itself: no tree of updates is stored, and the numbers are those of update."""
    inner = gradtx.accumulate(gradtx.adamw(1e-3), 2)
    tx = outer(inner)
    assert steps_in_place(tx) and not steps_in_place(gradtx.chain(inner, gradtx.scale(1.0)))
    large = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)}
    assert gradtx.compile_report(tx, large).temporary_bytes < 0.1 * 256 * 256

    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(4):
        updates, updated = tx.update(GRADS, state, params)
        expected = gradtx.apply_updates(params, updates)
        params, state = tx.step(GRADS, state, params)
        chex.assert_trees_all_close(params, expected, rtol=1e-6)
        chex.assert_trees_all_close(state, updated, rtol=1e-6)


def test_slots_that_are_read_late_are_written_late_in_such_a_chain():
    stage = gradtx.scale_by_optimistic_gradient()
    tx = gradtx.chain(stage, gradtx.accumulate(gradtx.sgd(0.1), 2))
    large = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)}
    assert gradtx.compile_report(tx, large).temporary_bytes < 0.1 * 256 * 256


ROOTS = [
    gradtx.scale_by_adam(),
    gradtx.scale_by_adam(b1=0.8, nesterov=True),
    gradtx.scale_by_adam(bias_correction=False),
    gradtx.scale_by_adam(mu_dtype="bfloat16"),
    gradtx.scale_by_rms(0.8),
    gradtx.scale_by_rms(0.8, eps=0.1, eps_in_sqrt=False, bias_correction=True),
    gradtx.scale_by_stddev(0.8, initial_scale=1.0),
    gradtx.scale_by_stddev(0.8, eps=0.1, initial_scale=1.0, eps_in_sqrt=False),
    gradtx.scale_by_stddev(0.8, eps=0.1, bias_correction=True),
]
TWICE = [gradtx.trace(0.9, nesterov=True), gradtx.scale_by_optimistic_gradient(1.0, 0.5)]


@pytest.mark.parametrize("first", ROOTS, ids=repr)
def test_updates_are_formed_again_from_the_new_state(first):
    state = first.init(PARAMS)
    for _ in range(3):
        updates, new = first.transform(GRADS, state, PARAMS)
        again = first.transform_again(GRADS, state, new, PARAMS)
        if getattr(first, "mu_dtype", None) is not None:
            assert again is None
        else:
            chex.assert_trees_all_close(again, updates, rtol=1e-6)
        state = new


@pytest.mark.parametrize("second", TWICE, ids=repr)
@pytest.mark.parametrize("first", ROOTS, ids=repr)
def test_what_uses_roots_twice_has_the_numbers_of_one_use(first, second):
    rate = gradtx.scale_by_learning_rate(gradtx.linear_schedule(0.1, 0.0, 10))
    opaque = gradtx.GradientTransformation(first.init, first.update)
    assert opaque.transform_again(GRADS, None, None, PARAMS) is None
    found, state = run(gradtx.chain(first, rate, second))
    expected, expected_state = run(gradtx.chain(opaque, rate, second))
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    chex.assert_trees_all_close(state, expected_state, rtol=1e-6)


@pytest.mark.parametrize("second", TWICE, ids=repr)
@pytest.mark.parametrize("first", [ROOTS[0], ROOTS[4], ROOTS[6]], ids=repr)
def test_what_uses_roots_twice_stores_none_for_it(first, second):
    rate = gradtx.scale_by_learning_rate(gradtx.linear_schedule(0.1, 0.0, 10))
    large = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)}
    for tx in (gradtx.chain(first, rate, second), gradtx.chain(first, gradtx.scale(-1.0), second)):
        assert gradtx.compile_report(tx, large).temporary_bytes < 0.05 * 256 * 256


class Tenfold(gradtx.scale_by_adam):
    def transform(self, updates, state, params, **extra_args):
        updates, state = super().transform(updates, state, params, **extra_args)
        return jax.tree.map(lambda u: 10 * u, updates), state


class Halved(gradtx.trace):
    def transform(self, updates, state, params, **extra_args):
        updates, state = super().transform(updates, state, params, **extra_args)
        return jax.tree.map(lambda u: u / 2, updates), state


class ByValue(gradtx.scale):
    requires = ("value",)
    is_cheap = True

    def transform(self, updates, state, params, *, value, **extra_args):
        return jax.tree.map(lambda u: u * value, updates), state


@pytest.mark.parametrize(
    "first, second",
    [
        (Tenfold(), gradtx.trace(0.9, nesterov=True)),
        (gradtx.scale_by_adam(), Halved(0.9, nesterov=True)),
        (gradtx.chain(ROOTS[0], ByValue(1.0)), gradtx.trace(0.9, nesterov=True)),
        (ByValue(1.0), gradtx.trace(0.9, nesterov=True)),
    ],
    ids=["first", "second", "nested", "extra argument"],
)
def test_subclasses_and_extra_arguments_are_heeded(first, second):
    alike = [gradtx.chain(first, second), gradtx.chain(gradtx.chain(first), second)]
    found, expected = (tx.update(GRADS, tx.init(PARAMS), PARAMS, value=2.0)[0] for tx in alike)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    own = first.update(GRADS, first.init(PARAMS), PARAMS, value=2.0)[0]
    own = second.update(own, second.init(PARAMS), PARAMS)[0]
    chex.assert_trees_all_close(found, own, rtol=1e-6)


def test_an_empty_chain_steps():
    params, state = gradtx.chain().step(GRADS, (), PARAMS)
    assert state == ()
    chex.assert_trees_all_close(params["b"], PARAMS["b"] + GRADS["b"])
