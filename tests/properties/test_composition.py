"""The composition matrix: every wrapper around every optimizer, under every condition.

A seeded sample runs always; `pytest -m full tests/properties` runs the whole product.
"""

import itertools
import random

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradtx
from gradtx.core.leaf import is_optimised
from gradtx.testing import check_transformation, gradients_like
from tests.examples import EXAMPLES, public_transformations
from tests.properties.test_laws import EXTRA

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 16).reshape(8, 2), "b": jnp.ones(2)}
LOW = {"w": PARAMS["w"].astype(jnp.bfloat16), "b": jnp.ones(2, jnp.bfloat16)}


def is_vector(path, leaf):
    return leaf.ndim == 1


def by_size(params):
    return jax.tree.map(lambda x: "vector" if getattr(x, "ndim", 0) < 2 else "rest", params)


OPTIMIZERS = {
    name: EXAMPLES[f"{name}-0"]
    for name, made in public_transformations().items()
    if ".optimizers." in getattr(made, "__module__", "") and not name.startswith("scale_by_")
}

WRAPPERS = {
    "chain": lambda tx: gradtx.chain(gradtx.clip_by_global_norm(1.0), tx),
    "named_chain": lambda tx: gradtx.named_chain(("clip", gradtx.clip(1.0)), ("tx", tx)),
    "masked": lambda tx: gradtx.masked(tx, True),
    "masked-zero": lambda tx: gradtx.masked(tx, True, unselected="zero"),
    "partition": lambda tx: gradtx.partition({"vector": tx, "rest": gradtx.sgd(0.1)}, by_size),
    "groups": lambda tx: gradtx.groups([(is_vector, gradtx.sgd(0.1))], default=tx),
    "freeze": lambda tx: gradtx.freeze(tx, is_vector),
    "selective_transform": lambda tx: gradtx.selective_transform(tx, freeze_mask=False),
    "inject_hyperparams": lambda tx: gradtx.inject_hyperparams(tx),
    "lookahead": lambda tx: gradtx.lookahead(tx, 2, 0.5),
    "MultiSteps": lambda tx: gradtx.MultiSteps(tx, 2),
    "accumulate": lambda tx: gradtx.accumulate(tx, 2),
    "skip_nonfinite": lambda tx: gradtx.skip_nonfinite(tx),
    "apply_if_finite": lambda tx: gradtx.apply_if_finite(tx, 2),
    "conditionally_transform": lambda tx: gradtx.conditionally_transform(tx, even),
    "conditionally_mask": lambda tx: gradtx.conditionally_mask(tx, even),
    "apply_every": lambda tx: gradtx.chain(tx, gradtx.apply_every(2)),
    "flatten": lambda tx: gradtx.flatten(tx),
    "quantize_state": lambda tx: gradtx.quantize_state(tx, min_size=1),
    "snapshot": lambda tx: gradtx.chain(gradtx.snapshot("u", gradtx.global_norm), tx),
    "ema_params": lambda tx: gradtx.chain(tx, gradtx.ema_params(0.9)),
    "stochastic_rounding": lambda tx: gradtx.stochastic_rounding(tx),
    "kahan": lambda tx: gradtx.kahan(tx),
    "master_weights": lambda tx: gradtx.master_weights(tx),
    "slot_dtypes": lambda tx: gradtx.slot_dtypes(tx, {}),
    "offload_state": lambda tx: gradtx.offload_state(tx),
    "foreign": lambda tx: gradtx.chain(optax.identity(), tx),
}


def even(count, **extra_args):
    return count % 2 == 0


def law(*names, params=PARAMS):
    return lambda tx: check_transformation(tx, params, laws=names, **EXTRA)


def trains(params, grads):
    """Two compiled steps leave every leaf finite, of its type, and move some."""

    def condition(tx):
        extra = {**EXTRA, "grad": grads} if "grad" in tx.required_extra_args else EXTRA
        step = jax.jit(lambda p, s: tx.step(grads, s, p, **extra))
        moved, state = params, tx.init(params)
        for _ in range(4):
            moved, state = step(moved, state)
        before, after = (
            [x for x in jax.tree.leaves(tree) if is_optimised(x)] for tree in (params, moved)
        )
        assert jax.tree.structure(moved) == jax.tree.structure(params)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in after)
        assert any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))

    return condition


def equinox_module():
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    params = eqx.filter(model, eqx.is_inexact_array)
    return params, gradients_like(params)


def nnx_state():
    model = nnx.Sequential(nnx.Linear(2, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 1, rngs=nnx.Rngs(1)))
    params = nnx.state(model, nnx.Param)
    return params, gradients_like(params)


CONDITIONS = {
    "jit": law("is_the_same_under_jit"),
    "scan": law("scans"),
    "vmap": law("maps_over_hyperparameters"),
    "donate": law("never_aliases"),
    "abstract": law("initialises_abstractly", "has_a_type_fixed_point"),
    "sharded": law("shards"),
    "bfloat16": law("is_the_same_under_jit", "has_a_type_fixed_point", params=LOW),
    "equinox": trains(*equinox_module()),
    "nnx": trains(*nnx_state()),
    "none": law("passes_over_other_leaves"),
}

# What cannot be, and why.
WHOLE_TREE = "a line search calls value_fn on the whole tree, of which it sees a part here"
IMPOSSIBLE = {
    (wrapper, "lbfgs", "*"): WHOLE_TREE for wrapper in ("partition", "groups", "freeze", "flatten")
}
IMPOSSIBLE |= {("selective_transform", "lbfgs", c): WHOLE_TREE for c in ("equinox", "none")}

PRODUCT = [
    case
    for case in itertools.product(WRAPPERS, OPTIMIZERS, CONDITIONS)
    if not any(
        all(part in ("*", own) for part, own in zip(rule, case, strict=True)) for rule in IMPOSSIBLE
    )
]
SAMPLE = random.Random(0).sample(PRODUCT, 60)


def check(wrapper, optimizer, condition):
    CONDITIONS[condition](WRAPPERS[wrapper](OPTIMIZERS[optimizer]))


@pytest.mark.parametrize("case", SAMPLE, ids="-".join)
def test_sample(case):
    check(*case)


@pytest.mark.full
@pytest.mark.parametrize("case", PRODUCT, ids="-".join)
def test_product(case):
    check(*case)


def test_every_wrapper_is_in_the_matrix():
    """A public transformation that holds another is either here or a stage of its own."""
    holding = {
        name
        for name in public_transformations()
        for tx in [EXAMPLES[f"{name}-0"]]
        if ".wrappers." in type(tx).__module__ or ".core." in type(tx).__module__
        if any(isinstance(x, gradtx.GradientTransformation) for x in vars(tx).values())
    }
    assert holding - {"multi_transform"} <= {name.split("-")[0] for name in WRAPPERS}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_extra_args_reach_what_is_inside(wrapper):
    """A transformation from outside that needs one argument, takes one and ignores others."""
    seen = []

    def update(updates, state, params=None, *, needed, taken=None):
        seen.append((needed, taken))
        return updates, state

    probe = gradtx.GradientTransformation(gradtx.init_empty_state, update)
    tx = WRAPPERS[wrapper](probe)
    assert "needed" in tx.required_extra_args
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = tx.update(PARAMS, state, PARAMS, needed="a", taken="b", other="c")
    assert set(seen) == {("a", "b")}
