import json

import jax

from gradtx.bench import report
from gradtx.bench.footprint import Footprint
from gradtx.bench.measure import Spread
from gradtx.bench.suites import MemoryRow, Setting, TimedRow


def timed(case, own, other, floor=0.001):
    return TimedRow(
        "large", case,
        {"gradtx": Spread(own, own, own), "optax": Spread(other, other / 2, other * 2)},
        {"optax": Spread(own / other, own / other / 2, own / other * 2)},
        floor, rounds=7,
    )  # fmt: skip


MEMORY = MemoryRow(
    "memory", "lion", 20.0,
    {"gradtx": Footprint(0.0, 24.0, 40), "optax": Footprint(4.0, 36.0, 61)},
)  # fmt: skip


def test_a_timed_row_has_a_line_for_each_contender():
    own, other = report.lines(timed("adam", 0.002, 0.004)).splitlines()
    assert own.split() == ["adam", "gradtx", "2.000", "2.00", "-", "2.00", "2.00"]
    assert other.split() == [
        "optax", "4.000", "2.00", "-", "8.00", "0.50", "0.25", "-", "1.00", "4.00",
    ]  # fmt: skip
    assert own.index("2.000") == other.index("4.000")
    assert "4.00" not in report.lines(timed("adam", 0.002, 0.004, floor=None)).split()


def test_columns_stand_under_their_headings():
    row = timed("adam", 0.002, 0.004)
    head, (own, other) = report.headings(row), report.lines(row).splitlines()
    assert len(head) == len(own) == len(other)
    *_, head = report.headings(MEMORY).splitlines()
    assert len(head) == len(report.lines(MEMORY))


def test_a_row_of_the_compilers_figures_is_one_line():
    assert report.lines(MEMORY).split() == ["lion", "20.0", "0.00", "4.00", "24.0", "36.0",
                                            "40", "61"]  # fmt: skip
    assert report.headings(MEMORY).split()[-2:] == ["gradtx", "optax"]


def test_the_summary_names_the_largest_ratio():
    rows = [timed("adam", 1.0, 2.0), timed("sgd", 2.0, 1.0), MEMORY]
    assert report.summary(rows) == ["gradtx / optax: geometric mean 1.00, largest 2.00 (sgd)"]
    assert report.summary([MEMORY]) == []


def test_json_and_head(tmp_path):
    machine = report.machine(jax.devices()[0], 2.5e10, (None, json))
    shown = report.head(machine)
    assert "25.0 GB/s" in shown and f"jax {jax.__version__}" in shown and "json 2." in shown
    path = tmp_path / "bench.json"
    setting = Setting(bandwidth=2.5e10, optax=json, size=3)
    report.write_json(path, machine, setting, [timed("adam", 1.0, 2.0), MEMORY], "running")
    document = json.loads(path.read_text())
    assert document["status"] == "running" and document["machine"]["bandwidth"] == 2.5e10
    assert document["setting"] == {"optimizers": None, "size": 3, "leaves": None, "repeats": None}
    assert document["rows"][0]["ratios"]["optax"]["median"] == 0.5
    assert document["rows"][1]["footprints"]["optax"]["temporaries"] == 4.0
    assert [file.name for file in tmp_path.iterdir()] == ["bench.json"]
