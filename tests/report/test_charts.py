"""Charts lay points where they belong."""

import re

from hypothesis import given
from hypothesis import strategies as st

from stages.report.charts import HEIGHT, WIDTH, Line, line_chart

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
