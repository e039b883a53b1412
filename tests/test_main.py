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


def test_list_prints_every_optimizer(capsys):
    assert main(["list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["optimizer", "state", "scope", "source"]
    (line,) = [line for line in lines if line.startswith("adamw ")]
    assert line.split()[1:3] == ["8.00", "elementwise"] and line.endswith("arXiv:1711.05101")


def test_list_as_json(capsys):
    assert main(["list", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert listed["polyak_sgd"]["scope"] == "global"
    assert listed["adam"]["arxiv"] == "1412.6980"
    assert listed["adan"]["state_bytes_per_parameter"] == pytest.approx(16, abs=1e-4)


def test_describe_prints_what_a_call_holds(capsys):
    assert main(["describe", "chain(clip(1.0), lion(1e-3))"]) == 0
    first, *_, last, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("16,781,312 parameters in 2 leaves; 67,125,252 bytes of state")
    assert last.split()[:4] == ["mu", "like", "parameter", "float32"]


def test_describe_with_paths_shapes_and_dtype(capsys):
    words = ["--shapes", "a/w=30x20, a/b=20 ,7", "--dtype", "bfloat16"]
    assert main(["describe", "groups([('a', trace(0.9))], default=sgd(0.1))", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("627 parameters in 3 leaves; 2,480 bytes")
    assert [line.split("   ")[0] for line in lines[-3:]] == ["2", "a/b", "a/w"]
    assert lines[-1].split()[1:] == ["(30,", "20)", "bfloat16", "a"]


BAD_DESCRIBE = [
    ([], "call"),
    (["adaam(1e-3)"], "did you mean adam"),
    (["__import__('os')"], "no public name '__import__'"),
    (["constant_schedule(0.1)"], "is not a gradient transformation"),
    (["groups([('x', sgd(0.1))], default=sgd(0.1))"], "fits no leaf"),
    (["adam(1e-3)", "--shapes", ""], "expected shapes"),
    (["adam(1e-3)", "--shapes", "3x"], "expected shapes"),
    (["adam(1e-3)", "--shapes", "w=3,w=4"], "expected shapes"),
    (["adam(1e-3)", "--shapes", "-3"], "--shapes"),
    (["adam(1e-3)", "--dtype", "floaty"], "no dtype 'floaty'"),
    (["adam(1e-3)", "--size", "3"], "--size"),
]


@pytest.mark.parametrize(("words", "message"), BAD_DESCRIBE, ids=lambda x: " ".join(x)[:40])
def test_bad_input_of_describe_is_one_line_and_exit_code_2_too(words, message, capsys):
    assert main(["describe", *words]) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1 and shown.out == ""
    assert shown.err.startswith(("gradtx describe: error: ", "gradtx: error: "))
    assert message in shown.err


def test_list_and_describe_need_no_extras():
    code = (
        "import sys\n"
        "for name in ('flax', 'matplotlib', 'optax', 'PIL', 'rich', 'sklearn', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from gradtx.__main__ import main\n"
        "sys.exit(main(['list']) or main(['describe', 'adam(1e-3)']))"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
