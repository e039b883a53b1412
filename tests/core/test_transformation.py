import contextlib
import logging
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.examples import EXAMPLES

ROOT = pathlib.Path(gradtx.__file__).parent.parent

PARAMS = {"w": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([3.0])}
GRADS = {"w": jnp.asarray([0.5, -0.5]), "b": jnp.asarray([1.0])}


def halve(updates, state, params=None):
    return jax.tree.map(lambda u: 0.5 * u, updates), state + 1


def test_unpacks_into_its_pair():
    init, update = gradtx.sgd(0.1)
    updates, _ = update(GRADS, init(PARAMS))
    np.testing.assert_allclose(updates["b"], -0.1)


def test_from_two_functions():
    tx = gradtx.GradientTransformation(lambda params: jnp.int32(0), halve)
    assert tx == gradtx.GradientTransformation(init=tx.init_fn, update=halve)
    assert isinstance(tx, gradtx.GradientTransformation)
    assert gradtx.GradientTransformationExtraArgs is gradtx.GradientTransformation
    updates, state = tx.update(GRADS, tx.init(PARAMS))
    assert float(updates["b"][0]) == 0.5 and int(state) == 1
    assert "halve" in repr(tx)
    updates, state = gradtx.chain(tx, tx).update(GRADS, (state, state), PARAMS, unknown=1)
    assert float(updates["b"][0]) == 0.25


@pytest.mark.parametrize("init, update", [(None, halve), (halve, 3)])
def test_two_functions_must_be_functions(init, update):
    with pytest.raises(TypeError, match="must be a function"):
        gradtx.GradientTransformation(init, update)


def test_functions_see_float32_and_no_other_leaves():
    seen = {}

    def update(updates, state, params=None):
        seen.update(updates=updates, params=params)
        return updates, state

    tx = gradtx.GradientTransformation(lambda params: (), update)
    params = {"half": jnp.ones(2, jnp.bfloat16), "step": jnp.arange(2), "none": None}
    updates, _ = tx.update(params, tx.init(params), params)
    assert seen["updates"]["half"].dtype == seen["params"]["half"].dtype == jnp.float32
    assert seen["updates"]["step"] is None
    assert updates["half"].dtype == jnp.bfloat16 and updates["step"] is params["step"]


def test_a_function_that_changes_the_structure_is_told():
    tx = gradtx.stateless(lambda updates, params: updates["w"])
    with pytest.raises(ValueError, match="what the transformation returned"):
        tx.update(GRADS, tx.init(PARAMS))


def test_low_precision_updates_are_rounded_once():
    params = jnp.ones(256, jnp.bfloat16)
    grads = jnp.linspace(0.1, 1.0, 256, dtype=jnp.bfloat16)
    tx = gradtx.chain(gradtx.scale(0.1), gradtx.scale(10.0), gradtx.scale(1.3))
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates, (1.3 * grads.astype(jnp.float32)).astype(jnp.bfloat16))


def test_updates_have_the_dtype_of_params_or_else_of_gradients():
    tx = gradtx.scale(2.0)
    half, single = jnp.ones(2, jnp.float16), jnp.ones(2)
    assert tx.update(single, tx.init(half), half)[0].dtype == jnp.float16
    assert tx.update(half, tx.init(single), single)[0].dtype == jnp.float32
    assert tx.update(half, tx.init(half))[0].dtype == jnp.float16


@pytest.mark.parametrize("tx", [gradtx.adam(0.1), gradtx.sgd(0.1), gradtx.scale_by_adam()])
def test_swapped_arguments(tx):
    state = tx.init(PARAMS)
    with pytest.raises(TypeError, match="swapped"):
        tx.update(state, GRADS, PARAMS)


def test_wrong_shapes_and_structures_name_the_path():
    tx = gradtx.adam(0.1)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=r"updates\['w'\] has shape \(2, 2\).*\(2,\)"):
        tx.update({**GRADS, "w": jnp.ones((2, 2))}, state)
    with pytest.raises(ValueError, match=r"params has \['b'\] and updates does not"):
        tx.update({"w": GRADS["w"]}, state, PARAMS)
    with pytest.raises(ValueError, match=r"updates has \['c'\] and params does not"):
        tx.update({**GRADS, "c": jnp.ones(1)}, state, PARAMS)
    partial = tx.init({"w": PARAMS["w"], "b": None})
    with pytest.raises(ValueError, match=r"updates\['b'\] is an array.*nothing there"):
        tx.update(GRADS, partial, PARAMS)


