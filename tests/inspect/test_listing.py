import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.core.composed import Composed
from gradtx.inspect import listing

LISTED = {each.name: each for each in listing.optimizers(gradtx)}


def test_every_public_optimizer_is_listed_in_order():
    public = [
        name
        for name in gradtx.__all__
        if getattr(gradtx, name).__module__.startswith("gradtx.optimizers.")
        and name.islower()
        and not name.startswith("scale_by_")
    ]
    assert list(LISTED) == [name for name in public if name != "lookahead_trace"]


def test_bytes_of_state():
    expected = {"sgd": 0, "lion": 4, "adam": 8, "amsgrad": 12, "adan": 16, "lbfgs": 92}
    for name, size in expected.items():
        assert LISTED[name].state_bytes_per_parameter == pytest.approx(size, abs=1e-4)
    # A row and a column for the matrix, all of the vector, and a placeholder of one number each.
    adafactor = 4 * (2048 + 1 + 1024 + 2 + 1) / (1024 * 1024 + 1024)
    assert LISTED["adafactor"].state_bytes_per_parameter == pytest.approx(adafactor)


def reached(tx):
    """Which entries' updates change in two steps with one entry of one gradient."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(130, 128)), jnp.float32), "b": jnp.ones(3)}

    def value_fn(params):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    @jax.jit
    def updates_of(first, second):
        state, found = tx.init(params), []
        for grads in (first, second):
            given = {"value": value_fn(params), "grad": grads, "value_fn": value_fn}
            needed = {name: given[name] for name in tx.required_extra_args}
            updates, state = tx.update(grads, state, params, **needed)
            found.append(updates)
        return found

    def like(scale):
        return {
            k: jnp.asarray(scale * rng.normal(size=x.shape), x.dtype) for k, x in params.items()
        }

    first, second = like(1.0), like(0.1)
    changed = first | {"w": first["w"].at[4, 5].set(30.0)}
    pairs = list(zip(updates_of(first, second), updates_of(changed, second), strict=True))
    return {k: np.any([np.asarray(a[k] != b[k]) for a, b in pairs], axis=0) for k in params}


@pytest.mark.parametrize("name", LISTED)
def test_the_scope_read_from_the_program_is_what_a_changed_gradient_shows(name):
    public = getattr(gradtx, name)
    rate = {"learning_rate": 0.01} if "learning_rate" in public.__dataclass_fields__ else {}
    found = reached(public(**rate))
    elsewhere = found["w"].copy()
    elsewhere[4, 5] = False
    shown = "global" if found["b"].any() else "norms" if elsewhere.any() else "elementwise"
    assert LISTED[name].scope == shown


class by_product(gradtx.GradientTransformation):
    def init(self, params):
        return gradtx.EmptyState()

    def transform(self, updates, state, params, **extra_args):
        def half(u):
            return u if u.ndim < 2 else jax.lax.fori_loop(0, 3, lambda _, x: x @ (x.T @ x), u)

        return jax.tree.map(half, updates), state


class by_factorisation(by_product):
    def transform(self, updates, state, params, **extra_args):
        return jax.tree.map(lambda u: u if u.ndim < 2 else jnp.linalg.qr(u)[0], updates), state


def per_leaf(function):
    return gradtx.stateless_with_tree_map(lambda u, _: function(u))


def rounded(u):
    return jax.lax.reduce_precision(u, 8, 7)


def by_a_constant(u):
    return u * jnp.sum(jnp.arange(3.0) + u.ndim)


@jax.jit
def all_at_once(updates, params):
    return jax.tree.map(lambda u, p: 2 * u + p, updates, params)


def ranked(u):
    return u - jnp.argmax(u, axis=0, keepdims=True).astype(u.dtype)


def summed(u):
    return jnp.cumsum(u, axis=0)


def dotted(u):
    return u if u.ndim < 2 else u + (u @ u[0])[:, None]


def test_scopes_of_stages():
    scopes = {
        by_product(): "matrix",
        gradtx.chain(gradtx.clip_by_global_norm(1.0), by_factorisation()): "matrix",
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(0.1)): "global",
        gradtx.skip_nonfinite(gradtx.adam(0.1)): "global",
        gradtx.clip_by_block_rms(1.0): "norms",
        gradtx.centralize(): "norms",
        gradtx.add_noise(0.1, 0.5, 0): "elementwise",
        gradtx.identity(): "elementwise",
        per_leaf(rounded): "elementwise",
        per_leaf(by_a_constant): "elementwise",
        gradtx.stateless(all_at_once): "elementwise",
        per_leaf(ranked): "norms",
        per_leaf(summed): "norms",
        per_leaf(dotted): "norms",
        gradtx.set_to_zero(): "elementwise",
    }
    assert {tx: listing.scope_of(tx) for tx in scopes} == scopes


def test_a_norm_that_comes_back_in_the_next_step_counts():
    def init(params):
        return jnp.zeros(())

    def update(updates, state, params=None):
        return jax.tree.map(lambda u: u * state, updates), gradtx.global_norm(updates)

    assert listing.scope_of(gradtx.GradientTransformation(init, update)) == "global"


def test_sources():
    shown = {name: (each.source, each.arxiv) for name, each in LISTED.items()}
    assert all(re.fullmatch(r"[A-Z].*, (19|20)\d\d", source) for source, _ in shown.values())
    assert shown["adam"] == ("Kingma, Ba, 2014", "1412.6980")
    assert shown["adamw"] == ("Loshchilov, Hutter, 2017", "1711.05101")
    assert shown["adamaxw"] == ("Kingma, Ba, 2014", "1412.6980")
    assert shown["nesterov_momentum"] == ("Nesterov, 1983", None)
    assert shown["rmsprop"] == ("Tieleman, Hinton, 2012", None)

    class unsourced(Composed):
        """Nothing."""

        def compose(self):
            return gradtx.identity()

    class namespace:
        __all__ = ("unsourced", "chain", "global_norm")
        chain, global_norm = gradtx.chain, gradtx.global_norm

    namespace.unsourced = unsourced
    (only,) = listing.optimizers(namespace)
    assert (only.name, only.source, only.arxiv) == ("unsourced", "", None)


def test_the_table_stands_in_line():
    lines = listing.table([LISTED["sgd"], LISTED["adam"], LISTED["lbfgs"]]).splitlines()
    assert lines == [
        "optimizer   state   scope         source",
        "sgd          0.00   elementwise   Robbins, Monro, 1951",
        "adam         8.00   elementwise   Kingma, Ba, 2014, arXiv:1412.6980",
        "lbfgs       92.00   global        Liu, Nocedal, 1989",
        "",
        "state: bytes per float32 parameter",
    ]
