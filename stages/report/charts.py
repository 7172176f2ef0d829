"""Line charts as SVG text, in the page's own colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 50


@dataclass(frozen=True)
class Line:
    """A named run of (x, y), drawn with the page's colour number `colour`."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int


@dataclass(frozen=True)
class Tick:
    """A label at `place` px from the left or the top."""

    place: float
    label: str


@dataclass(frozen=True)
class Chart:
    """What the template draws: paths in px, ticks, names."""

    x_name: str
    y_name: str
    lines: Sequence[tuple[str, int, str]]  # name, colour, path
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def line_chart(x_name: str, y_name: str, lines: Sequence[Line]) -> Chart | None:
    """Lay lines out on one pair of axes, y from 0; None if there are no points."""
    points = [point for line in lines for point in line.points]
    if not points:
        return None
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_steps = _round_steps(max(y for _, y in points))
    x_steps = _round_steps(x_high)
    x_span, y_span = (x_high - x_low) or 1, y_steps[-1] or 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / x_span * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y / y_span * (HEIGHT - TOP - BOTTOM)

    def path(line: Line) -> str:
        return "M" + " L".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line.points)

    return Chart(
        x_name,
        y_name,
        [(line.name, line.colour, path(line)) for line in lines if line.points],
        [Tick(place(x, 0)[0], f"{x:g}") for x in x_steps if x_low <= x <= x_high],
        [Tick(place(x_low, y)[1], f"{y:g}") for y in y_steps],
    )


def _round_steps(high: float) -> list[float]:
    """About five round numbers from 0 to at least `high`."""
    if high < 1e-9:
        return [0.0, 1.0]
    rough = high / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [round(index * step, 10) for index in range(math.ceil(high / step - 1e-9) + 1)]
