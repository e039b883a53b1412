"""Collected calls give what each call by itself would."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.memory.batch import Batch, put_into


@functools.partial(jax.jit, static_argnums=0)
def scaled(factor, shared, x):
    assert shared is None
    return factor * x


def test_each_mark_gets_its_own_result():
    batch = Batch(scaled)
    xs = [jnp.full(shape, i) for i, shape in enumerate([2, 3, 2, 2])]
    marked = {i: batch.add((10.0 + i % 2,), x) for i, x in enumerate(xs)}
    found = put_into({"kept": 7, "there": marked}, batch.results())
    assert found["kept"] == 7
    for i, x in enumerate(xs):
        np.testing.assert_array_equal(found["there"][i], (10.0 + i % 2) * x)


def test_calls_alike_are_traced_together():
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def function(factor, shared, x):
        traced.append(factor)
        return factor * x

    @jax.jit
    def all_of(xs):
        batch = Batch(function)
        for i, x in enumerate(xs):
            batch.add((i % 2,), x)
        return batch.results()

    results = all_of([jnp.ones(2)] * 8)
    assert sorted(traced) == [0, 1]
    assert [float(x[0]) for x in results] == [0, 1] * 4
