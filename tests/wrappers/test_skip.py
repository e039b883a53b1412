"""Steps that are not finite leave no trace, and are counted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.wrappers.common import (
    assert_close,
    assert_same,
    plain_run,
    run,
    spoilt,
    temporaries,
    tree,
)

NAN, INF = jnp.nan, jnp.inf
INNER = [
    gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 5)),
    gradtx.sgd(0.1, 0.9),
    gradtx.adafactor(0.1),
    optax.adam(0.1),
]


def counts(state):
    return int(state.notfinite_count), bool(state.last_finite), int(state.total_notfinite)


@pytest.mark.parametrize(
    "inner, check",
    [(INNER[0], ("grads", "updates")), (INNER[0], "grads"), (INNER[0], ["updates"])]
    + [(inner, ("grads", "updates")) for inner in INNER[1:]],
)
def test_as_if_the_bad_step_had_not_been(inner, check, promotion):
    params = tree(0)
    good = [(tree(i), {}) for i in range(1, 5)]
    bad = [(spoilt(tree(9), v), {}) for v in (NAN, INF, -INF)]
    tx = gradtx.skip_nonfinite(inner, check=check)
    clean = plain_run(tx, params, good)
    seen = run(tx, params, [bad[0], *good[:2], *bad, *good[2:], bad[2]])
    assert_same([seen[i][0] for i in (1, 2, 6, 7)], [p for p, _ in clean])
    assert_same(seen[7][1].inner_state, clean[3][1].inner_state)
    assert_same([seen[i][0] for i in (0, 3, 8)], [params, seen[2][0], seen[7][0]])
    assert [counts(s) for _, s in seen] == [
        (1, False, 1),
        (0, True, 1),
        (0, True, 1),
        (1, False, 2),
        (2, False, 3),
        (3, False, 4),
        (0, True, 4),
        (0, True, 4),
        (1, False, 5),
    ]
    updates, _ = tx.update(bad[0][0], tx.init(params), params)
    assert_same(updates, jax.tree.map(jnp.zeros_like, params))
    assert_close(
        [p for p, _ in clean],
        [p for p, _ in plain_run(gradtx.chain(inner), params, good)],
        rtol=1e-6,
    )


def test_every_leaf_and_part_is_checked():
    tx = gradtx.skip_nonfinite(gradtx.sgd(0.1))
    params = {"z": jnp.ones(2, complex), "h": jnp.ones((2, 2), jnp.float16), "e": jnp.ones((0, 2))}
    grads = {**params, "step": 3, "none": None}
    params = dict(grads)
    state = tx.init(params)
    assert tx.update(grads, state, params)[1].last_finite
    for name, value in (
        ("z", complex(1, NAN)),
        ("z", complex(INF)),
        ("z", complex(1, -INF)),
        ("h", -INF),
    ):
        bad = {**grads, name: jnp.full_like(params[name], value).at[0].set(1)}
        for check in ("grads", "updates"):
            one = tx.replace(check=(check,))
            new, after = one.step(bad, state, params)
            assert not after.last_finite
            assert_same(new["z"], params["z"])
            assert new["step"] == 3


def test_updates_that_are_not_finite():
    g = jnp.asarray([1.0, -2.0])
    overflowing = gradtx.stateless(lambda updates, params: jax.tree.map(lambda u: u / 0, updates))
    for tx, skipped in (
        (gradtx.skip_nonfinite(overflowing), True),
        (gradtx.apply_if_finite(overflowing, 3), True),
        (gradtx.skip_nonfinite(overflowing, check="updates"), True),
        (gradtx.skip_nonfinite(overflowing, check="grads"), False),
    ):
        new, state = tx.step(g, tx.init(g), g)
        assert bool(jnp.isfinite(new).all()) == skipped == (not state.last_finite)
    bad = jnp.asarray([INF, 1.0])
    for check, skipped in (("grads", True), ("updates", False)):
        tx = gradtx.skip_nonfinite(gradtx.sign_sgd(0.1), check=check)
        assert bool((tx.step(bad, tx.init(g), g)[0] == g).all()) == skipped


def test_an_update_that_overflows_in_the_dtype_of_its_parameter():
    params, g = jnp.ones(2, jnp.float16), jnp.full(2, 60000.0, jnp.float16)
    for scale, skipped in ((-1.0, False), (-2.0, True)):
        tx = gradtx.skip_nonfinite(gradtx.scale(scale))
        new, state = tx.step(g, tx.init(params), params)
        assert jnp.isfinite(new).all() and bool(state.last_finite) != skipped


def test_large_finite_gradients_are_finite():
    g = jnp.full((64, 64), 3e38)
    tx = gradtx.skip_nonfinite(gradtx.sgd(1e-3))
    assert tx.step(g, tx.init(g), 0 * g)[1].last_finite


@pytest.mark.parametrize("limit", [0, 2])
def test_optax(limit, promotion):
    row = [False] + [True] * limit
    params = other = tree(0)
    reference = optax.apply_if_finite(optax.adam(0.1), limit)
    tx = gradtx.apply_if_finite(gradtx.adam(0.1), limit, on_limit="accept")
    held = gradtx.apply_if_finite(gradtx.adam(0.1), limit)
    held_params, held_state = params, held.init(params)
    state, other_state = tx.init(params), reference.init(params)
    assert state._fields == other_state._fields
    step, hold, update = map(jax.jit, (tx.step, held.step, reference.update))
    for i, bad in enumerate([*row, *row, *row, True]):
        g = spoilt(tree(i), (NAN, INF)[i % 2]) if bad else tree(i)
        updates, other_state = update(g, other_state, other)
        other = optax.apply_updates(other, updates)
        params, state = step(g, state, params)
        held_params, held_state = hold(g, held_state, held_params)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((held_params, held_state)))
        # The last one passes the limit: Optax makes that step, and the parameters are NaN.
        assert counts(state) == counts(other_state) == counts(held_state)
        assert_close(params, other)
    assert not all(jnp.isfinite(x).all() for x in jax.tree.leaves(params))


def test_limits():
    params, bad = tree(0), spoilt(tree(1))
    for limit in (2,):
        make = {
            how: gradtx.skip_nonfinite(gradtx.adam(0.1), max_consecutive=limit, on_limit=how)
            for how in ("hold", "accept", "reset_state")
        }
        steps = [(tree(2), {}), *[(bad, {})] * (limit + 2), (tree(3), {})]
        seen = {how: (run if limit else plain_run)(tx, params, steps) for how, tx in make.items()}
        fresh = make["hold"].init(params).inner_state
        for how, after in seen.items():
            before = after[0]
            for i, (x, state) in enumerate(after[1 : limit + 1], 1):
                assert_same((x, state.inner_state), (before[0], before[1].inner_state))
                assert counts(state) == (i, False, i)
            x, state = after[limit + 1]
            finite = all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(x))
            assert finite == (how != "accept")
            if how == "reset_state":
                assert_same((x, state.inner_state), (before[0], fresh))
            if how == "hold":
                assert_same((x, state.inner_state), (before[0], before[1].inner_state))
            assert counts(after[limit + 2][1]) == (limit + 2, False, limit + 2)
        assert counts(seen["hold"][-1][1]) == (0, True, limit + 2)
        plain = plain_run(gradtx.adam(0.1), params, [(tree(2), {}), (tree(3), {})])
        assert_close(seen["hold"][-1][0], plain[-1][0])
        plain = plain_run(gradtx.adam(0.1), seen["hold"][0][0], [(tree(3), {})])
        assert_close(seen["reset_state"][-1][0], plain[-1][0])


def test_a_streak_ends_with_a_finite_step():
    params, bad = tree(0), spoilt(tree(1))
    tx = gradtx.skip_nonfinite(gradtx.sgd(0.1), max_consecutive=1, on_limit="accept")
    seen = run(tx, params, [(bad, {}), (tree(2), {}), (bad, {}), (tree(3), {}), (bad, {})])
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(seen[-1][0]))
    assert counts(seen[-1][1]) == (1, False, 3)


def test_a_bad_state_is_reset():
    params, good = tree(0), (tree(1), {})
    tx = gradtx.skip_nonfinite(gradtx.adam(0.1), max_consecutive=1, on_limit="reset_state")
    state = tx.init(params)
    stuck = jax.tree.map(lambda x: jnp.full_like(x, NAN) if x.ndim else x, state)
    x = params
    for finite in (False, False, True):
        x, stuck = tx.step(good[0], stuck, x)
        assert bool(stuck.last_finite) == finite
    assert_close(x, plain_run(gradtx.adam(0.1), params, [good])[0][0])


def test_step_needs_little_memory():
    inner = gradtx.adamw(1e-3)
    assert temporaries(gradtx.skip_nonfinite(inner, check="grads")) < 0.05
    assert temporaries(gradtx.accumulate(gradtx.skip_nonfinite(inner, check="grads"), 4)) < 0.05
    # XLA's CPU backend stores a flag of one byte for each value before it folds them.
    for tx in (gradtx.skip_nonfinite(inner), gradtx.apply_if_finite(inner, 5)):
        assert temporaries(tx) < 1.05
    # An update that is made at some micro-batches only is looked at there, and not stored.
    assert temporaries(gradtx.skip_nonfinite(gradtx.accumulate(inner, 4))) < 1.05


def test_vmap():
    params = tree(0)
    tx = gradtx.skip_nonfinite(gradtx.adam(0.1), max_consecutive=0, on_limit="reset_state")

    def two(value):
        x, state = tx.step(spoilt(tree(1), value), tx.init(params), params)
        return tx.step(tree(2), state, x)

    values = jnp.asarray([1.0, NAN, -INF])
    mapped = jax.jit(jax.vmap(two))(values)
    for i, value in enumerate(values):
        assert_close(jax.tree.map(lambda x, i=i: x[i], mapped), two(value))
    assert mapped[1].total_notfinite.tolist() == [0, 1, 1]


def test_extra_args_and_lookahead():
    g = jnp.asarray([3.0, 4.0])
    for make in (gradtx.skip_nonfinite, lambda tx: gradtx.apply_if_finite(tx, 2)):
        tx = make(gradtx.polyak_sgd())
        assert dict(tx.required_extra_args) == {"value": "scale_by_polyak"}
        for missing in (tx.step, tx.update):
            with pytest.raises(TypeError, match="value"):
                missing(g, tx.init(g), g)
        np.testing.assert_allclose(tx.step(g, tx.init(g), g, value=5.0)[0], 0.8 * g, rtol=1e-6)
        tx = make(gradtx.nesterov_momentum(0.1, 0.9, lookahead=True))
        x, state = tx.step(g, tx.init(g), g)
        assert (tx.lookahead_point(state, x) != x).all()


def test_bad_arguments():
    inner = gradtx.sgd(0.1)
    for check in ((), ("loss",), "gradient", ("grads", "params")):
        with pytest.raises(ValueError, match="check"):
            gradtx.skip_nonfinite(inner, check=check)
    for make in (
        lambda **kw: gradtx.skip_nonfinite(inner, max_consecutive=3, **kw),
        lambda **kw: gradtx.apply_if_finite(inner, 3, **kw),
    ):
        with pytest.raises(ValueError, match="on_limit"):
            make(on_limit="raise")
    with pytest.raises(ValueError, match="max_consecutive"):
        gradtx.skip_nonfinite(inner, on_limit="accept")
    for name, make in (
        ("max_consecutive", lambda n: gradtx.skip_nonfinite(inner, max_consecutive=n)),
        ("max_consecutive_errors", lambda n: gradtx.apply_if_finite(inner, n)),
    ):
        for n in (-1, 2.5, NAN):
            with pytest.raises(ValueError, match=name):
                make(n)
        for n in ("3", True, [3]):
            with pytest.raises(TypeError, match=name):
                make(n)
    for make in (gradtx.skip_nonfinite, lambda tx: gradtx.apply_if_finite(tx, 3)):
        with pytest.raises(TypeError, match="transformation"):
            make(0.1)
    tx = gradtx.skip_nonfinite(inner, max_consecutive=1, on_limit="reset_state")
    with pytest.raises(ValueError, match="on_limit='reset_state' needs params"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
