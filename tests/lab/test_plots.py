import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from gradtx.lab import plots
from gradtx.lab.lineup import LECTURE
from gradtx.lab.problems import LANDSCAPES, trace_path
from gradtx.lab.race import Best, Curve, Result


def result(label, losses=(1.0, 0.1), diverged=False):
    curve = Curve([0, 10], list(losses), list(losses), None)
    best = Best(0.1, "0.1", "sgd(0.1)", losses[-1], None, None, curve)
    return Result(label, None if diverged else best, 4.0, 1e-3, [(0.1, losses[-1])])


@pytest.fixture(scope="module")
def paths():
    return {
        (situation, label): trace_path(
            LECTURE[label].replace(learning_rate=rate), LANDSCAPES[situation], steps
        )
        for situation, (steps, rates) in plots.SITUATIONS.items()
        for label, rate in rates.items()
    }


def test_sgd_zigzags_under_poor_conditioning(paths):
    across = np.asarray(paths["quadratic", "sgd"].points)[:12, 1]
    assert np.all(across[:-1] * across[1:] < 0)


def test_adagrad_is_far_from_the_minimum_when_the_others_have_arrived(paths):
    distance = {
        label: np.linalg.norm(paths["quadratic", label].points[-1])
        for label in ("adagrad", "rmsprop", "adam")
    }
    assert distance["adagrad"] > 5 > 0.5 > max(distance["rmsprop"], distance["adam"])
    adagrad = np.asarray(paths["quadratic", "adagrad"].points)
    lengths = np.linalg.norm(np.diff(adagrad, axis=0), axis=1)
    assert np.all(np.diff(lengths) < 0)


def test_momentum_rolls_through_the_local_minimum_in_which_sgd_stays(paths):
    for label, x in (("sgd", -1.0), ("momentum", 2.0), ("nesterov", 2.0)):
        assert paths["local-minimum", label].points[-1, 0] == pytest.approx(x, abs=0.05)


def test_momentum_leaves_the_saddle_long_before_sgd(paths):
    def steps_to_leave(label):
        return int(np.argmax(np.abs(np.asarray(paths["saddle", label].points)[:, 1]) > 0.5))

    assert 0 < 2 * steps_to_leave("momentum") < steps_to_leave("sgd")
    assert 0 < 2 * steps_to_leave("nesterov") < steps_to_leave("sgd")


def test_the_landscape_figure_shows_six_paths_in_three_situations(tmp_path):
    figure = plots.landscape_figure()
    assert len(figure.axes) == 9
    for column in range(3):
        shown = [
            text.get_text()
            for row in range(2)
            for text in figure.axes[3 * row + column].get_legend().get_texts()
        ]
        assert shown == list(LECTURE)
    plots.save(figure, tmp_path / "landscape.png")
    assert (tmp_path / "landscape.png").stat().st_size < 300_000


def test_curves_have_a_log_axis_a_legend_and_the_colours_of_their_names(tmp_path):
    figure = plots.curves_figure([result(label) for label in (*LECTURE, "adamw")], "a title")
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log"]
    assert len(figure.legends[0].get_texts()) == 7
    plots.save(figure, tmp_path / "curves.png")
    image = Image.open(tmp_path / "curves.png").convert("RGB")
    seen = {color for _, color in image.getcolors(1 << 24)}
    for label in (*LECTURE, "adamw"):
        wanted = 255 * np.asarray(to_rgb(plots.style(label)["color"]))
        assert min(np.abs(np.asarray(color) - wanted).max() for color in seen) < 20


def test_strange_curves_are_drawn_too(tmp_path):
    results = [
        result("sgd", diverged=True),
        result("chain(clip('$x$'), " + "y" * 100),
        result("zero", (1.0, 0.0)),
        result("broken", (math.nan, math.inf)),
    ]
    figure = plots.curves_figure(results, "$")
    assert len(figure.legends[0].get_texts()) == 3
    plots.save(figure, tmp_path / "curves.png")


def test_no_results_are_an_empty_picture(tmp_path):
    plots.save(plots.curves_figure([], "nothing"), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").exists()


def test_usual_names_keep_their_style_and_others_differ_by_position():
    assert plots.style("adam", 0) == plots.style("adam", 5)
    styles = [plots.style(label) for label in (*LECTURE, "adamw")]
    assert len({style["color"] for style in styles}) == 7
    assert plots.style("x", 0) != plots.style("x", 1)


def test_draw_path_marks_every_step():
    axes = Figure().subplots()
    plots.draw_path(axes, trace_path(LECTURE["sgd"], LANDSCAPES["beale"], 7), "sgd")
    assert axes.lines[0].get_xydata().shape == (8, 2)