def test_step_is_in_place_when_donated():
    params = {"w": jnp.ones((64, 64))}
    tx = gradtx.adamw(1e-3)
    state = tx.init(params)
    step = jax.jit(lambda p, s, g: tx.step(g, s, p), donate_argnums=(0, 1))
    memory = step.lower(params, state, params).compile().memory_analysis()
    size = sum(x.nbytes for x in jax.tree.leaves((params, state)))
    assert memory.alias_size_in_bytes == size
    assert memory.temp_size_in_bytes <= 256


def test_leaves_of_equal_shape_are_traced_once():
    traced = []

    def rule(u):
        traced.append(u.shape)
        return u

    tree = [jnp.ones(3)] * 50 + [jnp.ones(4)] * 50
    jax.make_jaxpr(lambda t: gradtx.map_leaves(rule, t))(tree)
    assert sorted(traced) == [(3,), (4,)]


def test_with_extra_args_support_refuses_what_is_no_transformation():
    with pytest.raises(TypeError, match="expected a gradient transformation, got 3"):
        gradtx.with_extra_args_support(3)
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.chain(gradtx.adam)


def test_a_rate_as_an_array_does_not_promote():
    params = jnp.ones(2, jnp.bfloat16)
    for rate in (0.1, np.float32(0.1), jnp.float32(0.1), np.asarray(0.1)):
        tx = gradtx.sgd(rate)
        assert tx.update(params, tx.init(params))[0].dtype == jnp.bfloat16


def test_lookahead_point_is_the_parameters_by_default():
    tx = gradtx.chain(gradtx.adam(0.1), gradtx.masked(gradtx.sgd(0.1), True))
    assert tx.lookahead_point(tx.init(PARAMS), PARAMS) == PARAMS


def test_swapped_arguments_with_a_foreign_state():
    with jax.numpy_dtype_promotion("standard"):
        tx = gradtx.chain(optax.adam(0.1))
        with pytest.raises(TypeError, match="swapped"):
            tx.update(tx.init(PARAMS), GRADS, PARAMS)


def test_integer_gradients_of_optimised_parameters_are_refused():
    tx = gradtx.sgd(0.1)
    with pytest.raises(ValueError, match=r"updates\['w'\] has dtype int32"):
        tx.update({**GRADS, "w": jnp.ones(2, int)}, tx.init(PARAMS), PARAMS)
    step = {"step": jnp.int32(3)}
    zeros = {"step": np.zeros((), jax.dtypes.float0)}
    assert tx.step({**GRADS, **zeros}, tx.init(PARAMS), {**PARAMS, **step})[0]["step"] == 3


def test_a_stage_may_override_update():
    class doubles(gradtx.GradientTransformation):
        def init(self, params):
            return gradtx.EmptyState()

        def update(self, updates, state, params=None, **extra_args):
            return jax.tree.map(lambda u: 2 * u, updates), state

    tx = gradtx.chain(doubles(), gradtx.masked(doubles(), True))
    assert float(tx.update(GRADS, tx.init(PARAMS))[0]["b"][0]) == 4.0

    class does_nothing(gradtx.GradientTransformation):
        pass

    with pytest.raises(TypeError, match="does_nothing defines neither transform nor update"):
        does_nothing().update(GRADS, gradtx.EmptyState())


def test_eager_steps_compile_once_for_all_learning_rates():
    params = jnp.ones(5)
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1), gradtx.add_decayed_weights(0.1))
    tx.step(params, tx.init(params), params)
    with jax.log_compiles(), _counting_compilations() as compiled:
        for rate in (0.2, 0.3, 0.4):
            other = gradtx.chain(
                gradtx.clip(rate), gradtx.sgd(rate), gradtx.add_decayed_weights(rate)
            )
            other.step(params, other.init(params), params)
    assert not compiled


