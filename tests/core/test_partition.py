import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradtx

PARAMS = {
    "encoder": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)},
    "head": {"w": jnp.ones((2, 1)), "b": jnp.ones(1), "steps": jnp.asarray(3)},
    "none": None,
}
GRADS = jax.tree.map(lambda x: 0.5 * x if jnp.issubdtype(x.dtype, jnp.inexact) else x, PARAMS)
FLOATS = {
    name: {k: v for k, v in PARAMS[name].items() if k != "steps"} for name in ("encoder", "head")
}


def by_size(params):
    return jax.tree.map(lambda x: "matrix" if jnp.ndim(x) > 1 else "vector", params)


def run(tx, params, steps=3, **extra_args):
    state = tx.init(params)
    for _ in range(steps):
        grads = jax.tree.map(lambda p: 0.5 * p + 1, params)
        updates, state = tx.update(grads, state, params, **extra_args)
        params = optax.apply_updates(params, updates)
    return params, state


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
@pytest.mark.parametrize(
    "labels", [by_size, by_size(FLOATS), {"encoder": "matrix", "head": "vector"}]
)
def test_equals_optax(labels):
    def make(library):
        transforms = {"matrix": library.adamw(0.1), "vector": library.sgd(0.1, momentum=0.9)}
        return library.partition(transforms, labels)

    ours, state = run(make(gradtx), FLOATS)
    theirs, their_state = run(make(optax), FLOATS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), ours, theirs)
    assert type(state).__name__ == "PartitionState"
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(their_state))
    mu = state.inner_states["matrix"].inner_state[0].mu
    their_mu = their_state.inner_states["matrix"].inner_state[0].mu
    assert len(jax.tree.leaves(mu)) == len(jax.tree.leaves(their_mu))


def test_the_same_as_each_part_on_its_own():
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([3.0])}
    parts = {"one": gradtx.adam(0.1), "two": gradtx.clip_by_global_norm(0.1)}
    both, _ = run(gradtx.partition(parts, {"a": "one", "b": "two"}), params)
    for name, label in {"a": "one", "b": "two"}.items():
        alone, _ = run(parts[label], params[name])
        np.testing.assert_array_equal(both[name], alone)


def test_leaves_that_are_not_optimised_need_a_label_and_pass():
    tx = gradtx.partition({"matrix": gradtx.adam(0.1), "vector": gradtx.sgd(0.1)}, by_size)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert updates["none"] is None and updates["head"]["steps"] is PARAMS["head"]["steps"]


def test_a_missing_gradient_is_no_update():
    tx = gradtx.partition({"matrix": gradtx.adam(0.1), "vector": gradtx.sgd(0.1)}, by_size)
    grads = {**GRADS, "head": {**GRADS["head"], "w": None}}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert updates["head"]["w"] is None and updates["encoder"]["w"] is not None


def test_labels_are_taken_from_the_parameters():
    def large(params):
        return jax.tree.map(lambda x: "large" if float(jnp.max(x)) > 1 else "small", params)

    tx = gradtx.partition({"large": gradtx.scale(2.0), "small": gradtx.scale(3.0)}, large)
    params = {"a": jnp.asarray([5.0]), "b": jnp.asarray([0.5])}
    grads = {"a": jnp.asarray([0.1]), "b": jnp.asarray([7.0])}  # labels would flip on these
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [0.2, 21.0], rtol=1e-6)


def test_a_label_without_transformation_is_named_with_its_leaf():
    tx = gradtx.partition({"matrix": gradtx.adam(0.1), "vector": gradtx.sgd(0.1)}, {"a": "matrx"})
    with pytest.raises(ValueError, match=r"'a' has the label 'matrx'.*did you mean 'matrix'"):
        tx.init({"a": jnp.ones(2)})
    with pytest.raises(ValueError, match="param_labels must have the structure"):
        tx.init({"b": jnp.ones(2)})
    with pytest.raises(TypeError, match="transforms must be a dict"):
        gradtx.partition([gradtx.sgd(0.1)], {})
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.partition({"a": 1.0}, {})


def test_updates_of_another_structure_than_the_parameters():
    for tx in (
        gradtx.partition({"one": gradtx.sgd(0.1)}, "one"),
        gradtx.groups([("w", gradtx.adam(0.1))], default=gradtx.sgd(0.1)),
    ):
        params = {"w": jnp.ones(2), "b": jnp.ones(2)}
        for wrong in ({"w": jnp.ones(2)}, {"w": jnp.ones(2), "c": jnp.ones(2)}):
            with pytest.raises(ValueError, match="updates and params differ in structure"):
                tx.update(wrong, tx.init(params), params)


def test_labels_may_be_a_callable_module():
    class Module(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones(2))

        def __call__(self, x):
            raise AssertionError("the labels were called")

    model = Module()
    labels = jax.tree.map(lambda _: "one", model)
    tx = gradtx.partition({"one": gradtx.sgd(0.1)}, labels)
    assert tx.assignment(model) == {"w": "one"} or list(tx.assignment(model).values()) == ["one"]


@jax.numpy_dtype_promotion("standard")  # Optax mixes dtypes
def test_transformations_of_optax_and_extra_args_inside():
    tx = gradtx.partition({"m": optax.adam(0.1), "v": gradtx.polyak_sgd()}, {"a": "m", "b": "v"})
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    assert list(tx.required_extra_args) == ["value"]
    run(tx, params, value=1.0)
    with pytest.raises(TypeError, match="needs the extra argument 'value'"):
        run(tx, params)


