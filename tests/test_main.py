import json
import subprocess
import sys

import jax
import pytest
from matplotlib.figure import Figure

from gradtx.__main__ import main


def test_race_runs_and_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gradtx.lab.plots.landscape_figure", lambda: Figure())
    out = tmp_path / "made" / "here"
    call = "chain(clip_by_global_norm(1.0), adam(3e-3))"
    words = ["race", "--steps", "10", "--batch-size", "32", "--seed", "1", "--out", str(out)]
    assert main([*words, "--optimizers", f"sgd, {call}"]) == 0
    document = json.loads((out / "results.json").read_text())
    assert document["setting"]["task"] == "digits"
    assert [result["label"] for result in document["results"]] == ["sgd", call]
    assert document["results"][1]["best"]["transformation"].startswith("chain(chain(clip_by")
    for result in document["results"]:
        assert result["best"]["curve"]["steps"] == [0, 10]
        assert result["best"]["validation_loss"] < 2.3
        assert 0 <= result["best"]["test_accuracy"] <= 1
    assert "steps to" in capsys.readouterr().out


BAD = [
    (["--task", "digit"], "did you mean digits?"),
    (["--optimizers", "adaam"], "did you mean adam"),
    (["--optimizers", ""], "names or calls"),
    (["--optimizers", "sgd,,adam"], "cannot read"),
    (["--optimizers", "__import__('os')"], "no public name '__import__'"),
    (["--optimizers", "adam.__class__"], "not allowed"),
    (["--optimizers", "adam(lr=open)"], "not allowed"),
    (["--optimizers", "adam(b1=2.0)"], "b1 must be"),
    (["--steps", "0"], "--steps"),
    (["--steps", "-5"], "--steps"),
    (["--steps", "many"], "--steps"),
    (["--batch-size", "0"], "--batch-size"),
    (["--batch-size", "5000"], "1280 training examples"),
    (["--seed", "-1"], "--seed"),
    (["--out", "/dev/null/x"], "cannot write to '/dev/null/x'"),
    (["--colour", "red"], "--colour"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=lambda x: " ".join(x)[:40])
def test_bad_input_is_one_line_and_exit_code_2(words, message, capsys):
    assert main(["race", *words]) == 2
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == 1 and shown.out == ""
    assert lines[0].startswith(("gradtx race: error: ", "gradtx: error: ")) and message in lines[0]


@pytest.mark.parametrize("words", [[], ["rase"]])
def test_a_missing_or_unknown_command_is_one_line_too(words, capsys):
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("gradtx: error: ")


def test_missing_extras_are_named_with_the_command_that_installs_them(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("gradtx.lab.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("gradtx.lab.command", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["race"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("gradtx race: error: rich")
    assert lines[0].endswith('pip install "gradtx[lab]"')


def test_an_interruption_outside_of_the_race_is_quiet(monkeypatch, capsys):
    def interrupted(request):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradtx.lab.command.run", interrupted)
    assert main(["race"]) == 130
    assert capsys.readouterr().err == ""


def test_help_names_the_tasks():
    shown = subprocess.run(
        [sys.executable, "-m", "gradtx", "race", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for word in ("digits", "local-minimum", "--optimizers", "--batch-size"):
        assert word in shown.stdout


def test_bench_runs_and_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gradtx.bench.measure.BANDWIDTH_ELEMENTS", 1000)
    file, out = tmp_path / "bench.json", tmp_path / "charts"
    words = ["bench", "--suite", "large", "--optimizers", "adam", "--size", "3", "--leaves", "2"]
    words += ["--repeats", "2", "--device", "cpu", "--json", str(file), "--out", str(out)]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert main(words) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["suite"], row["case"], row["rounds"]) == ("large", "adam", 2)
    assert (out / "large.png").exists() and "GB/s" in capsys.readouterr().out


BAD_BENCH = [
    (["--suite", "huge"], "choose from large, many-leaves, wrappers, memory, compile"),
    (["--optimizers", "adaam"], "unknown optimizer 'adaam'"),
    (["--repeats", "0"], "--repeats"),
    (["--size", "-1"], "--size"),
    (["--leaves", "many"], "--leaves"),
    (["--device", "abacus"], "abacus"),
    (["--out", "/dev/null/x"], "cannot write to '/dev/null/x'"),
]


@pytest.mark.parametrize(("words", "message"), BAD_BENCH, ids=lambda x: " ".join(x)[:40])
def test_bad_input_of_bench_is_one_line_and_exit_code_2_too(words, message, capsys):
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1 and shown.out == ""
    assert shown.err.startswith("gradtx bench: error: ") and message in shown.err


def test_what_bench_cannot_do_without_is_named(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("gradtx.bench.")]:
        monkeypatch.delattr(module, raising=False)
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["bench"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gradtx bench: error: matplotlib")
    assert line.endswith('pip install "gradtx[bench]"')