@contextlib.contextmanager
def _counting_compilations():
    compiled = []

    class Handler(logging.Handler):
        def emit(self, record):
            if "Finished XLA compilation" in record.getMessage():
                compiled.append(record.getMessage())

    logger, handler = logging.getLogger("jax"), Handler()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield compiled
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def test_no_constructor_starts_a_backend():
    """`jax.distributed.initialize` must come before the first backend, also after imports."""
    code = """
import gradtx
from jax._src import xla_bridge
from tests.examples import EXAMPLES
schedules = [
    gradtx.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100),
    gradtx.warmup_exponential_decay_schedule(0.0, 1.0, 2, 10, 0.5),
    gradtx.piecewise_interpolate_schedule("cosine", 1.0, {10: 0.5}),
]
print(EXAMPLES.keys())
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_a_missing_extra_argument_is_named_with_its_stage():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.masked(gradtx.polyak_sgd(), True))
    assert dict(tx.required_extra_args) == {"value": "scale_by_polyak"}
    params = jnp.ones(2)
    with pytest.raises(TypeError, match="scale_by_polyak needs the extra argument 'value'"):
        tx.update(params, tx.init(params), params)


class _needy(gradtx.GradientTransformation):
    requires = ("params",)

    def init(self, params):
        return gradtx.EmptyState()

    def transform(self, updates, state, params, **extra_args):
        return jax.tree.map(jnp.add, updates, params), state


@pytest.mark.parametrize(
    "around",
    [
        lambda tx: tx,
        lambda tx: gradtx.chain(gradtx.clip(1.0), tx),
        lambda tx: gradtx.named_chain(("a", gradtx.sgd(0.1)), ("b", gradtx.chain(tx))),
        lambda tx: gradtx.masked(tx, True),
        lambda tx: gradtx.partition({"a": tx, "b": gradtx.sgd(0.1)}, {"w": "a", "b": "b"}),
        lambda tx: gradtx.groups([("w", gradtx.sgd(0.1))], default=tx),
        lambda tx: gradtx.freeze(tx, "b"),
        lambda tx: gradtx.flatten(tx),
        lambda tx: gradtx.accumulate(tx, 4),
        lambda tx: gradtx.skip_nonfinite(tx),
        lambda tx: gradtx.conditionally_transform(tx, lambda count: count > 3),
        lambda tx: gradtx.inject_hyperparams(tx),
        lambda tx: gradtx.inject_hyperparams(lambda rate: gradtx.chain(tx, gradtx.scale(rate)))(
            1.0
        ),
        lambda tx: optax.chain(optax.clip(1.0), tx),
        lambda tx: gradtx.chain(optax.chain(optax.clip(1.0), tx)),
    ],
)
def test_missing_params_are_told_with_the_stage_that_requires_them(around):
    tx = around(_needy())
    state = tx.init(PARAMS)
    message = r"^_needy needs params: update\(updates, state, params\)$"
    with pytest.raises(ValueError, match=message):
        tx.update(GRADS, state)
    tx.update(GRADS, state, PARAMS)


def test_params_are_no_extra_argument():
    tx = gradtx.chain(_needy(), gradtx.polyak_sgd())
    assert dict(tx.required_extra_args) == {"value": "scale_by_polyak"}
    with pytest.raises(TypeError, match="'value'"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_update_without_params_works_or_says_that_it_needs_them(name):
    tx = EXAMPLES[name]
    params = {"w": jnp.ones((8, 4)), "b": jnp.ones(4)}
    extra = {"value": 1.0, "grad": params, "value_fn": lambda p: jnp.sum(p["w"])}
    state = jax.eval_shape(tx.init, params)
    try:
        jax.eval_shape(lambda g, s: tx.update(g, s, **extra), params, state)
    except ValueError as error:
        assert str(error).endswith(" needs params: update(updates, state, params)")


def test_what_a_foreign_update_requires_is_read_from_its_signature():
    def update(updates, state, params=None, *, grad, other=None):
        return updates, state

    tx = gradtx.chain(gradtx.GradientTransformation(lambda params: (), update))
    assert list(tx.required_extra_args) == ["grad"]
    with pytest.raises(TypeError, match="needs the extra argument 'grad'"):
        tx.update(jnp.ones(2), tx.init(None))


def test_a_judge_is_asked_about_the_updates():
    tx, params = gradtx.sgd(0.1), jnp.ones(2)
    assert tx.judge(jnp.sum, params, tx.init(params), params) == pytest.approx(-0.2)
