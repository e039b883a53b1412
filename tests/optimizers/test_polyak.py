"""Polyak's step size as SPS_max of Loizou et al.: one norm over all leaves."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import gradtx
from tests.oracles import STEPS, assert_close, constant, falling, few
from tests.trees import TreeProblem, trees

one = constant(1.0)


def polyak(problem, values, scaling=one, most=1.0, f_min=0.0, eps=0.0, plus=False):
    x, xs = problem.x0, []
    for t in range(STEPS):
        g = problem.grad(x)
        square = sum(np.sum(abs(leaf) ** 2) for leaf in g.values())
        gap = max(values[t] - f_min, 0.0) if plus else values[t] - f_min
        step = scaling(t) * min(gap / (square + eps), most)
        x = {k: x[k] - step * g[k] for k in x}
        xs.append(x)
    return {k: np.stack([x[k] for x in xs]) for k in x}


@jax.jit
def descend(tx, x0, grads, values):
    def one(carry, now):
        x, state = carry
        x, state = tx.step(now[0], state, x, value=now[1])
        return (x, state), x

    return jax.lax.scan(one, (x0, tx.init(x0)), (grads, values))[1]


def check(tx, problem, values, expected):
    with jax.enable_x64(True):
        xs = descend(tx, problem.x0, problem.stacked(), values)
    for key in xs:
        assert xs[key].dtype == problem.dtype
        assert_close(xs[key], expected[key])


def losses(seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 30.0, STEPS)


@few
@given(
    problem=trees,
    most=st.floats(0.01, 1.0),
    scaling=st.floats(0.1, 1.0),
    f_min=st.floats(-1.0, 5.0),
    eps=st.sampled_from([0.0, 0.1, 100.0]),
    plus=st.booleans(),
)
def test_polyak(problem, most, scaling, f_min, eps, plus):
    values = losses()
    expected = polyak(problem, values, constant(scaling), most, f_min, eps, plus)
    tx = gradtx.polyak_sgd(most, scaling, f_min, eps, "sps+" if plus else "sps")
    check(tx, problem, values, expected)


def test_defaults_schedule_and_stage():
    problem = TreeProblem()
    check(gradtx.polyak_sgd(), problem, losses(), polyak(problem, losses()))
    problem = TreeProblem()
    expected = polyak(problem, losses(), falling(1.0))
    tx = gradtx.polyak_sgd(scaling=gradtx.linear_schedule(1.0, 0.0, STEPS))
    check(tx, problem, losses(), expected)
    problem = TreeProblem()
    tx = gradtx.chain(gradtx.scale_by_polyak(), gradtx.scale(-1.0))
    check(tx, problem, losses(), polyak(problem, losses()))
    problem = TreeProblem(dtype=complex)
    check(gradtx.polyak_sgd(), problem, losses(), polyak(problem, losses()))


def test_single_precision():
    problem = TreeProblem()
    expected = polyak(problem, np.float32(losses()))
    single = jax.tree.map(np.float32, (problem.x0, problem.stacked(), losses()))
    xs = descend(gradtx.polyak_sgd(), *single)
    for key in xs:
        assert xs[key].dtype == np.float32
        assert_close(xs[key], expected[key], 1e-5)


def test_half_precision_gradients_of_a_float32_loss():
    tx, g = gradtx.scale_by_polyak(), jnp.asarray([2.0], jnp.bfloat16)
    u, _ = tx.update(g, tx.init(g), value=jnp.float32(2.0))
    assert u.dtype == jnp.bfloat16 and float(u[0]) == 1.0


@pytest.mark.parametrize("g, step", [(1e-6, 1.0), (2.0**-25, 1.0), (2.0**-26, 0.0), (0.0, 0.0)])
def test_a_gradient_of_almost_zero(g, step):
    """Optax's threshold is |g|^2 <= 2^-52, also in float32: small gradients still move."""
    tx, g = gradtx.scale_by_polyak(), jnp.asarray([g])
    u, _ = tx.update(g, tx.init(g), value=1.0)
    np.testing.assert_array_equal(u, step * g)


def test_eps_counts_against_the_threshold():
    tx, g = gradtx.scale_by_polyak(eps=2.0**-51), jnp.asarray([2.0**-30])
    np.testing.assert_array_equal(tx.update(g, tx.init(g), value=1.0)[0], g)


def test_a_loss_below_its_bound_climbs_or_stays():
    g = jnp.asarray([2.0])
    for variant, expected in (("sps", -1.0), ("sps+", 0.0)):
        tx = gradtx.scale_by_polyak(f_min=3.0, variant=variant)
        np.testing.assert_array_equal(tx.update(g, tx.init(g), value=1.0)[0], expected)


def test_errors():
    g = jnp.asarray([2.0])
    for tx in (gradtx.polyak_sgd(), gradtx.scale_by_polyak()):
        with pytest.raises(TypeError, match=r"scale_by_polyak needs the extra argument .value."):
            tx.update(g, tx.init(g), g)
    for make in (gradtx.polyak_sgd, gradtx.scale_by_polyak):
        with pytest.raises(ValueError, match="variant must be 'sps' or 'sps\\+', got 'spss'"):
            make(variant="spss")
