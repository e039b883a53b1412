"""The examples in the docstrings, the README and docs/ run as they stand."""

import doctest
import importlib
import pathlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

import gradtx

ROOT = pathlib.Path(gradtx.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "gradtx.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    names = {**vars(module), "gradtx": gradtx, "jax": jax, "jnp": jnp}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def snippets():
    """Each Python block of the README and of docs/, with the line that it begins on."""
    for path in [ROOT.parent / "README.md", *sorted((ROOT.parent / "docs").glob("*.md"))]:
        blocks = path.read_text().split("```python\n")
        line = blocks[0].count("\n") + 2
        for block in blocks[1:]:
            yield pytest.param(block.split("```")[0], id=f"{path.name}:{line}")
            line += block.count("\n") + 1


@pytest.mark.parametrize("code", list(snippets()))
def test_snippets_run(code):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})
