import html.parser
import io
import json
import math

from rich.console import Console

from gradtx.lab import report
from gradtx.lab.race import Best, Curve, Result

SETTING = report.Setting("digits", "some <digits>", 10, 64, 0)
CURVE = Curve([0, 10], [2.0, math.nan], [2.0, 0.5], [0.1, 0.96])
GOOD = Result(
    "chain(clip([1, 2]))",
    Best(0.1, "0.1", "sgd(learning_rate=0.1)", 0.5, 0.9712, 10, CURVE),
    8.0,
    1.5e-3,
    [(0.1, 0.5), (1.0, math.inf)],
)
DIVERGED = Result("a<b", None, 0.0, 1e-3, [(0.1, math.nan)])


def test_results_are_strict_json_with_null_for_what_is_not_finite(tmp_path):
    report.write_results(tmp_path, SETTING, [GOOD, DIVERGED], "complete")

    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert document["status"] == "complete"
    assert document["setting"]["batch_size"] == 64
    good, diverged = document["results"]
    assert good["best"]["test_accuracy"] == 0.9712
    assert good["best"]["curve"]["train_loss"] == [2.0, None]
    assert good["grid"] == [[0.1, 0.5], [1.0, None]]
    assert diverged["best"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_rows_say_what_is_not_there():
    _, rows = report.columns([GOOD, DIVERGED])
    assert rows[0] == ["chain(clip([1, 2]))", "0.1", "0.5", "97.1%", "10", "8.00", "1.5"]
    assert rows[1] == ["a<b", "diverged", "-", "-", "-", "0.00", "1"]


def test_the_terminal_table_fits_eighty_columns_and_takes_labels_literally():
    shown = io.StringIO()
    Console(file=shown, width=80).print(report.table(SETTING, [GOOD, DIVERGED]))
    text = shown.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for word in ("optimizer", "validation", "accuracy", "95%", "param", "ms", "1.5", "[1,"):
        assert word in text
    assert "2 learning rates" not in text.splitlines()[0]


def test_the_page_is_self_contained_and_escaped(tmp_path):
    report.write_page(tmp_path, SETTING, [GOOD, DIVERGED])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "a&lt;b" in page and "some &lt;digits&gt;" in page
    links = []

    class Links(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            links.extend(value for name, value in attrs if name in ("src", "href"))

    Links().feed(page)
    assert sorted(links) == ["curves.png", "landscape.png", "results.json"]
