import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.lab.lineup import LECTURE
from gradtx.lab.problems import LANDSCAPES, trace_path


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=list(LANDSCAPES))
def test_minima_are_zero_and_flat(landscape):
    for minimum in landscape.minima:
        point = jnp.asarray(minimum)
        assert landscape.function(point) == pytest.approx(0.0, abs=1e-6)
        np.testing.assert_allclose(jax.grad(landscape.function)(point), 0.0, atol=1e-5)
        np.testing.assert_array_less(0, jnp.linalg.eigvalsh(jax.hessian(landscape.function)(point)))


@pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=list(LANDSCAPES))
def test_start_and_minimum_are_in_the_window_and_no_value_is_below_zero(landscape):
    left, right, bottom, top = landscape.window
    for x, y in (landscape.start, landscape.minima[0]):
        assert left < x < right and bottom < y < top
    x, y = np.meshgrid(np.linspace(left, right, 50), np.linspace(bottom, top, 50))
    values = jax.vmap(landscape.function)(jnp.stack([x.ravel(), y.ravel()], axis=1))
    assert values.min() >= -1e-6


def test_shapes_are_what_their_names_say():
    curvatures = jnp.linalg.eigvalsh(jax.hessian(LANDSCAPES["quadratic"].function)(jnp.zeros(2)))
    np.testing.assert_allclose(curvatures, [1.0, 30.0])
    curvatures = jnp.linalg.eigvalsh(jax.hessian(LANDSCAPES["saddle"].function)(jnp.zeros(2)))
    assert curvatures[0] < 0 < curvatures[1]
    local = LANDSCAPES["local-minimum"].function
    shallow = jnp.asarray([-1.0, 0.0])
    np.testing.assert_allclose(jax.grad(local)(shallow), 0.0, atol=1e-6)
    assert jnp.linalg.eigvalsh(jax.hessian(local)(shallow)).min() > 0
    assert local(jnp.zeros(2)) - local(shallow) == pytest.approx(5 / 12, rel=1e-5)


@pytest.mark.parametrize(("name", "known"), [("rosenbrock", 24.2), ("beale", 41.25)])
def test_classics_have_their_known_values(name, known):
    landscape = LANDSCAPES[name]
    assert landscape.function(jnp.asarray(landscape.start)) == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize("lookahead", [False, True])
def test_a_path_is_the_loop_written_out(lookahead):
    tx = gradtx.nesterov_momentum(1e-4, 0.9, lookahead=lookahead)
    landscape = LANDSCAPES["rosenbrock"]
    path = trace_path(tx, landscape, steps=5)
    x, v = np.asarray(landscape.start), np.zeros(2)
    for step in range(6):
        np.testing.assert_allclose(path.points[step], x, rtol=1e-4)
        np.testing.assert_allclose(path.values[step], landscape.function(x), rtol=1e-4)
        point = jnp.asarray(x + 0.9 * v if lookahead else x, jnp.float32)
        old, v = v, 0.9 * v - 1e-4 * np.asarray(jax.grad(landscape.function)(point))
        x = x + v if lookahead else x - 0.9 * old + 1.9 * v


def test_a_path_of_no_steps_is_the_start():
    path = trace_path(LECTURE["adam"], LANDSCAPES["saddle"], steps=0)
    np.testing.assert_allclose(path.points, [LANDSCAPES["saddle"].start])
