"""Numbers as people say them, and columns side by side."""

import textwrap

WIDTH = 100  # columns of a terminal


def short(number: float) -> str:
    """1,234,567,890 as 1.23 G."""
    for factor, unit in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.3g} "


def gigabytes(size: float) -> str:
    """Bytes as people say them."""
    if size < 1e8:
        return f"{size / 1e6:.2g} MB" if size >= 1e5 else "0"
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:,.0f} GB"


def duration(hours: float) -> str:
    """Seconds, minutes, hours, days or years, two digits."""
    for least, factor, unit in ((24 * 730, 8766, "years"), (72, 24, "days"), (1.5, 1, "h"), (1 / 40, 1 / 60, "min")):
        if hours >= least:
            return f"{hours / factor:,.2g} {unit}" if hours / factor < 100 else f"{hours / factor:,.0f} {unit}"
    return f"{hours * 3600:.2g} s"


def money(price: float | None, hours: float) -> str:
    """USD; "-" where nobody rents it."""
    if price is None:
        return "-"
    cost = price * hours
    if cost < 0.01:
        return "<$0.01"
    return f"${cost:,.2f}" if cost < 100 else f"${cost:,.0f}"


def table_of(lines: list[tuple[str, ...]]) -> str:
    """Columns side by side."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def paragraph(label: str, text: str) -> str:
    """A label and what is said of it, in as many lines as it takes."""
    indent = " " * 10
    return textwrap.fill(text, WIDTH, initial_indent=label.ljust(10), subsequent_indent=indent)
