import json

import pytest
from matplotlib.figure import Figure

from gradtx.lab import command
from gradtx.lab.command import Request, UsageError, run


def request(tmp_path, **changes):
    return Request(**{"task": "quadratic", "optimizers": "sgd,adam", "steps": 4,
                      "out": tmp_path / "out", **changes})  # fmt: skip


@pytest.fixture
def blank_landscape(monkeypatch):
    """The picture of the landscapes takes seconds; test_plots makes the real one."""
    monkeypatch.setattr(command.plots, "landscape_figure", lambda: Figure())


def test_everything_is_written(tmp_path, capsys, blank_landscape):
    assert run(request(tmp_path)) == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "results.json", "curves.png", "landscape.png", "index.html",
    }  # fmt: skip
    document = json.loads((out / "results.json").read_text())
    assert document["status"] == "complete"
    assert [result["label"] for result in document["results"]] == ["sgd", "adam"]
    shown = capsys.readouterr().out
    assert "optimizer" in shown and "8/8 steps" in shown


def test_results_grow_while_it_runs(tmp_path, monkeypatch, blank_landscape):
    seen = []
    original = command.run_entrant

    def watching(*args, **kwargs):
        seen.append(json.loads((tmp_path / "out" / "results.json").read_text()))
        return original(*args, **kwargs)

    monkeypatch.setattr(command, "run_entrant", watching)
    run(request(tmp_path))
    assert [(d["status"], len(d["results"])) for d in seen] == [("running", 0), ("running", 1)]


def test_an_interruption_leaves_the_finished_part(tmp_path, monkeypatch, capsys, blank_landscape):
    original = command.run_entrant

    def interrupted(entrant, *args, **kwargs):
        if entrant.label == "adam":
            raise KeyboardInterrupt
        return original(entrant, *args, **kwargs)

    monkeypatch.setattr(command, "run_entrant", interrupted)
    assert run(request(tmp_path)) == 130
    out = tmp_path / "out"
    document = json.loads((out / "results.json").read_text())
    assert document["status"] == "interrupted"
    assert [result["label"] for result in document["results"]] == ["sgd"]
    assert (out / "curves.png").exists() and (out / "landscape.png").exists()
    assert "sgd" in (out / "index.html").read_text()
    assert "Interrupted" in capsys.readouterr().out


def test_an_entrant_named_twice_runs_once(tmp_path, blank_landscape):
    run(request(tmp_path, optimizers="sgd, sgd"))
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(document["results"]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "digit"}, "unknown task 'digit'; did you mean digits"),
        ({"optimizers": "sdg"}, "unknown optimizer 'sdg'; did you mean sgd"),
        ({"optimizers": "adam(open)"}, "not allowed"),
        ({"batch_size": 2}, "has no data"),
        ({"task": "digits", "batch_size": 1281}, "larger than the 1280"),
        ({"optimizers": "masked(sgd(0.1), {'a': True})"}, "cannot train"),
    ],
)
def test_bad_requests_write_nothing(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        run(request(tmp_path, **changes))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="cannot write to"):
            run(request(tmp_path, out=out))
