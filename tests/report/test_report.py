"""Charts lay points where they belong; examples are those that tell most."""

import re

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from stages.report.charts import HEIGHT, WIDTH, Line, line_chart
from stages.report.run import RULES, repeated_captions, telling
from tests.conftest import ROOT

POINTS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4)), min_size=1, max_size=20)


@given(POINTS)
def test_every_point_is_inside_and_higher_is_higher(points: list[tuple[float, float]]) -> None:
    chart = line_chart("x", "y", [Line("a", points, 0)])
    assert chart is not None
    placed = [tuple(map(float, pair)) for pair in re.findall(r"([-\d.]+),([-\d.]+)", chart.lines[0][2])]
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


def test_captions_that_several_pictures_share() -> None:
    kept = pd.DataFrame({"captions": [["a", "b"], ["a"], ["c", "a"], ["b"]]})
    assert repeated_captions(kept) == {"distinct": 3, "single": 1, "first": [("a", 3), ("b", 2)]}


def test_every_rule_of_clean_has_words() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "stages" / "clean").glob("*.py")))
    named = set(
        re.findall(r'Reason\(\s*"(\w+)"|\n        \("(\w+)", |, "(decode)"|rule = "(\w+)"|else "(\w+)"$', code, re.M)
    )
    rules = {name for names in named for name in names if name} | {"no_caption", "bad_caption", "filter"}
    assert rules == set(RULES)
