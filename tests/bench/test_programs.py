import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.bench import lineup, programs
from gradtx.bench.lineup import Case

SHAPES = programs.large_tree(2, 3)
PARAMS = programs.random_like(SHAPES, 0.1, seed=0)
GRADS = programs.random_like(SHAPES, 0.01, seed=1)


@pytest.mark.parametrize("name", ["adamw", "polyak_sgd"])
def test_both_programs_make_the_same_step(name):
    (case,) = lineup.plain([name], optax)
    found = programs.programs(case, optax)
    assert list(found) == ["gradtx", "optax"]
    results = [p.step(PARAMS, p.init(PARAMS), GRADS)[0] for p in found.values()]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *results)


def test_a_wrapper_is_compared_with_what_it_wraps():
    case = lineup.wrapped(["sgd"], optax)[0]
    assert list(programs.programs(case, optax)) == ["gradtx", "optax", "inner step"]
    assert list(programs.programs(case, None)) == ["gradtx", "inner step"]


def test_the_step_is_donated_and_goes_on(monkeypatch):
    seen = []
    program = programs.Program(
        lambda p: jnp.zeros(()), lambda p, s, g: (jax.tree.map(jnp.add, p, g), s + 1)
    )
    monkeypatch.setattr(programs.jax, "block_until_ready", seen.append)
    run = programs.timed_step(program, PARAMS, GRADS, window=3)
    assert run() > 0 and run() > 0
    (params, steps), (last, total) = seen
    assert steps.is_deleted() and total == 6
    assert all(leaf.is_deleted() for leaf in params.values())
    assert not any(leaf.is_deleted() for leaf in (*PARAMS.values(), *GRADS.values()))
    np.testing.assert_allclose(last["w0000"], PARAMS["w0000"] + 6 * GRADS["w0000"], rtol=1e-5)


def test_the_seconds_of_a_window_are_those_of_a_step(monkeypatch):
    ticks = iter([0.0, 12.0])
    program = programs.own_program(gradtx.sgd(0.1))
    run = programs.timed_step(program, PARAMS, GRADS, window=4)
    monkeypatch.setattr(programs.time, "perf_counter", lambda: next(ticks))
    assert run() == 3.0


def test_compilation_begins_from_nothing_every_time():
    traced = []

    def step(params, state, grads):
        traced.append(1)
        return grads, state

    run = programs.timed_compilation(programs.Program(lambda p: p, step), SHAPES)
    assert min(run()) > 0 and min(run()) > 0 and len(traced) == 2


def test_the_floor():
    n = 4 * 1000 * 1000  # bytes of the parameters
    shapes = programs.large_tree(1, 1000)
    inner, mean = gradtx.sgd(0.1), gradtx.accumulate(gradtx.sgd(0.1, momentum=0.9), 4)

    def floor(own, **more):
        return programs.floor_bytes(Case("", own, None, **more), shapes)

    assert floor(inner) == 3 * n  # p and g read, p written
    assert floor(inner, gradient_reads=2) == 4 * n
    # Of four steps each reads g, and reads and writes the mean; one does so with p and trace.
    assert floor(mean, window=4) == pytest.approx((1 + 2 + 4 / 4) * n, rel=1e-4)


def test_small_leaves_have_20_elements_in_ten_shapes():
    leaves = programs.small_tree(30).values()
    assert {leaf.size for leaf in leaves} == {20}
    assert len({leaf.shape for leaf in leaves}) == 10 and len(leaves) == 30
