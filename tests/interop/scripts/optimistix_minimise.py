"""A minimisation by Optimistix, which brings any Optax optimizer to convergence."""

import jax.numpy as jnp
import optax
import optimistix


def rosenbrock(x, scale):
    return jnp.sum(scale * (x["b"] - x["a"] ** 2) ** 2 + (1.0 - x["a"]) ** 2)


start = {"a": jnp.asarray([-0.5, 0.5]), "b": jnp.asarray([1.0, 2.0])}
losses = [rosenbrock(start, 3.0)]
solver = optimistix.OptaxMinimiser(optax.adam(1e-2), rtol=1e-4, atol=1e-4)
solution = optimistix.minimise(rosenbrock, solver, start, args=3.0, max_steps=4000)
losses.append(rosenbrock(solution.value, 3.0))
result = solution.value
