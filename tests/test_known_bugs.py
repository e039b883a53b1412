"""Bugs reported against Optax and its like, each as something that must not happen here.

A test's name begins with the number of its row in the project's list of such bugs; rows about
algorithms that gradtx does not have yet join with these.
"""

import gc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.testing import gradients_like
from tests.examples import EXAMPLES, public_transformations
from tests.properties.test_laws import EXTRA

OPTIMIZERS = {
    name: EXAMPLES[f"{name}-0"]
    for name, made in public_transformations().items()
    if ".optimizers." in getattr(made, "__module__", "")
}
SCHEDULES = {
    name: tx
    for name, tx in vars(gradtx).items()
    if isinstance(tx, type) and issubclass(tx, gradtx.Schedule) and tx is not gradtx.Schedule
}
W = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.ones(2)}


def low(tree, dtype=jnp.bfloat16):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def run(tx, params, grads, steps=3, **extra_args):
    state = tx.init(params)
    for _ in range(steps):
        params, state = tx.step(grads, state, params, **extra_args)
    return params, state


def finite(tree):
    return all(bool(jnp.all(jnp.isfinite(x.astype(jnp.float32)))) for x in jax.tree.leaves(tree))


def test_01_run_time_hyperparameters_are_not_rounded_to_bfloat16():
    params, grads = low(W), low(W)
    for make in (gradtx.adam, gradtx.adamw, gradtx.nadam, gradtx.lamb):
        injected, state = run(gradtx.inject_hyperparams(make)(1e-2), params, grads)
        plain, _ = run(make(1e-2), params, grads)
        assert finite(injected) and state.hyperparams["b2"] == np.float32(0.999)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2), injected, plain)


def test_02_injected_and_plain_agree_over_200_steps():
    plain, _ = run(gradtx.adam(1e-2), W, W, steps=200)
    injected, _ = run(gradtx.inject_hyperparams(gradtx.adam)(1e-2), W, W, steps=200)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), injected, plain)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_03_init_with_run_time_hyperparameters_can_be_compiled(name):
    tx = gradtx.inject_hyperparams(OPTIMIZERS[name])
    jax.jit(tx.init)(W)


def test_04_an_injected_schedule_starts_at_0():
    tx = gradtx.inject_hyperparams(gradtx.sgd)(gradtx.linear_schedule(1.0, 0.0, 2))
    updates, _ = tx.update(jnp.ones(()), tx.init(jnp.ones(())))
    assert updates == -1.0


def test_06_the_first_optimistic_step_is_a_plain_step():
    tx = gradtx.optimistic_gradient_descent(0.1)
    updates, _ = tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


def test_07_clipping_zero_gradients_gives_zero():
    zeros = jax.tree.map(jnp.zeros_like, W)
    for tx in (gradtx.clip_by_global_norm(1e-30), gradtx.clip_by_block_rms(1e-30)):
        updates, _ = tx.update(zeros, tx.init(W), W)
        assert all(bool(jnp.all(x == 0)) for x in jax.tree.leaves(updates))
    exact = jnp.asarray([3.0, 4.0])
    updates, _ = gradtx.clip_by_global_norm(5.0).update(exact, gradtx.EmptyState())
    np.testing.assert_array_equal(updates, exact)


def test_08_norms_are_summed_in_float32():
    assert float(gradtx.global_norm(jnp.full(300, 4096.0, jnp.float16))) == pytest.approx(
        4096 * math.sqrt(300), rel=1e-5
    )
    values = jnp.asarray(np.random.default_rng(0).normal(size=100_000), jnp.bfloat16)
    exact = np.linalg.norm(np.asarray(values, np.float64))
    assert float(gradtx.global_norm(values)) == pytest.approx(exact, rel=1e-5)
    updates, _ = gradtx.clip_by_global_norm(1.0).update(
        {"half": jnp.full(300, 4096.0, jnp.float16), "single": jnp.ones(2)}, gradtx.EmptyState()
    )
    assert float(updates["half"][0]) > 0


def test_09_adafactor_with_an_offset_is_finite_and_then_the_same():
    offset = gradtx.adafactor(0.1, decay_offset=3)
    params, state = run(offset, W, W, steps=5)
    assert finite((params, state))


def test_13_apply_if_finite_resets_its_streak_and_never_writes_nan():
    tx = gradtx.apply_if_finite(gradtx.sgd(0.1), max_consecutive_errors=1)
    nan = jax.tree.map(lambda x: x * jnp.nan, W)
    params, state = W, tx.init(W)
    for grads, count in ((nan, 1), (W, 0), (nan, 1), (nan, 2), (nan, 3), (W, 0)):
        params, state = tx.step(grads, state, params)
        assert finite(params) and int(state.notfinite_count) == count
    assert int(state.total_notfinite) == 4


