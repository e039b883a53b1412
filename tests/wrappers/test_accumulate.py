"""Accumulation against a loop in NumPy, against one large batch, and against Optax."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.testing import check_transformation
from tests.wrappers.common import (
    assert_close,
    assert_same,
    plain_run,
    run,
    spoilt,
    temporaries,
    tree,
)

LR, RHO = 0.1, 0.9


def windows(x, grads, weights, length, skip):
    """Momentum on weighted means, as one would write it down; one leaf, float64."""
    v, made, window, count, xs = 0.0, 0, [], 0, []
    for g, w in zip(grads, weights, strict=True):
        bad = w > 0 and not np.isfinite(g).all()
        if not (skip and bad):
            count += 1
            if w > 0:
                window.append((w, g))
        if not (skip and bad) and count >= length(made) and window:
            mean = sum(w * g for w, g in window) / sum(w for w, _ in window)
            v = RHO * v + mean
            x = x - LR * v
            made, window, count = made + 1, [], 0
        xs.append(x)
    return np.stack(xs), made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("how", ["accept", "skip"])
def test_loop(seed, how, x64):
    rng = np.random.default_rng(seed)
    length = [lambda n: 3, lambda n: 2 + n % 3, lambda n: 1 + n][seed % 3]
    k = [3, lambda n: 2 + n % 3, lambda n: n.astype(jnp.float32) + 0.5][seed % 3]
    grads, weights = rng.normal(size=(60, 4)), rng.integers(0, 4, 60).astype(float)
    if how == "skip":
        grads[rng.random(60) < 0.2, 1] = rng.choice([np.nan, np.inf, -np.inf])
    grads[weights == 0] = np.nan  # 0/0: the mean over no tokens
    x0 = rng.normal(size=4)
    expected, made = windows(x0, grads, weights, length, how == "skip")
    assert np.isfinite(expected).all() and made > 5
    tx = gradtx.accumulate(gradtx.sgd(LR, RHO), k, on_nonfinite=how)

    def body(carry, batch):
        g, w = batch
        x, state = tx.step(g, carry[1], carry[0], weight=w)
        return (x, state), x

    carry = (jnp.asarray(x0), tx.init(jnp.asarray(x0)))
    (_, state), xs = jax.lax.scan(body, carry, (jnp.asarray(grads), jnp.asarray(weights)))
    np.testing.assert_allclose(xs, expected, rtol=0, atol=1e-13)
    assert state.gradient_step == made
    bad = ~np.isfinite(grads).all(axis=1) & (weights > 0)
    assert int(state.skipped) == (bad.sum() if how == "skip" else 0)


def test_double_precision(x64):
    rng = np.random.default_rng(0)
    grads, x0 = rng.normal(size=(40, 4)), rng.normal(size=4)
    expected, _ = windows(x0, grads, np.ones(40), lambda n: 4, False)
    for tx in (
        gradtx.accumulate(gradtx.sgd(LR, RHO), 4),
        gradtx.MultiSteps(gradtx.sgd(LR, RHO), 4),
    ):
        x, state = jnp.asarray(x0), tx.init(jnp.asarray(x0))
        for g, e in zip(grads, expected, strict=True):
            x, state = tx.step(jnp.asarray(g), state, x)
            np.testing.assert_allclose(x, e, rtol=0, atol=1e-14)


INNER = {
    "adamw": lambda: gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 5), weight_decay=0.1),
    "clipped": lambda: gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.sgd(0.1, 0.9)),
}


@pytest.mark.parametrize("inner", INNER)
def test_one_micro_batch_is_the_transformation_itself(inner):
    tx, params = INNER[inner](), tree(0)
    steps = [(tree(i), {}) for i in range(1, 5)]
    plain = plain_run(tx, params, steps)
    for make in (gradtx.accumulate, gradtx.MultiSteps):
        seen = run(make(tx, 1), params, steps)
        assert_close([p for p, _ in seen], [p for p, _ in plain], rtol=1e-6)
        assert_close(seen[-1][1].inner_opt_state, plain[-1][1], rtol=1e-6)
        assert seen[-1][1].acc_grads is None and seen[-1][1].gradient_step == 4
        called = plain_run(make(tx, lambda step: 1), params, steps)
        assert_close([p for p, _ in called], [p for p, _ in plain], rtol=1e-6)


@pytest.mark.parametrize("inner, k", [("adamw", 3), ("clipped", 5)])
def test_equal_micro_batches_are_one_batch(inner, k):
    tx, params = INNER[inner](), tree(0)
    plain = plain_run(tx, params, [(tree(i), {}) for i in range(1, 4)])
    steps = [(tree(i), {}) for i in range(1, 4) for _ in range(k)]
    for seen in (
        run(gradtx.accumulate(tx, k), params, steps),
        plain_run(gradtx.accumulate(tx, k), params, [(g, {"weight": 7}) for g, _ in steps]),
        run(gradtx.MultiSteps(tx, k), params, steps),
    ):
        assert_close([p for p, _ in seen[k - 1 :: k]], [p for p, _ in plain], rtol=2e-6)
        assert_close(seen[-1][1].inner_opt_state, plain[-1][1], rtol=2e-6)


def test_the_mean_of_equal_gradients_is_exact():
    for k in (3, 7):
        tx = gradtx.accumulate(gradtx.sgd(1.0), k)
        g = jnp.asarray([0.1, 1e-30, 3e38])
        state = tx.init(g)
        for i in range(k):
            updates, state = tx.update(g, state, weight=0.3 + i)
        assert_same(updates, -g)


def test_weighted_micro_batches_are_one_batch():
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(24, 3)), rng.normal(size=24), jnp.asarray([0.5, -1.0, 2.0])

    def grad(params, rows):
        a, b = (jnp.asarray(z[rows], jnp.float32) for z in (x, y))
        return jax.grad(lambda p: jnp.mean((a @ p - b) ** 2))(params)

    tx = gradtx.adam(0.1)
    whole, state = w, tx.init(w)
    micro = gradtx.accumulate(tx, 3)
    parts, micro_state = w, micro.init(w)
    for _ in range(4):
        whole, state = tx.step(grad(whole, np.arange(24)), state, whole)
        at = parts
        for rows in np.split(np.arange(24), [2, 13]):
            parts, micro_state = micro.step(grad(at, rows), micro_state, parts, weight=len(rows))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    assert micro_state.gradient_step == 4 and micro_state.weight == 0


PARITY = {
    "adam": (lambda: gradtx.adam(0.1), lambda: optax.adam(0.1)),
    "foreign": (lambda: optax.contrib.schedule_free_sgd(0.1), None),
}
OPTIONS = {
    "mean": {"every_k_schedule": 3},
    "sum": {"every_k_schedule": 2, "use_grad_mean": False},
    "growing": {"every_k_schedule": lambda n: 1 + n},
    "skipping": {"every_k_schedule": 2},
}


@pytest.mark.parametrize("inner", PARITY)
@pytest.mark.parametrize("how", OPTIONS)
def test_optax(inner, how, promotion):
    ours, theirs = PARITY[inner]
    options, skips = OPTIONS[how], ({}, {})
    grads = [tree(i) for i in range(1, 10)]
    if how == "skipping":
        skips = [
            {"should_skip_update_fn": functools.partial(m.skip_large_updates, max_squared_norm=9.0)}
            for m in (gradtx, optax)
        ]
        grads[2], grads[5] = spoilt(grads[2]), spoilt(grads[5], 4.0)
    tx = gradtx.MultiSteps(ours(), **options, **skips[0])
    reference = optax.MultiSteps((theirs or ours)(), **options, **skips[1])
    params = other = tree(0)
    state, other_state = tx.init(params), reference.init(params)
    step, update = jax.jit(tx.step), jax.jit(reference.update)
    for g in grads:
        updates, other_state = update(g, other_state, other)
        other = optax.apply_updates(other, updates)
        params, state = step(g, state, params)
        assert_close(params, other)
        assert state.mini_step == other_state.mini_step
        assert state.gradient_step == other_state.gradient_step
        assert tx.has_updated(state) == reference.has_updated(other_state)
        assert_close(state.skip_state, other_state.skip_state)
        if state.mini_step > 0:
            assert_close(state.acc_grads, other_state.acc_grads)
    assert state._fields == other_state._fields
    assert state.gradient_step > 0


@pytest.mark.parametrize("value", [0.5, 4.0, jnp.nan, jnp.inf, -jnp.inf])
def test_skip_functions(value):
    g = spoilt(tree(0), value)
    for ours, theirs, bound in (
        (gradtx.skip_not_finite, optax.skip_not_finite, {}),
        (gradtx.skip_large_updates, optax.skip_large_updates, {"max_squared_norm": 9.0}),
    ):
        (a, noted), (b, expected) = (f(g, 0, None, **bound) for f in (ours, theirs))
        assert a == b
        assert_close(noted, expected)
        assert not ours({}, 0, None, **bound)[0]
    z = {"w": jnp.full((2, 4), 3j), "step": 3, "none": None}
    assert gradtx.skip_large_updates(z, 0, None, 72.0)[1]["norm_squared"] == 72
    assert gradtx.skip_large_updates(z, 0, None, 72.0)[0]
    assert not gradtx.skip_large_updates(z, 0, None, 73.0)[0]
    with pytest.raises(ValueError, match="max_squared_norm"):
        gradtx.skip_large_updates(g, 0, None, -1.0)


def test_multi_steps_is_a_transformation():
    tx = gradtx.MultiSteps(gradtx.adam(0.1), 2)
    assert isinstance(tx, gradtx.GradientTransformation)
    assert tx.gradient_transformation() is tx and tx.inner_opt == gradtx.adam(0.1)
    assert gradtx.MultiSteps(optax.sgd(0.1), 2).init(jnp.ones(2)).mini_step == 0


def test_nothing_but_the_window_is_touched_within_it():
    tx, params = gradtx.accumulate(gradtx.adamw(0.1), 3), tree(0)
    state = tx.init(params)
    for i in range(2):
        updates, _ = tx.update(tree(i), state, params)
        assert_same(updates, jax.tree.map(jnp.zeros_like, params))
        new, state = jax.jit(tx.step)(tree(i), state, params)
        assert_same(new, params)
        assert_same(state.inner_opt_state, tx.init(params).inner_opt_state)
        assert not tx.has_updated(state) and state.mini_step == i + 1
    _, state = tx.step(tree(2), state, params)
    assert tx.has_updated(state) and state.mini_step == 0
    assert_close(state.acc_grads, jax.tree.map(lambda *g: sum(g) / 3, tree(0), tree(1), tree(2)))


def test_step_needs_no_memory():
    inner = gradtx.adamw(1e-3)
    for tx in (
        gradtx.accumulate(inner, gradtx.linear_schedule(1, 5, 9)),
        gradtx.accumulate(inner, 4, on_nonfinite="skip"),
        gradtx.accumulate(inner, 1),
        gradtx.MultiSteps(inner, 4),
        gradtx.MultiSteps(inner, 4, use_grad_mean=False),
    ):
        assert temporaries(tx) < 0.05, tx


def test_narrow_gradients_have_a_wide_accumulator():
    params = tree(0, jnp.bfloat16)
    tx = gradtx.accumulate(gradtx.sgd(1.0), 512)
    state = tx.init(params)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(state.acc_grads))
    g = jax.tree.map(lambda p: jnp.full_like(p, 1.0), params)
    low = jax.tree.map(lambda p: jnp.full_like(p, 2.0**-7), params)
    steps = [g] * 256 + [low] * 256
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *steps)

    def body(carry, g):
        return tx.step(g, carry[1], carry[0]), None

    (_, state), _ = jax.lax.scan(body, (params, state), stacked)
    mean = (1 + 2.0**-7) / 2
    for leaf in jax.tree.leaves(state.acc_grads):
        np.testing.assert_allclose(leaf, mean, rtol=1e-5)
    narrow = gradtx.accumulate(gradtx.sgd(1.0), 2, accumulator_dtype="bfloat16")
    assert narrow.init(tree(0)).acc_grads["w"].dtype == jnp.bfloat16
    narrow = gradtx.MultiSteps(gradtx.sgd(1.0), 2, accumulator_dtype="bfloat16")
    assert narrow.init(tree(0)).acc_grads["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "inner",
    [
        gradtx.adafactor(0.1),
        optax.adafactor(0.1),
        optax.contrib.schedule_free_adamw(0.1),
    ],
    ids=lambda tx: type(tx).__name__,
)
def test_branches_agree_in_low_precision(inner, promotion):
    params = {"w": jnp.ones((4, 4), jnp.bfloat16), "b": jnp.ones(3, jnp.float16)}
    tx = gradtx.accumulate(inner, 2)

    def body(carry, _):
        x, state = tx.step(carry[0], carry[1], carry[0])
        updates, state = tx.update(x, state, x)
        return (gradtx.apply_updates(x, updates), state), None

    (x, _), _ = jax.jit(lambda x: jax.lax.scan(body, (x, tx.init(x)), length=3))(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(x))
    assert (x["w"] != params["w"]).all()


def test_inside_chain_and_masked():
    params, mask = tree(0), {"b": True, "w": False}
    grads = [tree(i) for i in range(1, 7)]
    means = [
        jax.tree.map(lambda a, b: (a + b) / 2, *pair)
        for pair in zip(grads[::2], grads[1::2], strict=True)
    ]
    for around in (
        lambda tx: gradtx.chain(tx, gradtx.scale(0.5)),
        lambda tx: gradtx.chain(gradtx.scale(3.0), tx),
        lambda tx: gradtx.chain(gradtx.masked(tx, mask), gradtx.scale_by_learning_rate(0.1)),
    ):
        inner = gradtx.adam(0.1)
        plain = plain_run(around(inner), params, [(g, {}) for g in means])
        seen = run(around(gradtx.accumulate(inner, 2)), params, [(g, {}) for g in grads])
        assert_close(seen[-1][0]["b"], plain[-1][0]["b"])
    inside = gradtx.masked(gradtx.sgd(0.1), mask)
    plain = plain_run(inside, params, [(g, {}) for g in means])
    seen = run(gradtx.accumulate(inside, 2), params, [(g, {}) for g in grads])
    assert_close(seen[-1][0], plain[-1][0])


def test_extra_args():
    tx, g = gradtx.accumulate(gradtx.polyak_sgd(), 2), jnp.asarray([3.0, 4.0])
    assert dict(tx.required_extra_args) == {"value": "scale_by_polyak"}
    with pytest.raises(TypeError, match="value"):
        tx.step(g, tx.init(g), g)
    x, state = tx.step(g, tx.init(g), g, value=jnp.nan)
    assert_same(x, g)
    x, _ = tx.step(g, state, x, value=5.0)  # that of the micro-batch that closes the window
    np.testing.assert_allclose(x, g - g * 5.0 / 25.0, rtol=1e-6)
    seen = []

    def update(updates, state, params=None, **extra_args):
        seen.append(sorted(extra_args))
        return updates, state

    inner = gradtx.GradientTransformation(lambda params: (), update)
    for tx, names in (
        (gradtx.accumulate(inner, 1), ["loss"]),
        (gradtx.MultiSteps(inner, 1), ["loss", "weight"]),
    ):
        tx.step(g, tx.init(g), g, weight=2.0, loss=1.0)
        assert seen.pop() == names
    with pytest.raises(ValueError, match="weight"):
        gradtx.accumulate(gradtx.sgd(0.1), 2).step(g, state, g, weight=jnp.ones(2))


def test_flush():
    params = tree(0)
    for make in (gradtx.accumulate, gradtx.MultiSteps):
        tx, plain = make(gradtx.adam(0.1), 4), gradtx.adam(0.1)
        flush = jax.jit(tx.flush)
        state = tx.init(params)
        assert_same(flush(state, params), (params, state))
        x = params
        for i in (1, 2):
            x, state = tx.step(tree(i), state, x)
        x, state = flush(state, x)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, tree(1), tree(2))
        expected, inner_state = plain.step(mean, plain.init(params), params)
        assert_close(x, expected)
        assert_close(state.inner_opt_state, inner_state)
        assert (state.mini_step, state.gradient_step) == (0, 1) and tx.has_updated(state)
        assert_same(tx.flush(state, x), (x, state))
        for _ in range(4):  # the next window knows nothing of the flushed one
            x, state = tx.step(tree(3), state, x)
        assert_close(state.acc_grads, tree(3))
        assert state.gradient_step == 2
        one = make(gradtx.sgd(0.1), 1)
        assert_same(one.flush(one.init(params), params), (params, one.init(params)))
    mixed = {**params, "step": 3, "none": None}
    x, state = tx.step({**tree(1), "step": 3, "none": None}, tx.init(mixed), mixed)
    x, _ = tx.flush(state, x)
    assert x["step"] == 3 and x["none"] is None
    tx = gradtx.accumulate(gradtx.polyak_sgd(), 2)
    _, state = tx.step(tree(1), tx.init(params), params, value=1.0)
    with pytest.raises(TypeError, match="value"):
        tx.flush(state, params)
    tx.flush(state, params, value=1.0)


def test_a_bad_micro_batch_spoils_no_other_window():
    params = tree(0)
    bad = [spoilt(tree(1), v) for v in (jnp.nan, jnp.inf)]
    clean = plain_run(gradtx.sgd(0.1), params, [(tree(2), {})])[-1][0]
    for make in (gradtx.accumulate, gradtx.MultiSteps):
        tx = make(gradtx.sgd(0.1), 2)
        for g in bad:
            state = tx.init(params)
            updates, state = tx.update(g, state, params)
            assert_same(updates, jax.tree.map(jnp.zeros_like, params))
            _, state = tx.update(tree(1), state, params)
            for _ in range(2):
                updates, state = tx.update(tree(2), state, params)
            assert_close(gradtx.apply_updates(params, updates), clean)
    for tx in (
        gradtx.accumulate(gradtx.sgd(0.1), 2, on_nonfinite="skip"),
        gradtx.MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=gradtx.skip_not_finite),
        gradtx.accumulate(gradtx.skip_nonfinite(gradtx.sgd(0.1)), 2),
    ):
        (x, state) = run(tx, params, [(g, {}) for g in (bad[0], bad[1], tree(2), tree(2))])[-1]
        assert_close(x, clean)
    one = gradtx.accumulate(gradtx.adam(0.1), 1, on_nonfinite="skip")
    seen = run(one, params, [(bad[0], {}), (tree(2), {}), (tree(3), {"weight": 0})])
    assert_same(seen[0][0], params)
    assert_same(seen[1][0], seen[2][0])
    assert [int(s.gradient_step) for _, s in seen] == [0, 1, 1]
    assert seen[-1][1].skipped == 1
    assert_close(seen[1][0], run(gradtx.adam(0.1), params, [(tree(2), {})])[0][0])


def test_vmap_over_windows_of_different_length():
    params = tree(0)

    def one(k, rate, value):
        tx = gradtx.accumulate(gradtx.adam(rate), k, on_nonfinite="skip")
        x, state = params, tx.init(params)
        for i in range(6):
            x, state = tx.step(spoilt(tree(i), value if i == 1 else 0.5), state, x)
        return x, state.gradient_step

    ks, rates = jnp.asarray([1, 2, 3, 4]), jnp.asarray([0.1, 0.2, 0.3, 0.4])
    values = jnp.asarray([0.0, jnp.inf, 1.0, -1.0])
    mapped = jax.jit(jax.vmap(one))(ks, rates, values)
    with np.errstate(invalid="ignore"):
        for i in range(4):
            alone = jax.jit(one)(ks[i], rates[i], values[i])
            assert_close(jax.tree.map(lambda x, i=i: x[i], mapped), alone)
    assert mapped[1].tolist() == [6, 2, 2, 1]


def test_shard_map():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    tx = gradtx.accumulate(gradtx.adam(0.1), 2, on_nonfinite="skip")
    params = jnp.ones(4)
    batches = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 4)), jnp.float32)

    def train(params, batches):
        def body(carry, batch):
            g = jax.lax.pmean(batch[0] - carry[0], "data")
            return tx.step(g, carry[1], carry[0]), None

        return jax.lax.scan(body, (params, tx.init(params)), batches)[0]

    sharded = jax.jit(
        jax.shard_map(train, mesh=mesh, in_specs=(spec(), spec(None, "data")), out_specs=spec())
    )
    x, state = sharded(params, batches)
    y, other = params, tx.init(params)
    for batch in batches:
        y, other = tx.step(batch.mean(0) - y, other, y)
    assert_close((x, state), (y, other))


def test_other_leaves_and_lookahead():
    params = {"w": jnp.ones(2), "f": jnp.sin, "step": 3, "rate": 0.5, "none": None}
    grads = {**params, "w": jnp.ones(2), "rate": 1.0}
    tx = gradtx.accumulate(gradtx.nesterov_momentum(0.1, 0.9, lookahead=True), 2)
    x, state = params, tx.init(params)
    for _ in range(4):
        x, state = tx.step(grads, state, x)
    assert x["f"] is jnp.sin and x["step"] == 3 and x["none"] is None and x["rate"] < 0.5
    inner = tx.inner.lookahead_point(state.inner_opt_state, x)
    assert_same(tx.lookahead_point(state, x)["w"], inner["w"])
    assert (inner["w"] != x["w"]).all()


def test_a_gradient_that_is_missing():
    params = tree(0)
    tx = gradtx.accumulate(gradtx.sgd(0.1), 2)
    x, state = tx.step(tree(1), tx.init(params), params)
    x, state = tx.step({**tree(1), "b": None}, state, x)
    assert_same(x["b"], params["b"])
    assert_close(x["w"], params["w"] - 0.1 * tree(1)["w"])


@pytest.mark.parametrize("make, name", [(gradtx.accumulate, "k"), (gradtx.MultiSteps, "every_k")])
def test_bad_arguments(make, name):
    inner = gradtx.sgd(0.1)
    for k in (0, -1, 2.5, np.nan, np.int32(0), jnp.asarray(0)):
        with pytest.raises(ValueError, match=name):
            make(inner, k)
    for k in ("2", None, True, [2]):
        with pytest.raises(TypeError, match=name):
            make(inner, k)
    with pytest.raises(TypeError, match="transformation"):
        make(0.1, 2)
    with pytest.raises(TypeError, match="accumulator_dtype"):
        make(inner, 2, accumulator_dtype="int32")
    with pytest.raises(ValueError, match="on_nonfinite"):
        gradtx.accumulate(inner, 2, on_nonfinite="ignore")
    with pytest.raises(TypeError, match="should_skip_update_fn"):
        gradtx.MultiSteps(inner, 2, should_skip_update_fn=3)
    for answer in (jnp.ones(2, bool), 1.0):
        tx = gradtx.MultiSteps(inner, 2, should_skip_update_fn=lambda *_, a=answer: (a, ()))
        with pytest.raises(ValueError, match="should_skip_update_fn"):
            tx.init(jnp.ones(2))


def test_the_skip_state_keeps_its_type_and_its_own_buffers():
    def keep(updates, gradient_step, params):
        return False, (updates, gradient_step, params)

    params = tree(0, jnp.bfloat16)
    tx = gradtx.MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=keep)
    state = tx.init(params)
    check_transformation(
        tx,
        params,
        laws=["has_a_type_fixed_point", "initialises_abstractly", "never_aliases", "scans"],
    )
    _, state = tx.step(tree(1, jnp.float16), state, params)
    assert_close(
        state.skip_state[0], jax.tree.map(lambda g: g.astype(jnp.float32), tree(1, jnp.float16))
    )
    guarded = gradtx.MultiSteps(gradtx.adam(0.1), 2, should_skip_update_fn=gradtx.skip_not_finite)
    check_transformation(guarded, params, laws=["has_a_type_fixed_point", "scans", "never_aliases"])


def test_the_skip_state_keeps_double_precision(x64):
    tx = gradtx.MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=lambda u, *_: (False, u))
    check_transformation(tx, tree(0, jnp.float64), laws=["has_a_type_fixed_point"])


@pytest.mark.parametrize("compiled", [True, False])
def test_a_judge_sees_what_update_returns(compiled):
    def descend(updates, state, params=None, **extra_args):
        assert extra_args == {"known": 1}
        return jax.tree.map(lambda u: -0.1 * u, updates), state

    params = {**tree(0), "n": 3, "f": jnp.sin}
    tx = gradtx.accumulate(gradtx.GradientTransformation(lambda params: (), descend), 2)
    state = tx.init(params)
    for seed in (1, 2, 3):
        grads = {**tree(seed), "n": None, "f": None}
        updates, after = tx.update(grads, state, params, weight=seed, known=1)

        def judge(grads, state, weight):
            seen = operator.itemgetter("b", "w")
            return tx.judge(seen, grads, state, params, weight=weight, known=1)

        seen = (jax.jit(judge) if compiled else judge)(grads, state, seed)
        assert_close(seen, (updates["b"], updates["w"]))
        state = after
