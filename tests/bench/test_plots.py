from gradtx.bench import plots
from gradtx.bench.measure import Spread
from tests.bench.test_report import MEMORY, timed


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_bars_are_as_long_as_the_figures():
    rows = [timed("adam", 0.002, 0.004), timed("sgd", 0.001, 0.003)]
    figure = plots.figure("large", rows)
    (axes,) = figure.axes
    assert sorted(bar.get_width() for bar in axes.patches) == [1.0, 2.0, 3.0, 4.0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["adam", "sgd"]
    assert labels(figure) == ["gradtx", "optax", "floor"]
    floors = axes.collections[0].get_segments()
    assert [line[0][0] for line in floors] == [1.0, 1.0]
    assert axes.get_xlim()[0] == 0 and axes.get_ylim()[0] > axes.get_ylim()[1]


def test_all_others_are_marks_and_may_be_missing():
    row = timed("adam", 0.002, 0.004, floor=None)
    row.seconds["torch fused"] = Spread(0.003, 0.003, 0.003)
    figure = plots.figure("large", [timed("lion", 0.1, 0.1, floor=None), row])
    ((x, y),) = figure.axes[0].collections[0].get_offsets()
    assert (x, y) == (3.0, 1.0) and labels(figure) == ["gradtx", "optax", "torch fused"]


def test_the_compilers_figures_have_two_panels():
    figure = plots.figure("memory", [MEMORY])
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "bytes accessed per parameter", "bytes of temporaries per parameter",
    ]  # fmt: skip
    assert [bar.get_width() for bar in figure.axes[0].patches] == [24.0, 36.0]
    assert [bar.get_width() for bar in figure.axes[1].patches] == [0.0, 4.0]