def test_14_updates_that_are_not_finite_are_skipped_too():
    inner = gradtx.scale(2.0)
    for tx in (gradtx.apply_if_finite(inner, 3), gradtx.skip_nonfinite(inner)):
        params, state = tx.step(jnp.full(2, 3e38), tx.init(jnp.ones(2)), jnp.ones(2))
        np.testing.assert_array_equal(params, 1.0)
        assert int(state.total_notfinite) == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_16_every_schedule_compiles(name):
    import doctest

    names = {"gradtx": gradtx, "jax": jax, "jnp": jnp}
    for example in doctest.DocTestParser().get_examples(SCHEDULES[name].__doc__):
        if "=" in example.source and not example.source.startswith("print"):
            exec(example.source, names)
    schedule = names["schedule"]
    for count in (0, 1, 7):
        np.testing.assert_allclose(jax.jit(schedule)(count), schedule(count), rtol=1e-6)


def test_17_a_warm_up_to_a_peak_of_0():
    schedule = gradtx.warmup_cosine_decay_schedule(0.0, 0.0, 2, 10)
    assert all(float(schedule(count)) == 0.0 for count in range(12))


def test_19_an_integer_b1_of_0():
    tx = gradtx.adam(1e-3, b1=0)
    step = jax.jit(lambda p, s: tx.step(p, s, p))
    params, state = W, tx.init(W)
    for _ in range(200):
        params, state = step(params, state)
    assert finite((params, state))


def test_20_integer_parameters_are_left_alone():
    params = {"w": jnp.ones(2), "step": jnp.asarray(3)}
    tx = gradtx.adamw(1.0, weight_decay=0.9)
    moved, _ = run(tx, params, params)
    assert int(moved["step"]) == 3


@pytest.mark.parametrize(
    "rate", [0.1, np.float32(0.1), np.float64(0.1), np.asarray(0.1), jnp.bfloat16(0.1)]
)
def test_21_the_type_of_the_rate_does_not_reach_the_updates(rate):
    for params in (jnp.ones(2), jnp.ones(2, jnp.bfloat16)):
        tx = gradtx.sgd(rate)
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates.dtype == params.dtype


