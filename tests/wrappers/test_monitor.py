"""Measurements against Optax's, with a state whose structure does not change."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.oracles import assert_close

PARAMS = {"w": jnp.asarray([1.0, 2.0, 3.0]), "b": jnp.asarray([0.5])}


def norm(updates):
    return gradtx.global_norm(updates)


def large(updates):
    return gradtx.global_norm(updates) > 1.0


def each(updates):
    return {"largest": jax.tree.map(lambda x: jnp.max(jnp.abs(x)), updates)}


def scripts(lib):
    return {
        "snapshot": lib.snapshot("norm", norm),
        "tree": lib.snapshot("each", each),
        "monitor": lib.monitor(
            {
                "norm": norm,
                "large": lib.measure_with_ema(lambda u: large(u).astype("float32"), decay=0.9),
                "slow": lib.measure_with_ema(each, 0.5, debias=False),
            }
        ),
    }


def run(lib, name):
    tx = lib.chain(lib.sgd(0.1, momentum=0.9), scripts(lib)[name], lib.clip_by_global_norm(1.0))
    params, state = PARAMS, tx.init(PARAMS)
    rows = [state[1]]
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        params = lib.apply_updates(params, updates)
        rows.append(state[1])
    return params, rows


@pytest.mark.parametrize("name", ["snapshot", "tree", "monitor"])
def test_optax_script(name):
    with jax.numpy_dtype_promotion("standard"):
        their_params, theirs = run(optax, name)
    our_params, ours = run(gradtx, name)
    for key in PARAMS:
        assert_close(our_params[key], their_params[key], 1e-6)
    start = 1 if name == "monitor" else 0  # Optax's monitor begins with no measurements
    for our, their in list(zip(ours, theirs, strict=True))[start:]:
        assert our._fields == their._fields and our[0].keys() == their[0].keys()
        for key in our[0]:
            pairs = zip(*map(jax.tree.leaves, (our[0][key], their[0][key])), strict=True)
            for actual, expected in pairs:
                assert_close(actual, expected, 1e-5)
    if name == "monitor":
        count = optax.tree.get(ours[-1].measure_states[0], "count")
        assert count == 4
        assert optax.tree.get(ours[-1], "large") == ours[-1].measurements["large"]


def test_debiased_mean_of_measurements():
    tx = gradtx.monitor({"norm": gradtx.measure_with_ema(norm, 0.5)})
    state = tx.init(jnp.zeros(1))
    assert state.measurements["norm"] == 0
    for value, expected in ((4.0, 4.0), (1.0, (0.5 * 4 + 1) / 1.5)):
        _, state = tx.update(jnp.asarray([value]), state)
        np.testing.assert_allclose(state.measurements["norm"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["snapshot", "tree", "monitor"])
def test_scan(name):
    tx = gradtx.chain(gradtx.sgd(0.1), scripts(gradtx)[name])

    def one(carry, _):
        params, state = tx.step(carry[0], carry[1], carry[0])
        return (params, state), state[1][0]

    _, rows = jax.lax.scan(one, (PARAMS, tx.init(PARAMS)), length=3)
    assert all(len(row) == 3 for row in jax.tree.leaves(rows))


def test_updates_pass_and_are_seen_where_the_stage_stands():
    tx = gradtx.chain(
        gradtx.snapshot("before", norm), gradtx.scale(2.0), gradtx.snapshot("after", norm)
    )
    updates, state = tx.update(jnp.asarray([3.0, 4.0]), tx.init(jnp.zeros(2)))
    np.testing.assert_array_equal(updates, [6.0, 8.0])
    assert (state[0].measurement["before"], state[2].measurement["after"]) == (5.0, 10.0)


def test_measures_see_wide_leaves_and_none_for_others():
    seen = []

    def look(updates):
        seen.append(updates)
        return 1

    params = {"w": jnp.ones(2, jnp.bfloat16), "step": 3}
    for tx in (gradtx.snapshot("look", look), gradtx.monitor({"look": look})):
        tx.update(params, tx.init(params), params)
    assert len(seen) == 4
    for updates in seen:
        assert updates["w"].dtype == jnp.float32 and updates["step"] is None


def test_truth_values_and_whole_numbers_keep_their_types():
    def count(updates):
        return jnp.sum(updates > 0, dtype=jnp.int32)

    measures = {"large": large, "count": count, "share": gradtx.measure_with_ema(large, 0.9)}
    tx = gradtx.monitor(measures)
    state = tx.init(jnp.ones(3))
    _, state = tx.update(jnp.ones(3), state)
    types = {name: str(x.dtype) for name, x in state.measurements.items()}
    assert types == {"large": "bool", "count": "int32", "share": "float32"}
    assert state.measurements["count"] == 3 and state.measurements["large"]
    np.testing.assert_allclose(state.measurements["share"], 1.0, rtol=1e-6)


def test_a_measure_that_returns_the_updates_does_not_alias_the_parameters():
    params = jnp.ones(3)
    for tx in (gradtx.snapshot("copy", lambda u: u), gradtx.monitor({"copy": lambda u: u})):
        held = tx.init(params)[0]["copy"]
        assert held.unsafe_buffer_pointer() != params.unsafe_buffer_pointer()


def test_transformations_as_measures():
    tx = gradtx.monitor({"ours": gradtx.trace(0.5), "theirs": optax.trace(0.5), "norm": norm})
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = tx.update(PARAMS, state, PARAMS)
    for name in ("ours", "theirs"):
        np.testing.assert_allclose(state.measurements[name]["w"], [1.5, 3.0, 4.5])
    _, state = tx.update({"w": None, "b": PARAMS["b"]}, state, PARAMS)
    np.testing.assert_allclose(state.measurements["ours"]["w"], [1.5, 3.0, 4.5])
    tx = gradtx.monitor({"polyak": gradtx.scale_by_polyak()})
    assert dict(tx.required_extra_args) == {"value": "scale_by_polyak"}
    tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=1.0)


def test_the_order_of_the_names_does_not_matter():
    ema = gradtx.measure_with_ema
    tx = gradtx.monitor({"z": ema(norm, 0.5), "a": norm})
    assert tx == gradtx.monitor({"a": norm, "z": ema(norm, 0.5)})
    state = tx.init(PARAMS)
    _, there = jax.jit(lambda tx: tx.update(PARAMS, state))(tx)
    assert float(there.measurements["a"]) == float(norm(PARAMS))


@pytest.mark.parametrize(
    "make, error, words",
    [
        (lambda: gradtx.snapshot(3, norm), TypeError, "measure_name"),
        (lambda: gradtx.snapshot("norm", 3), TypeError, "measure must"),
        (lambda: gradtx.monitor([norm]), TypeError, "measures"),
        (lambda: gradtx.monitor({3: norm}), TypeError, "measures"),
        (lambda: gradtx.monitor({"norm": 3}), TypeError, "transformation"),
        (lambda: gradtx.measure_with_ema(3, 0.9), TypeError, "measure must"),
        (lambda: gradtx.measure_with_ema(norm, 1.0), ValueError, "decay"),
        (lambda: gradtx.measure_with_ema(norm, "0.9"), TypeError, "decay"),
        (lambda: gradtx.measure_with_ema(norm, 0.9, 1), TypeError, "debias"),
        (lambda: gradtx.measure_with_ema(norm, 0.9, True, int), TypeError, "accumulator_dtype"),
    ],
)
def test_bad_arguments(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_the_norm_that_clipping_takes_is_measured_for_nothing():
    params = {"w": jnp.ones((640, 8)), "b": jnp.ones(8)}
    clipped = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1))
    measured = gradtx.chain(gradtx.snapshot("norm", gradtx.global_norm), clipped)

    def reductions(tx):
        program = jax.jit(tx.step).lower(params, tx.init(params), params).compile()
        return program.as_text().count(" reduce(")

    assert reductions(measured) == reductions(clipped) == 2