def test_extra_args_like_the_updates_are_masked_on_request():
    seen = {}

    def update(updates, state, params=None, *, like):
        seen["like"] = like
        return updates, state

    inner = gradtx.GradientTransformation(lambda params: (), update)
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    for masks in (True, False):
        tx = gradtx.partition(
            {"m": inner, "v": gradtx.sgd(0.1)},
            {"a": "m", "b": "v"},
            mask_compatible_extra_args=masks,
        )
        tx.update(params, tx.init(params), params, like=params)
        assert isinstance(seen["like"]["b"], gradtx.MaskedNode) == masks


def test_multi_transform_is_the_same():
    assert gradtx.multi_transform is gradtx.partition
    assert gradtx.MultiTransformState is gradtx.PartitionState


RULES = [
    (r"encoder/.*b$", gradtx.sgd(0.1)),
    (lambda path, leaf: leaf.ndim > 1, gradtx.adamw(0.1)),
]


def test_first_rule_that_fits_wins():
    tx = gradtx.groups(
        [*RULES, ("w", gradtx.sgd(1.0)), ("b", gradtx.sgd(2.0))][:2], gradtx.clip(1.0)
    )
    assert tx.assignment(PARAMS) == {
        "encoder/b": "encoder/.*b$",
        "encoder/w": "<lambda>",
        "head/b": "default",
        "head/w": "<lambda>",
    }
    ours, _ = run(tx, FLOATS)
    labels = {"encoder": {"w": "m", "b": "e"}, "head": {"w": "m", "b": "d"}}
    transforms = {"e": gradtx.sgd(0.1), "m": gradtx.adamw(0.1), "d": gradtx.clip(1.0)}
    expected, _ = run(gradtx.partition(transforms, labels), FLOATS)
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_of_two_rules_that_fit_a_leaf_the_first_counts():
    rules = [("head", gradtx.sgd(0.1)), ("w", gradtx.sgd(0.2))]
    found = gradtx.groups(rules, default=gradtx.sgd(0.3)).assignment(FLOATS)
    assert found["head/w"] == "head" and found["encoder/w"] == "w"


def test_rules_need_not_fit_a_tree_without_optimised_leaves():
    gradtx.groups([("w", gradtx.sgd(0.1))], default=gradtx.sgd(0.3)).init({"n": jnp.arange(2)})


@pytest.mark.parametrize("rules", [[("typo", gradtx.sgd(1.0))], [("w", gradtx.sgd(1.0))] * 2])
def test_a_rule_that_fits_nothing_is_refused(rules):
    tx = gradtx.groups(rules, default=gradtx.sgd(0.1))
    with pytest.raises(ValueError, match=r"the rule '(typo|w)' fits no leaf.*'encoder/b'"):
        tx.init(PARAMS)
    tx.init({})  # a tree without leaves has nothing to fit


def test_an_integer_leaf_fits_no_rule():
    tx = gradtx.groups([("steps", gradtx.sgd(1.0))], default=gradtx.sgd(0.1))
    with pytest.raises(ValueError, match="fits no leaf"):
        tx.init(PARAMS)


def test_groups_refuses_what_is_no_rule():
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        gradtx.groups([("(", gradtx.sgd(0.1))], default=gradtx.sgd(0.1))
    with pytest.raises(TypeError, match="a regular expression or a function of path and leaf"):
        gradtx.groups([(3, gradtx.sgd(0.1))], default=gradtx.sgd(0.1))
    with pytest.raises(TypeError, match=r"\(rule, transformation\) pairs"):
        gradtx.groups(["w"], default=gradtx.sgd(0.1))


def test_rules_see_abstract_leaves_and_nnx_paths():
    model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 1, rngs=nnx.Rngs(1)))
    params = nnx.state(model, nnx.Param)
    tx = gradtx.groups([("bias", gradtx.sgd(0.1))], default=gradtx.adam(0.1))
    jax.eval_shape(tx.init, params)
    labels = tx.assignment(params)
    assert sorted(labels.values()) == ["bias", "bias", "default", "default"]
    assert all(("bias" in path) == (label == "bias") for path, label in labels.items())


def test_functions_of_one_name_have_states_of_their_own():
    rules = [
        (lambda path, x: path == "a", gradtx.adam(0.1)),
        (lambda path, x: path == "b", gradtx.clip(1.0)),
    ]
    state = gradtx.groups(rules, gradtx.sgd(0.1)).init({"a": jnp.ones(2), "b": jnp.ones(2)})
    assert list(state.inner_states) == ["<lambda>", "<lambda>'", "default"]


def test_a_norm_inside_is_that_of_its_leaves_and_before_it_that_of_all():
    params = {"a": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}
    clip = gradtx.clip_by_global_norm(1.0)
    labels = {"a": "one", "b": "two"}
    inside = gradtx.partition({"one": clip, "two": clip}, labels)
    same = gradtx.partition({"one": gradtx.identity(), "two": gradtx.identity()}, labels)
    for tx, expected in ((inside, (1.0, 1.0)), (gradtx.chain(clip, same), (0.6, 0.8))):
        updates, _ = tx.update(params, tx.init(params), params)
        np.testing.assert_allclose([*updates["a"], *updates["b"]], expected, rtol=1e-6)