@pytest.mark.parametrize("name", ["adafactor", "adam", "lamb", "sm3"])
def test_22_branches_of_multi_steps_agree_in_bfloat16(name):
    tx = gradtx.MultiSteps(OPTIMIZERS[name], 2)
    params = low(W)
    step = jax.jit(lambda p, s: tx.step(p, s, p))
    state = tx.init(params)
    for _ in range(4):
        params, state = step(params, state)
    assert finite(params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", ["lbfgs", "sgd"])
def test_24_25_line_searches_keep_their_types_and_compile_once(name, dtype):
    tx = (
        gradtx.lbfgs()
        if name == "lbfgs"
        else gradtx.chain(
            gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(8, store_grad=True)
        )
    )
    traced = []

    def loss(x):
        return jnp.sum((x - 1) ** 2)

    @jax.jit
    def step(params, state):
        traced.append(1)
        value, grad = gradtx.value_and_grad_from_state(loss)(params, state=state)
        return tx.step(grad, state, params, value=value, grad=grad, value_fn=loss)

    params = jnp.zeros(3, dtype)
    state = tx.init(params)
    for _ in range(20):
        params, state = step(params, state)
    assert len(traced) == 1
    np.testing.assert_allclose(params.astype(jnp.float32), 1.0, rtol=0.02)


def test_26_lbfgs_on_complex_parameters_as_on_their_parts():
    def loss(z):
        return jnp.sum(jnp.abs(z - (1 + 2j)) ** 2 * jnp.asarray([1.0, 10.0]))

    result = gradtx.minimize(loss, jnp.zeros(2, jnp.complex64))
    np.testing.assert_allclose(result.params, 1 + 2j, rtol=1e-4)


def test_31_adabelief_measures_from_the_new_mean():
    """From the old one, 0 at the first step, nu would be (1 - b2) g^2."""
    tx = gradtx.scale_by_belief(b1=0.75, b2=0.5, eps_root=0.0)
    _, state = tx.update(jnp.full(1, 4.0), tx.init(jnp.ones(1)))
    np.testing.assert_allclose(state.nu, 0.5 * (4.0 - 0.25 * 4.0) ** 2, rtol=1e-6)


def test_32_adabelief_adds_eps_outside_the_root_and_eps_root_into_the_state():
    one = jnp.ones(1)
    tx = gradtx.scale_by_belief(b1=0.75, b2=0.5, eps=0.25, eps_root=0.0)
    updates, _ = tx.update(one, tx.init(one))
    np.testing.assert_allclose(updates, 1 / (0.75 + 0.25), rtol=1e-6)
    tx = gradtx.scale_by_belief(b1=0.75, b2=0.5, eps_root=1.0)
    state = tx.init(one)
    for nu in (1.0, 1.5, 1.75):
        _, state = tx.update(jnp.zeros(1), state)
        np.testing.assert_allclose(state.nu, nu, rtol=1e-6)


def test_33_yogi_moves_by_a_share_of_the_squared_gradient():
    tx = gradtx.scale_by_yogi(b2=0.5, initial_accumulator_value=1.0)
    state = tx.init(jnp.ones(1))
    for gradient, nu in ((0.0, 1.0), (0.5, 0.875), (2.0, 2.875)):
        _, state = tx.update(jnp.full(1, gradient), state)
        np.testing.assert_allclose(state.nu, nu, rtol=1e-6)


@pytest.mark.parametrize("max_first, expected", [(False, 0.1), (True, 0.1 / math.sqrt(0.5 / 0.75))])
def test_34_amsgrad_has_optaxs_order_and_pytorchs(max_first, expected):
    tx = gradtx.scale_by_amsgrad(b1=0.0, b2=0.5, max_before_correction=max_first)
    _, state = tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
    updates, _ = tx.update(jnp.full(1, 0.1), state)
    np.testing.assert_allclose(updates, expected, rtol=1e-6)


def test_35_eta_is_the_variance_of_noise():
    tx = gradtx.add_noise(4.0, 1.0, key=0)
    zeros = jnp.zeros(10_000)
    state = tx.init(zeros)
    for variance in (4.0, 2.0):
        noise, state = tx.update(zeros, state)
        np.testing.assert_allclose(np.var(noise), variance, rtol=0.05)


def test_36_the_mean_of_a_constant_is_the_constant():
    tx = gradtx.ema(0.9)
    state = tx.init(jnp.ones(1))
    for t in (1, 2, 3):
        updates, state = tx.update(jnp.full(1, 3.0), state)
        np.testing.assert_allclose(updates, 3.0, rtol=1e-6)
        np.testing.assert_allclose(state.ema, 3.0 * (1 - 0.9**t), rtol=1e-6)


@pytest.mark.parametrize(
    "make", [gradtx.scale_by_adam, gradtx.scale_by_amsgrad, gradtx.scale_by_lion]
)
def test_37_mu_dtype_rounds_what_is_kept_and_not_the_update(make):
    gradient = jnp.linspace(0.1, 0.7, 5)
    exact, wide = make().update(gradient, make().init(gradient))
    tx = make(mu_dtype="bfloat16")
    updates, narrow = tx.update(gradient, tx.init(gradient))
    np.testing.assert_array_equal(updates, exact)
    np.testing.assert_array_equal(narrow.mu, wide.mu.astype(jnp.bfloat16))
    assert narrow.mu.dtype == jnp.bfloat16


def test_38_steps_leave_no_arrays_behind():
    tx = gradtx.radam(0.1)
    params, state = run(tx, W, W)
    gc.collect()
    before = len(jax.live_arrays())
    for _ in range(5):
        params, state = tx.step(W, state, params)
    gc.collect()
    assert len(jax.live_arrays()) <= before


def test_45_lookahead_gives_the_inner_optimizer_the_fast_parameters():
    seen = []

    def update(updates, state, params=None):
        seen.append(float(params[0]))
        return updates, state

    inner = gradtx.GradientTransformation(lambda params: optax.EmptyState(), update)
    tx = gradtx.lookahead(inner, 3, 0.5)
    params, state = jnp.ones(1), tx.init(jnp.ones(1))
    for _ in range(3):
        params, state = tx.step(jnp.ones(1), state, params)
    assert seen == [1.0, 2.0, 3.0]


def test_46_empty_trees_everywhere():
    for name, tx in EXAMPLES.items():
        state = tx.init({})
        assert tx.update({}, state, {}, **EXTRA, grad={})[0] == {}, name


def test_47_adafactor_on_nested_trees():
    params = {"a": [{"w": jnp.ones((3, 2))}, None, (jnp.ones(2),)]}
    moved, _ = run(gradtx.adafactor(0.1, min_dim_size_to_factor=2), params, params)
    assert jax.tree.structure(moved) == jax.tree.structure(params) and finite(moved)


def test_48_leaves_outside_a_mask_can_be_kept_still():
    mask = {"w": True, "b": False}
    still, _ = run(gradtx.masked(gradtx.sgd(0.1), mask, unselected="zero"), W, W)
    np.testing.assert_array_equal(still["b"], W["b"])
    nested = gradtx.masked(gradtx.masked(gradtx.sgd(0.1), mask), {"w": True, "b": True})
    run(nested, W, W)


def test_49_masks_and_labels_may_be_callable_modules():
    model = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    params = eqx.filter(model, eqx.is_inexact_array)
    mask = jax.tree.map(lambda x: x.ndim > 1, params)
    tx = gradtx.masked(gradtx.adam(0.1), mask)
    run(tx, params, params)
    labels = jax.tree.map(lambda x: "m" if x.ndim > 1 else "v", params)
    run(gradtx.partition({"m": gradtx.adam(0.1), "v": gradtx.sgd(0.1)}, labels), params, params)


def test_50_one_part_of_a_partition_can_begin_anew():
    tx = gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.adam(0.1)}, {"w": "a", "b": "b"})
    params, state = run(tx, W, W)
    fresh = tx.init(params)
    state = state._replace(inner_states={**state.inner_states, "a": fresh.inner_states["a"]})
    params, state = tx.step(W, state, params)
    counts = [state.inner_states[label].inner_state[0].count for label in ("a", "b")]
    assert [int(count) for count in counts] == [1, 4]


