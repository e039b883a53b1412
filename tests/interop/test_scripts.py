"""Scripts written for Optax, of which only the line `import optax` is changed."""

import pathlib

import jax
import numpy as np
import pytest

SCRIPTS = sorted(pathlib.Path(__file__).with_name("scripts").glob("*.py"))


def run(source, path):
    names = {"__name__": path.stem}
    exec(compile(source, str(path), "exec"), names)
    return jax.tree.leaves(names["result"]), np.asarray(names["losses"])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path):
    source = path.read_text()
    assert source.count("import optax\n") == 1
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs, their_losses = run(source, path)
        ours, losses = run(source.replace("import optax\n", "import gradtx as optax\n"), path)
    assert len(ours) == len(theirs) > 1
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(losses, their_losses, rtol=1e-4)
    for actual, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
