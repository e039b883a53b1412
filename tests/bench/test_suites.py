import math

import optax
import pytest
import torch

from gradtx.bench import suites
from gradtx.bench.suites import SUITES, MemoryRow, Setting, TimedRow

TORCH = {"torch fused", "torch foreach", "torch default"}


def rows(suite, optimizers=("adamw",), **changes):
    usual = {"bandwidth": 1e9, "optax": optax, "torch": torch, "size": 4, "leaves": 2, "repeats": 2}
    return list(SUITES[suite](Setting(**{**usual, "optimizers": optimizers, **changes})))


@pytest.mark.parametrize(
    ("suite", "cases"),
    [
        ("large", {"adamw": {"optax"} | TORCH}),
        ("many-leaves", {
            "adamw": {"optax"} | TORCH,
            "clip + adamw": {"optax"} | TORCH,
            "flatten(adamw)": {"optax", "inner step"} | TORCH,
        }),
        ("wrappers", {
            "clip + adamw": {"optax"} | TORCH,
            "skip_nonfinite(adamw)": {"optax", "inner step"},
            "apply_if_finite(adamw)": {"optax", "inner step"},
            "accumulate(adamw, 4)": {"optax", "inner step"},
            "MultiSteps(adamw, 4)": {"optax", "inner step"},
        }),
        ("compile", {
            f"{name}: {part}": {"optax"} | ({"inner step"} if "flatten" in name else set())
            for name in ("adamw", "clip + adamw", "flatten(adamw)")
            for part in ("trace and lower", "compile")
        }),
    ],
)  # fmt: skip
def test_timed_suites(suite, cases):
    found = rows(suite)
    assert {row.case: set(row.ratios) for row in found} == cases
    for row in found:
        assert isinstance(row, TimedRow) and row.suite == suite and row.rounds == 2
        assert list(row.seconds) == ["gradtx", *row.ratios]
        for spread in [*row.seconds.values(), *row.ratios.values()]:
            assert 0 < spread.low <= spread.median <= spread.high < math.inf
        assert (row.floor is None) == (suite == "compile")


def test_memory():
    found = rows("memory")
    assert [row.case for row in found] == [
        "adamw", "clip + adamw", "skip_nonfinite(adamw)", "apply_if_finite(adamw)",
        "accumulate(adamw, 4)", "MultiSteps(adamw, 4)",
    ]  # fmt: skip
    for row in found:
        assert isinstance(row, MemoryRow) and list(row.footprints) == ["gradtx", "optax"]
    assert found[0].floor == pytest.approx(28, abs=1)
    # The step that closes a window: g; the mean, p, m and v read and written.
    assert found[4].floor == pytest.approx(36, abs=2)


def test_the_usual_optimizers():
    small = {"leaves": 1, "size": 2, "torch": None, "repeats": 1}
    cases = [row.case for row in rows("many-leaves", optimizers=None, **small)]
    assert cases[:3] == ["adamw", "momentum", "lion"] and len(cases) == 9


def test_leaves_and_sizes():
    setting = Setting(bandwidth=1.0)
    assert [leaf.shape for leaf in setting.large().values()] == [(1000, 1000)] * 20
    assert len(setting.small()) == 1000
    setting = Setting(bandwidth=1.0, size=3, leaves=2)
    assert [leaf.shape for leaf in setting.large().values()] == [(3, 3)] * 2
    assert len(setting.small()) == 2
    for name in SUITES:
        assert suites.title(name, setting).startswith(f"{name}: ")


def test_the_floor_is_in_seconds():
    (row,) = rows("large", optimizers=("sgd",), size=10, torch=None, bandwidth=100.0)
    assert row.floor == pytest.approx(2 * 100 * 12 / 100.0)