def test_51_every_state_can_be_donated_with_its_parameters():
    """The law `never_aliases` holds this for every transformation; here for the reported ones."""
    for tx in (
        gradtx.lookahead(gradtx.adam(0.1), 2, 0.5),
        gradtx.scale_by_distance_over_gradients(),
    ):
        step = jax.jit(lambda p, s, g, tx=tx: tx.step(g, s, p), donate_argnums=(0, 1))
        params = jax.tree.map(jnp.array, W)
        state = tx.init(params)
        for _ in range(2):
            params, state = step(params, state, gradients_like(W))


@pytest.mark.parametrize(
    "tx, like_parameters",
    [
        (gradtx.adafactor(0.1, min_dim_size_to_factor=2), 0),
        (gradtx.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9), 2),
        (gradtx.partition({"m": gradtx.adam(0.1), "v": gradtx.lion(0.1)}, {"w": "m", "b": "v"}), 3),
        (gradtx.masked(gradtx.adam(0.1), {"w": True, "b": False}), 2),
        (gradtx.scale_by_lbfgs(), 4),
    ],
)
def test_53_a_map_over_what_is_like_the_parameters_meets_their_ranks(tx, like_parameters):
    met = []
    ranks = jax.tree.map(jnp.ndim, W)
    gradtx.tree_map_params(tx, lambda x, rank: met.append(x.ndim == rank), tx.init(W), ranks)
    assert len(met) == like_parameters and all(met)


def test_54_averages_are_found_at_any_depth():
    average = gradtx.ema_params(0.5)
    tx = gradtx.MultiSteps(gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1, 0.0), average), 1)
    params, state = run(tx, W, W)
    found = gradtx.eval_params(state, params)
    assert finite(found) and not np.array_equal(found["w"], params["w"])


def test_55_one_bad_micro_batch_does_not_poison_the_rest():
    tx = gradtx.MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=gradtx.skip_not_finite)
    params, state = W, tx.init(W)
    nan = jax.tree.map(lambda x: x * jnp.nan, W)
    for grads in (W, nan, W, W, W):
        params, state = tx.step(grads, state, params)
    assert finite((params, state.acc_grads))
    assert not any(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (params, W)), strict=True)
    )


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_56_float16_stays_finite(name, scale):
    params = low(W, jnp.float16)
    grads = jax.tree.map(lambda x: jnp.full_like(x, scale), params)
    extra = EXTRA if "lbfgs" not in name else {**EXTRA, "grad": grads}
    params, _ = run(OPTIMIZERS[name], params, grads, **extra)
    assert finite(params)


def test_57_gradients_of_a_wrong_shape_are_refused():
    tx = gradtx.adam(0.1)
    with pytest.raises(ValueError, match=r"\['w'\] has shape \(2, 3\)"):
        tx.update({"w": jnp.ones((2, 3))}, tx.init({"w": jnp.ones(3)}), {"w": jnp.ones(3)})


@pytest.mark.parametrize("make", [gradtx.adamw, gradtx.lion, gradtx.nadamw, gradtx.adamaxw])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_59_decay_is_decoupled_and_happens_once(make, dtype):
    params = {"w": jnp.full((2, 2), 2.0, dtype), "b": jnp.ones(2, dtype)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    moved, _ = run(make(0.5, weight_decay=0.5), params, zeros, steps=1)
    np.testing.assert_array_equal(moved["w"].astype(jnp.float32), 1.5)


def test_60_a_skipped_step_leaves_the_bias_correction_where_it_was():
    inner = gradtx.adam(0.1)
    tx = gradtx.skip_nonfinite(inner)
    nan = jax.tree.map(lambda x: x * jnp.nan, W)
    params, state = W, tx.init(W)
    for grads in (W, nan, nan, W):
        params, state = tx.step(grads, state, params)
    expected, inner_state = run(inner, W, W, steps=2)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert int(state.inner_state[0].count) == int(inner_state[0].count) == 2
