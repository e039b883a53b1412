"""Every public name of Optax: gradtx's own with the same signature, or a reason in writing."""

import inspect
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
import gradtx.tree
from gradtx.compat import optax as compat

# What lies outside the transformation of gradients; `gradtx.compat.optax` passes it on.
OUTSIDE = {
    name: reason
    for reason, names in {
        "a loss or a metric": """
            convex_kl_divergence cosine_distance cosine_similarity ctc_loss
            ctc_loss_with_forward_probs generalized_kl_divergence hinge_loss huber_loss
            kl_divergence l2_loss log_cosh ntxent safe_softmax_cross_entropy
            sigmoid_binary_cross_entropy sigmoid_focal_loss smooth_labels softmax_cross_entropy
            softmax_cross_entropy_with_integer_labels squared_error""",
        "linear algebra": "matrix_inverse_pth_root nnls power_iteration",
        "a distribution": "multi_normal",
        "splitting of batches": "microbatch",
    }.items()
    for name in names.split()
}

# What differs on purpose, a name or a parameter of one: what, and why.
DIFFERENT = {
    "GradientTransformation": "a class of values, built from the same two functions",
    "GradientTransformationExtraArgs": "the same class: every transformation takes extra arguments",
    "InjectHyperparamsState": "the state of inject_hyperparams; Optax keeps an unused class",
    "LookaheadState": "a third field, the slow parameters, beside plain parameters",
    "Schedule": "a base class of values; Optax's is a type alias",
    "adam.learning_rate": "1e-3 by default, as in the lecture",
    "add_noise.key": "0 by default, which Optax takes too, with a warning",
    "add_noise.seed": "deprecated in Optax",
    "noisy_sgd.key": "0 by default, which Optax takes too, with a warning",
    "noisy_sgd.seed": "deprecated in Optax",
    "MultiSteps.accumulator_dtype": "float32 or wider, as the parameters need",
    "scale_by_distance_over_gradients.param_dtype": "the parameters' own, at least float32",
}

PUBLIC = [
    name
    for name in dir(optax)
    if not name.startswith("_") and not isinstance(getattr(optax, name), types.ModuleType)
]


def parameters(function):
    return list(inspect.signature(function).parameters.values())


def same_default(own, theirs):
    if theirs is inspect.Parameter.empty or own is inspect.Parameter.empty:
        return own is theirs
    if isinstance(theirs, optax.GradientTransformation):
        return isinstance(own, gradtx.GradientTransformation)
    if callable(theirs) and not isinstance(theirs, type):
        return callable(own)
    if isinstance(theirs, int | float) and isinstance(own, int | float):
        return own == theirs
    if own is None or theirs is None:
        return own is theirs
    try:
        return jnp.dtype(own) == jnp.dtype(theirs)
    except TypeError:
        return own == theirs


def test_the_lists_are_not_stale():
    assert set(OUTSIDE) <= set(PUBLIC) and not set(OUTSIDE) & set(gradtx.__all__)
    for name in DIFFERENT:
        function, _, parameter = name.partition(".")
        assert function in PUBLIC
        assert not parameter or parameter in inspect.signature(getattr(optax, function)).parameters


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in OUTSIDE])
def test_every_name_is_there_with_optaxs_signature(name):
    assert name in gradtx.__all__, f"gradtx has no {name}"
    own, theirs = getattr(gradtx, name), getattr(optax, name)
    if name in DIFFERENT or (not inspect.isroutine(theirs) and not inspect.isclass(theirs)):
        return
    if hasattr(theirs, "_fields"):
        assert own._fields == theirs._fields
        return
    mine = {p.name: p for p in parameters(own)}
    for i, p in enumerate(parameters(theirs)):
        if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) or f"{name}.{p.name}" in DIFFERENT:
            continue
        assert p.name in mine, f"{name} lacks the argument {p.name}"
        assert same_default(mine[p.name].default, p.default), (
            f"{name}({p.name}) is {mine[p.name].default}, Optax's {p.default}"
        )
        if p.kind is p.POSITIONAL_OR_KEYWORD:
            assert list(mine)[i] == p.name, f"{name}: {p.name} is in another place"
            assert mine[p.name].kind is not p.KEYWORD_ONLY, f"{name}: {p.name} is keyword-only"
    theirs_too = {p.name for p in parameters(theirs)}
    for own_name, p in mine.items():
        added = own_name not in theirs_too
        assert (
            not added or p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ), f"{name} needs {own_name}, which Optax's does not have"


@pytest.mark.parametrize("module", ["tree", "schedules", "transforms"])
def test_submodules_are_complete(module):
    theirs, own = getattr(optax, module), getattr(compat, module)
    for name in dir(theirs):
        if name.startswith("_") or isinstance(getattr(theirs, name), types.ModuleType):
            continue
        value = getattr(own, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert value.__module__.startswith("gradtx"), f"optax.{module}.{name} is Optax's own"


@pytest.mark.parametrize("name", optax.tree.__all__ if hasattr(optax.tree, "__all__") else [])
def test_tree_functions_have_optaxs_signatures(name):
    mine = {p.name: p.default for p in parameters(getattr(gradtx.tree, name))}
    for p in parameters(getattr(optax.tree, name)):
        assert p.name in mine or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL), (name, p.name)


def test_compat_serves_both():
    assert compat.adam is gradtx.adam
    assert compat.l2_loss is optax.l2_loss
    assert compat.tree.add is gradtx.tree.add
    assert compat.tree_utils.tree_add is gradtx.tree.add
    assert compat.schedules.linear_schedule is gradtx.linear_schedule
    assert compat.transforms.chain is gradtx.chain
    assert compat.losses.huber_loss is optax.losses.huber_loss
    assert compat.contrib.muon is optax.contrib.muon
    assert compat.projections.projection_simplex is optax.projections.projection_simplex
    assert compat.__version__ == optax.__version__
    assert {"adam", "l2_loss", "tree"} <= set(dir(compat))
    with pytest.raises(AttributeError, match="neither gradtx nor optax has 'adamm'"):
        _ = compat.adamm
    with pytest.raises(AttributeError, match=r"neither gradtx nor optax\.tree has 'ad'"):
        _ = compat.tree.ad


def test_without_optax_the_error_says_what_to_install():
    script = (
        "import sys; sys.modules['optax'] = None\n"
        "from gradtx.compat import optax\n"
        "optax.adam(1e-3), optax.tree.add, dir(optax)\n"
        "try: optax.l2_loss\n"
        "except AttributeError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install optax" in run.stdout and "l2_loss" in run.stdout


def test_a_script_with_a_loss_runs():
    params = {"w": jnp.ones(3)}
    tx = compat.chain(compat.clip_by_global_norm(1.0), compat.adam(0.1))
    state = tx.init(params)
    updates, state = tx.update({"w": compat.l2_loss(params["w"])}, state, params)
    params = compat.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], 0.9, rtol=1e-5)
