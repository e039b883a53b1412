import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.composed import Composed

PARAMS = {"w": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([3.0])}
GRADS = {"w": jnp.asarray([0.5, -0.5]), "b": jnp.asarray([1.0])}


def test_composed_validates_at_construction_and_caches_nothing_traced():
    with pytest.raises(ValueError, match="b2"):
        gradtx.adam(1e-3, b2=1.0)
    tx = gradtx.adam(0.1)
    step = jax.jit(lambda tx, p: tx.step(p, tx.init(p), p)[0])
    first = step(tx, PARAMS)
    second = step(tx.replace(learning_rate=0.2), PARAMS)
    assert not np.allclose(first["w"], second["w"])


def test_composing_with_jax_numbers_leaks_no_tracer():
    class rooted(Composed):
        rate: float = 4.0

        def compose(self):
            return gradtx.chain(gradtx.trace(0.9), gradtx.scale(-jnp.sqrt(self.rate)))

    tx = rooted(4.0)
    state = jax.jit(tx.init)(PARAMS)
    jax.jit(tx.update)(GRADS, state, PARAMS)
    updates, _ = tx.update(GRADS, state, PARAMS)
    np.testing.assert_allclose(updates["b"], -2.0)


def test_a_named_composition_steps_as_what_it_names():
    class inplace(gradtx.GradientTransformation):
        def init(self, params):
            return ()

        def step(self, updates, state, params, **extra_args):
            return "in place", state

    class named(Composed):
        def compose(self):
            return inplace()

    assert named().step(jnp.ones(2), (), jnp.ones(2))[0] == "in place"
