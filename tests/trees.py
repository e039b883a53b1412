"""Random problems over several leaves, and loops over them, leaf by leaf."""

import hypothesis.strategies as st
import jax
import numpy as np

from tests.oracles import STEPS, assert_close, descend, traced_descend

SHAPES = {"b": (5,), "w": (3, 4)}


class TreeProblem:
    """A noisy quadratic bowl over leaves of these shapes, each with its own target and scale.

    Keeps the gradients that it was asked for. They and the start are representable in
    float32, so that one trajectory serves both precisions.
    """

    def __init__(self, seed=3, dtype=float, shapes=SHAPES):
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.targets = {k: self._normal(shape) for k, shape in shapes.items()}
        self.scales = {k: 10.0 ** self.rng.uniform(-1, 1) for k in shapes}
        self.x0 = {k: self._normal(shape) for k, shape in shapes.items()}
        self.grads = []

    def grad(self, x):
        g = {
            k: self._single(self.scales[k] * (x[k] - self.targets[k] + self._normal(x[k].shape)))
            for k in x
        }
        self.grads.append(g)
        return g

    def stacked(self):
        return {k: np.stack([g[k] for g in self.grads]) for k in self.x0}

    def _normal(self, shape):
        x = self.rng.normal(size=shape)
        if self.dtype is complex:
            x = x + 1j * self.rng.normal(size=shape)
        return self._single(x)

    def _single(self, x):
        return np.asarray(x).astype(self.narrow).astype(self.dtype)

    @property
    def narrow(self):
        return np.complex64 if self.dtype is complex else np.float32


trees = st.builds(TreeProblem, seed=st.integers(0, 10**6))


def loop(problem, rule):
    """The parameters after each step of `rule(t, g, x, s)`, which sees one leaf at a time.

    `s` is a dict that the rule keeps what it likes in; t counts from 1.
    """
    x, states, xs = problem.x0, {k: {} for k in problem.x0}, []
    for t in range(1, STEPS + 1):
        g = problem.grad(x)
        x = {k: rule(t, g[k], x[k], states[k]) for k in x}
        xs.append(x)
    return {k: np.stack([x[k] for x in xs]) for k in x}


def check_tree(tx, problem, expected):
    """float64, hyperparameters traced."""
    with jax.enable_x64(True):
        xs = traced_descend(tx, problem.x0, problem.stacked())
    for key, x in problem.x0.items():
        assert xs[key].dtype == x.dtype and len(xs[key]) == STEPS
        assert_close(xs[key], expected[key])


def check_tree_forms(tx, make, rtol=1e-5):
    """One fixed problem in single precision, hyperparameters constants; one in complex double."""
    problem = TreeProblem()
    expected = loop(problem, make())
    narrow = jax.tree.map(np.float32, (problem.x0, problem.stacked()))
    xs = descend(tx, *narrow)
    for key in xs:
        assert xs[key].dtype == np.float32
        assert_close(xs[key], expected[key], rtol)
    problem = TreeProblem(dtype=complex)
    check_tree(tx, problem, loop(problem, make()))
