import pytest

from gradtx.bench import measure
from gradtx.bench.measure import Spread


def test_contenders_take_turns():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    results = measure.interleave(contenders, 2)
    assert calls == list("abcabc")
    assert results == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}


def test_what_is_to_be_warm_is_called_once_more_before():
    calls = iter(range(100))
    results = measure.interleave(dict.fromkeys("ab", lambda: next(calls)), 2, warm=True)
    assert results == {"a": [1, 5], "b": [3, 7]}


def test_one_value_has_a_spread():
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)


def test_ratios_are_taken_round_by_round():
    # The ratio of the medians would be 1.
    assert measure.ratios([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == Spread(1.0, 2 / 3, 2.0)
    assert measure.ratios([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == Spread(2.0, 2.0, 2.0)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.001, 50), (0.1, 15), (5.0, 7)])
def test_rounds_fill_the_time_that_there_is(seconds, rounds):
    assert measure.enough_rounds({"a": lambda: seconds}) == rounds


def test_calls_that_compile_do_not_count():
    calls = iter([9.0, 9.0, 0.1])
    assert measure.enough_rounds({"a": lambda: next(calls)}) == 15


def test_the_bandwidth_counts_what_is_read_and_what_is_written(monkeypatch):
    monkeypatch.setattr(measure, "BANDWIDTH_ELEMENTS", 1000)
    ticks = iter(range(100))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: float(next(ticks)))
    assert measure.copy_bandwidth() == 8000.0
