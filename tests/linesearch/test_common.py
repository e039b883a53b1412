"""Reading the value and the gradient back from a state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.linesearch.problems import rosenbrock

KEEPS = gradtx.scale_by_backtracking_linesearch(20, store_grad=True)


@pytest.mark.parametrize("tx", [gradtx.lbfgs(), gradtx.chain(gradtx.sgd(1.0), KEEPS)])
def test_evaluates_before_the_first_step_and_reuses_after(tx):
    calls = []

    def loss(x, scale):
        jax.debug.callback(lambda: calls.append(1))
        return scale * rosenbrock(x)

    read = jax.jit(lambda x, state: gradtx.value_and_grad_from_state(loss)(x, 2.0, state=state))
    x = jnp.asarray([-1.2, 1.0])
    state = tx.init(x)
    for expected in (1, 0, 0):
        calls.clear()
        value, grad = read(x, state)
        jax.effects_barrier()
        assert len(calls) == expected
        np.testing.assert_allclose(value, 2 * rosenbrock(x), rtol=1e-5)
        np.testing.assert_allclose(grad, 2 * jax.grad(rosenbrock)(x), rtol=1e-4)
        extra = {"value": value, "grad": grad, "value_fn": lambda x: 2 * rosenbrock(x)}
        x, state = tx.step(grad, state, x, **extra)


def test_finds_the_search_wherever_it_is():
    x = {"w": jnp.ones(2), "n": None, "i": jnp.arange(2)}
    loss = lambda p: jnp.sum(p["w"] ** 2)  # noqa: E731
    named = gradtx.named_chain(("a", gradtx.masked(gradtx.lbfgs(), True)), ("b", gradtx.scale(1.0)))
    value, grad = gradtx.value_and_grad_from_state(loss)(x, state=named.init(x))
    assert value == 2.0 and jnp.array_equal(grad["w"], jnp.asarray([2.0, 2.0]))
    assert grad["n"] is grad["i"] is None


def test_low_precision_comes_out_wide_on_both_ways():
    x = jnp.asarray([1.0, -2.0], jnp.bfloat16)
    tx = gradtx.lbfgs()
    state = tx.init(x)
    loss = lambda x: jnp.sum(x**2)  # noqa: E731
    for _ in range(2):
        value, grad = gradtx.value_and_grad_from_state(loss)(x, state=state)
        assert value.dtype == grad.dtype == jnp.float32
        x, state = tx.step(grad, state, x, value=value, grad=grad, value_fn=loss)


@pytest.mark.parametrize(
    "tx, number",
    [
        (gradtx.adam(0.1), 0),
        (gradtx.scale_by_backtracking_linesearch(5), 0),
        (gradtx.chain(KEEPS, KEEPS), 2),
    ],
)
def test_needs_one_search(tx, number):
    x = jnp.ones(2)
    with pytest.raises(ValueError, match=f"holds {number} values with their gradients"):
        gradtx.value_and_grad_from_state(rosenbrock)(x, state=tx.init(x))
