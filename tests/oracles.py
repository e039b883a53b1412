"""Random problems, and a driver, to hold gradtx against loops in plain NumPy float64."""

import jax
import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from gradtx.core.slot import Slot, kinds

STEPS = 200
few = settings(
    max_examples=6, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate]
)

rates = st.floats(1e-3, 0.3)
decays = st.floats(0.0, 0.99)
epsilons = st.sampled_from([1e-8, 1e-4, 0.1])


def constant(value):
    return lambda t: value


def never(t):
    return 0.0


def falling(value):
    """What `gradtx.linear_schedule(value, 0.0, STEPS)` is at step t, from 0."""
    return lambda t: value * (1 - t / STEPS)


class Problem:
    """Least squares as the mean over 64 examples, or over a sampled batch of them.

    Keeps the gradients that it was asked for. They and the start are representable in
    float32, so that one trajectory serves both precisions.
    """

    def __init__(self, seed=3, condition=10.0, batch=8, dtype=float):
        self.rng = np.random.default_rng(seed)
        self.batch = batch
        self.dtype = dtype
        self.a = self._normal(64, 4) * np.geomspace(1.0, condition**-0.5, 4)
        self.b = self._normal(64)
        self.x0 = self._single(self._normal(4))
        self.grads = []

    def grad(self, x):
        rows = np.arange(64)
        if self.batch is not None:
            rows = self.rng.choice(64, self.batch, replace=False)
        a, b = self.a[rows], self.b[rows]
        self.grads.append(self._single(a.conj().T @ (a @ x - b) / len(rows)))
        return self.grads[-1]

    def _normal(self, *shape):
        x = self.rng.normal(size=shape)
        return x + 1j * self.rng.normal(size=shape) if self.dtype is complex else x

    def _single(self, x):
        return x.astype(np.complex64 if self.dtype is complex else np.float32).astype(self.dtype)


problems = st.builds(
    Problem,
    seed=st.integers(0, 10**6),
    condition=st.sampled_from([1.0, 30.0, 1000.0]),
    batch=st.sampled_from([None, 1, 8]),
)
noisy_problems = st.builds(Problem, seed=st.integers(0, 10**6), batch=st.sampled_from([1, 8]))


def descend(tx, x0, grads):
    """The parameters after each step; the hyperparameters of `tx` are constants."""
    return jax.jit(lambda x0, grads: _scan(tx, x0, grads))(x0, grads)


def _scan(tx, x0, grads):
    def one(carry, g):
        x, state = carry
        x, state = tx.step(g, state, x)
        return (x, state), x

    return jax.lax.scan(one, (x0, tx.init(x0)), grads)[1]


traced_descend = jax.jit(_scan)


def assert_close(actual, expected, rtol=1e-12):
    """Equal to within `rtol` of the largest expected value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())


def check_double(tx, problem, expected):
    """float64, hyperparameters traced: one compilation serves all examples of a test."""
    assert len(expected) == STEPS
    with jax.enable_x64(True):
        xs = traced_descend(tx, problem.x0, np.stack(problem.grads))
        assert xs.dtype == problem.x0.dtype
    assert_close(xs, expected)


def check_single(tx, problem, expected, rtol=1e-5):
    """float32, hyperparameters as constants."""
    narrow = np.complex64 if problem.dtype is complex else np.float32
    xs = descend(tx, problem.x0.astype(narrow), np.stack(problem.grads).astype(narrow))
    assert xs.dtype == narrow
    assert_close(xs, expected, rtol)


def check_forms(tx, loop, rtol=1e-5):
    """One fixed problem in single precision, and one complex problem in double precision."""
    problem = Problem()
    check_single(tx, problem, loop(problem), rtol)
    problem = Problem(dtype=complex)
    check_double(tx, problem, loop(problem))
    for state in tx.init(problem.x0.astype(np.complex64)):
        for name, kind in kinds(type(state)).items():
            if isinstance(kind, Slot):
                assert np.iscomplexobj(getattr(state, name)) != kind.nonnegative
