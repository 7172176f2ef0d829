"""Line charts as SVG text, in the page's own colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 28, 14, 50


@dataclass(frozen=True)
class Line:
    """A named run of (x, y), drawn with the page's colour number `colour`; dots: its points are marked."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dots: bool = False


@dataclass(frozen=True)
class Tick:
    """A label at `place` px from the left or the top."""

    place: float
    label: str


@dataclass(frozen=True)
class Drawn:
    """A line as the template draws it: an SVG path in px, and the dots on it."""

    name: str
    colour: int
    path: str
    dots: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """What the template draws: lines in px, ticks, names."""

    x_name: str
    y_name: str
    lines: Sequence[Drawn]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(x_name: str, y_name: str, lines: Sequence[Line], logarithmic: bool = False) -> Chart | None:
    """Lay lines out on one pair of axes, y from 0; None if there are no points.

    logarithmic: both axes, from 1; points below are left out.
    """
    lines = [
        Line(line.name, [p for p in line.points if not logarithmic or min(p) >= 1], line.colour, line.dots)
        for line in lines
    ]
    points = [point for line in lines for point in line.points]
    if not points:
        return None
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    if logarithmic:
        x_low, x_steps, y_steps = 1.0, _powers(x_high), _powers(max(y for _, y in points))
        x_high, scale = x_steps[-1], math.log10
    else:
        x_steps, y_steps, scale = _round_steps(x_high), _round_steps(max(y for _, y in points)), float
    x_first, y_first = scale(x_low), scale(y_steps[0])
    x_span, y_span = (scale(x_high) - x_first) or 1, (scale(y_steps[-1]) - y_first) or 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (scale(x) - x_first) / x_span * (WIDTH - LEFT - RIGHT)
        return round(across, 1), round(HEIGHT - BOTTOM - (scale(y) - y_first) / y_span * (HEIGHT - TOP - BOTTOM), 1)

    def drawn(line: Line) -> Drawn:
        placed = [place(x, y) for x, y in line.points]
        return Drawn(
            line.name, line.colour, "M" + " L".join(f"{x},{y}" for x, y in placed), placed if line.dots else []
        )

    return Chart(
        x_name,
        y_name,
        [drawn(line) for line in lines if line.points],
        [Tick(place(x, y_steps[0])[0], f"{x:,g}") for x in x_steps if x_low <= x <= x_high],
        [Tick(place(x_low, y)[1], f"{y:,g}") for y in y_steps],
    )


def _round_steps(high: float) -> list[float]:
    """About five round numbers from 0 to at least `high`."""
    if high < 1e-9:
        return [0.0, 1.0]
    rough = high / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(index * step, 10) for index in range(math.ceil(high / step - 1e-9) + 1)]


def _powers(high: float) -> list[float]:
    """Powers of ten from 1 to at least `high`."""
    return [10.0**power for power in range(max(1, math.ceil(math.log10(high) - 1e-9)) + 1)]
