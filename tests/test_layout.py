"""The house: tests mirror sources, imports run one way, everything public is documented."""

import ast
import inspect
import pathlib
import re
import subprocess

import pytest

import gradtx
from gradtx.core.hyper import Schedule
from gradtx.core.slot import kinds
from tests.examples import public_transformations

PACKAGE = pathlib.Path(gradtx.__file__).parent
REPO = PACKAGE.parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

# What each room, or module beside the rooms, may import, beside itself.
MAY_IMPORT = {
    "core": set(),
    "schedules": {"core"},
    "transforms": {"core"},
    "linesearch": {"core"},
    "optimizers": {"core", "schedules", "transforms", "linesearch"},
    "wrappers": {"core", "transforms"},
    "memory": {"core"},
    "solve": {"core", "linesearch", "optimizers"},
    "compat": {"gradtx", "tree"},
    "inspect": {"core", "memory"},
    "lab": {"gradtx", "parse"},
    "bench": {"gradtx"},
    "tree.py": {"core"},
    "parse.py": {"gradtx"},
    "laws.py": {"core", "transforms"},
    "testing.py": {"core", "laws"},
}


def room_of(path):
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 or inside.name in MAY_IMPORT else None


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    room = room_of(path)
    for module in imports_of(path):
        assert not re.match(r"jax\._src|jax\.interpreters", module), f"private JAX: {module}"
        if room is not None and module.split(".")[0] == "gradtx":
            target = module.split(".")[1] if "." in module else "gradtx"
            assert target in MAY_IMPORT[room] | {room}, f"{room} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_tests_mirror_sources(path):
    inside = path.relative_to(PACKAGE)
    mirror = REPO / "tests" / inside.parent / f"test_{path.stem.strip('_')}.py"
    assert mirror.exists(), f"{inside} has no {mirror.relative_to(REPO)}"


def test_inits_of_rooms_are_empty():
    for path in PACKAGE.rglob("*/__init__.py"):
        assert path.read_text() == "", path


def test_top_level_holds_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    allowed = {"pyproject.toml", "README.md", "gradtx", "tests", "notebooks", "docs"}
    allowed |= {"LICENSE", "CHANGELOG.md"}
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_core_needs_only_jax_and_numpy():
    for path in MODULES:
        if room_of(path) in (None, "lab", "bench"):
            continue
        outside = {module.split(".")[0] for module in imports_of(path)}
        assert outside - set(__import__("sys").stdlib_module_names) <= {"jax", "numpy", "gradtx"}


@pytest.mark.parametrize("name", gradtx.__all__)
def test_everything_public_is_documented(name):
    assert inspect.getdoc(getattr(gradtx, name)), f"{name} has no docstring"


@pytest.mark.parametrize("name", public_transformations())
def test_transformations_document_themselves(name):
    doc = inspect.getdoc(getattr(gradtx, name))
    assert ">>> tx = " in doc
    if list(inspect.signature(getattr(gradtx, name)).parameters):
        assert "Args" in doc and "Raises" in doc
    if "optimizers" in getattr(gradtx, name).__module__:
        assert "Source:" in doc and "<-" in doc, f"{name} lacks its equation or its source"


@pytest.mark.parametrize("name", gradtx.__all__)
def test_states_and_schedules(name):
    value = getattr(gradtx, name)
    if name.endswith(("State", "WeightDecaySchedule")):
        kinds(value)
    if inspect.isclass(value) and issubclass(value, Schedule) and value is not Schedule:
        assert ">>> schedule = " in inspect.getdoc(value)
