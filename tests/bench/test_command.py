import json
import sys

import pytest

from gradtx.bench import command
from gradtx.bench.command import Request, UsageError, run


def request(tmp_path, **changes):
    usual = {"suite": "large", "optimizers": "sgd", "repeats": 1, "size": 2, "leaves": 1}
    return Request(**{**usual, "json": tmp_path / "bench.json", **changes})


def read(tmp_path):
    return json.loads((tmp_path / "bench.json").read_text())


def test_everything_is_printed_and_written(tmp_path, capsys):
    out = tmp_path / "made" / "here"
    assert run(request(tmp_path, suite="large, memory", device="cpu", out=out)) == 0
    document = read(tmp_path)
    assert document["status"] == "complete"
    cases = [(row["suite"], row["case"]) for row in document["rows"]]
    assert cases[:3] == [("large", "sgd"), ("memory", "sgd"), ("memory", "clip + sgd")]
    assert set(document["machine"]["versions"]) == {"gradtx", "jax", "optax", "torch"}
    shown = capsys.readouterr().out
    for words in ("copy bandwidth", "large: one step, 1 leaves", "torch fused", "quartiles",
                  "memory: one compiled step", "temporaries", "gradtx / optax"):  # fmt: skip
        assert words in shown
    for name in ("large.png", "memory.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert f"Open {out / name}" in shown


def test_rows_are_written_as_they_are_done(tmp_path, monkeypatch):
    seen = []
    original = command.report.lines

    def watching(row):
        if (tmp_path / "bench.json").read_text():  # empty before the first row
            seen.append((read(tmp_path)["status"], len(read(tmp_path)["rows"])))
        return original(row)

    monkeypatch.setattr(command.report, "lines", watching)
    run(request(tmp_path, optimizers="sgd,adam,lion"))
    assert seen == [("running", 1), ("running", 2)]


def test_an_interruption_leaves_the_finished_part(tmp_path, monkeypatch, capsys):
    def interrupted(setting):
        yield from command.suites.large(setting)
        raise KeyboardInterrupt

    monkeypatch.setitem(command.SUITES, "large", interrupted)
    assert run(request(tmp_path, out=tmp_path)) == 130
    assert read(tmp_path)["status"] == "interrupted" and len(read(tmp_path)["rows"]) == 1
    assert "Interrupted" in capsys.readouterr().out and (tmp_path / "large.png").exists()


@pytest.mark.parametrize("missing", [["torch"], ["optax"], ["optax", "torch"]])
def test_what_is_not_installed_is_left_out_with_a_line(tmp_path, monkeypatch, capsys, missing):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert run(request(tmp_path, suite="large,wrappers,memory,compile")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "is missing" in line]
    assert lines == [
        f'{name} is missing and left out; install it with: pip install "gradtx[bench]"'
        for name in missing
    ]
    labels = {label for row in read(tmp_path)["rows"] for label in row.get("seconds", ())}
    for name in ("optax", "torch"):
        assert any(label.startswith(name) for label in labels) == (name not in missing)
    assert {"gradtx", "inner step"} <= labels


BAD = [
    ({"suite": "larg"}, "unknown suite 'larg'; choose from large, many-leaves"),
    ({"suite": ""}, "unknown suite ''"),
    ({"optimizers": "sgd,adaam"}, "unknown optimizer 'adaam'; choose from sgd"),
    ({"optimizers": "lbfgs"}, "unknown optimizer 'lbfgs'"),
    ({"device": "abacus"}, "no device 'abacus'"),
    ({"out": command.pathlib.Path("/dev/null/x")}, "cannot write to '/dev/null/x"),
    ({"json": command.pathlib.Path("/dev/null/x/y")}, "cannot write to '/dev/null/x/y'"),
    ({"json": command.pathlib.Path("/dev")}, "cannot write to '/dev'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_requests_are_one_line_before_anything_runs(tmp_path, capsys, changes, message):
    with pytest.raises(UsageError, match=r"^[^\n]*$") as caught:
        run(request(tmp_path, **changes))
    assert message in str(caught.value)
    assert capsys.readouterr().out == ""


def test_torch_runs_where_jax_does(capsys):
    class Device:
        platform = "cpu"

    class Torch:
        class cuda:
            @staticmethod
            def is_available():
                return cuda

    assert command._torch_device(None, Device) is None
    assert command._torch_device(Torch, Device) == "cpu"
    Device.platform, cuda = "gpu", True
    assert command._torch_device(Torch, Device) == "cuda"
    assert capsys.readouterr().out == ""
    cuda = False
    assert command._torch_device(Torch, Device) is None
    assert "this torch cannot use the gpu" in capsys.readouterr().out
