"""The examples in the docstrings, the README and docs/ run as they stand; the README is right."""

import doctest
import importlib
import pathlib
import pkgutil
import re

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx.inspect import listing
from gradtx.parse import parse_transformation

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


def rows_of_the_readme():
    """Call text and bytes of state of each optimizer in the README's table."""
    part = (ROOT.parent / "README.md").read_text().split("## The algorithms")[1].split("\n## ")[0]
    for line in part.splitlines():
        if line.startswith("| `"):
            calls, _, state, _ = line.strip("|").split(" | ")
            texts, sizes = re.findall(r"`([^`]+)`", calls), state.strip().split(", ")
            if len(sizes) == 1:
                sizes *= len(texts)
            yield from zip(texts, sizes, strict=True)


def test_the_readme_tells_the_same_bytes():
    rows = list(rows_of_the_readme())
    listed = {each.name: each for each in listing.optimizers(gradtx)}
    assert {text.split("(")[0] for text, _ in rows} <= set(listed)
    plain = [(text, int(size)) for text, size in rows if size.isdecimal()]
    assert len(plain) > 30
    params = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    for text, size in plain:
        name, _, arguments = text.partition("(")
        arguments = re.sub(r"\blr\b", "0.1", arguments)
        tx = parse_transformation(f"{name}({re.sub(r', momentum(?!=)', ', 0.9', arguments)}")
        assert gradtx.state_bytes(tx, params) / 1024**2 == pytest.approx(size, abs=0.02), text
        if text in (f"{name}(lr)", f"{name}()"):
            assert listed[name].state_bytes_per_parameter == pytest.approx(size, abs=0.02)
