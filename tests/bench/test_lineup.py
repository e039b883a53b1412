import inspect

import jax
import jax.numpy as jnp
import optax
import pytest
import torch

import gradtx
from gradtx.bench import lineup

RECIPES = lineup.recipes(optax)


def test_every_public_optimizer_that_optax_has_takes_part():
    public = {
        name
        for name in gradtx.__all__
        if getattr(gradtx, name).__module__.startswith("gradtx.optimizers.")
        and name.islower()
        and not name.startswith("scale_by_")
        and hasattr(optax, name)
    } - {"lbfgs"}  # it is measured by evaluations of the function, not by its step
    assert set(RECIPES) == public | {"momentum", "nesterov"}


def test_without_optax_gradtxs_own_take_part():
    assert set(lineup.recipes(None)) - set(RECIPES) == {"classical_momentum", "nesterov_momentum"}
    (case,) = lineup.plain(["adam"], None)
    assert case.theirs is None
    for case in [
        *lineup.clipped(["adam"], None),
        *lineup.wrapped(["adam"], None),
        *lineup.flattened(["adam"], None),
    ]:
        assert case.theirs is None


@pytest.mark.parametrize("case", lineup.plain(RECIPES, optax), ids=lambda case: case.name)
def test_both_sides_are_the_same_optimizer(case):
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(tx.init({"w": jnp.ones((200, 150))})))
        for tx in (case.own, case.theirs)
    ]
    assert sizes[0] == pytest.approx(sizes[1], abs=10)  # counts and keys aside
    if case.torch is not None:
        cls = getattr(torch.optim, case.torch.optimizer.function)
        assert set(case.torch.optimizer.arguments) <= set(inspect.signature(cls).parameters)


def test_clipping_and_wrapping():
    (clipped,) = lineup.clipped(["adamw"], optax)
    assert repr(clipped.own).startswith("chain(clip_by_global_norm(max_norm=1.0), adamw(")
    assert clipped.torch.max_norm == 1.0 and clipped.gradient_reads == 2
    wrapped = lineup.wrapped(["adamw"], optax)
    assert [case.name for case in wrapped] == [
        "skip_nonfinite(adamw)", "apply_if_finite(adamw)",
        "accumulate(adamw, 4)", "MultiSteps(adamw, 4)",
    ]  # fmt: skip
    assert [case.window for case in wrapped] == [1, 1, 4, 4]
    (flat,) = lineup.flattened(["adamw"], optax)
    assert flat.own == gradtx.flatten(gradtx.adamw(1e-3)) and flat.torch is not None
    assert flat.theirs.init({"a": jnp.ones(2), "b": jnp.ones(3)})[0].mu.shape == (5,)
    assert all(case.inner == gradtx.adamw(1e-3) for case in (*wrapped, flat))
