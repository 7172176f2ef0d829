"""Charts lay points where they belong; examples are those that tell most."""

import re

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from stages.report.charts import HEIGHT, WIDTH, Line, line_chart
from stages.report.data import RULES, captions_of, ranked, telling
from tests.conftest import ROOT

POINTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4)), min_size=1, max_size=20)


@given(POINTS)
def test_every_point_is_inside_and_higher_is_higher(points: list[tuple[float, float]]) -> None:
    chart = line_chart("x", "y", [Line("a", points, 0)])
    assert chart is not None
    placed = [tuple(map(float, pair)) for pair in re.findall(r"([-\d.]+),([-\d.]+)", chart.lines[0].path)]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in placed)
    for (_, value), (_, height) in zip(points, placed, strict=True):
        assert all(
            height <= other + 0.11 for (_, lower), (_, other) in zip(points, placed, strict=True) if lower <= value
        )
    assert 2 <= len(chart.y_ticks) <= 8


def test_no_points_are_no_chart() -> None:
    assert line_chart("x", "y", [Line("a", [], 0)]) is None


def test_rejected_examples_are_the_nearly_good_and_the_worst() -> None:
    rows = [{"key": str(number), "value": f"{number / 10}", "bound": "5.0"} for number in range(50)]
    assert [row["value"] for row in telling(rows, 5)] == ["4.9", "4.8", "4.7", "0.1", "0.0"]
    drawn = telling([{**row, "value": "3 bits"} for row in rows], 5)
    assert len({row["key"] for row in drawn}) == 5
    assert telling([*reversed(rows)], 5) == telling(rows, 5)


LARGE = st.lists(st.tuples(st.floats(1, 1e6), st.floats(1, 1e4)), min_size=1, max_size=20)


@given(LARGE)
def test_logarithmic_axes_keep_the_order_too(points: list[tuple[float, float]]) -> None:
    chart = line_chart("x", "y", [Line("a", points, 0, dots=True)], logarithmic=True)
    assert chart is not None
    assert all(chart.left <= x <= chart.right and chart.top <= y <= chart.bottom for x, y in chart.lines[0].dots)
    for (wide, value), (x, y) in zip(points, chart.lines[0].dots, strict=True):
        for (other_wide, other), (other_x, other_y) in zip(points, chart.lines[0].dots, strict=True):
            assert x <= other_x or wide > other_wide
            assert y >= other_y or value > other
    assert line_chart("x", "y", [Line("a", [(0.0, 5.0)], 0)], logarithmic=True) is None


def test_captions_and_words_are_counted() -> None:
    found = captions_of(pd.DataFrame({"captions": [["a red b", "b"], ["a red b"], ["C", "a red b"], ["b"]]}))
    assert (found["distinct"], found["single"], found["first"]) == (3, 1, [("a red b", 3), ("b", 2)])
    assert (found["words"], found["words_once"]) == (4, 1)
    assert found["words_first"][0] == ("b", 5)
    assert (found["median_words"], found["most_words"]) == (2, 3)
    assert captions_of(pd.DataFrame({"captions": [[], []]}))["tail"] is None


@given(st.lists(st.integers(1, 1000), max_size=500))
def test_the_tail_keeps_its_ends(counts: list[int]) -> None:
    line = ranked(pd.Series(counts, dtype=int))
    ordered = sorted(counts, reverse=True)
    assert len(line) <= 200
    assert all(ordered[int(rank) - 1] == count for rank, count in line)
    if counts:
        assert (line[0], line[-1]) == ((1, max(counts)), (len(counts), min(counts)))


def test_every_rule_of_clean_has_words() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "stages" / "clean").glob("*.py")))
    named = set(
        re.findall(r'Reason\(\s*"(\w+)"|\n        \("(\w+)", |, "(decode)"|rule = "(\w+)"|else "(\w+)"$', code, re.M)
    )
    rules = {name for names in named for name in names if name} | {"no_caption", "bad_caption", "filter"}
    assert rules == set(RULES)
