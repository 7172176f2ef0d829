"""Many pictures on one: contact sheets, and tables of pictures with their axes named."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GAP, LINE = 6, 18  # px
FONT_SIZE = 12
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def contact_sheet(
    pictures: Sequence[Image.Image], labels: Sequence[str], columns: int, least: int = 128
) -> Image.Image:
    """Pictures in rows of `columns`, each under its label, centred in cells as large as the largest.

    Where the largest is small, all are enlarged by one whole factor, to `least` px at least.
    """
    factor = max(1, math.ceil(least / max(picture.width for picture in pictures)))
    width, height = (factor * max(picture.size[side] for picture in pictures) for side in (0, 1))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + LINE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = GAP + number % columns * (width + GAP), GAP + number // columns * (height + LINE + GAP)
        pen.text((x, y), shortened(pen, label, font, width), fill="black", font=font)
        large = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        sheet.paste(large, (x + (width - large.width) // 2, y + LINE + (height - large.height) // 2))
    return sheet


def table_sheet(
    rows: Sequence[Sequence[Image.Image]],
    across: Sequence[str],
    down: Sequence[str],
    title: str,
    least: int = 128,
) -> Image.Image:
    """Rows of pictures of one size under a title, the columns' labels above, the rows' at the left."""
    factor = max(1, math.ceil(least / rows[0][0].width))
    width, height = (factor * edge for edge in rows[0][0].size)
    font = ImageFont.load_default(FONT_SIZE)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = 2 * GAP + math.ceil(max(measure.textlength(label, font) for label in down))
    top = 2 * (LINE + GAP)
    size = left + len(across) * (width + GAP), top + len(rows) * (height + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), shortened(pen, title, font, size[0] - 2 * GAP), fill="black", font=font)
    for column, label in enumerate(across):
        x = left + column * (width + GAP) + width / 2
        pen.text((x, top - GAP / 2), shortened(pen, label, font, width), fill="black", font=font, anchor="ms")
    for number, (label, pictures) in enumerate(zip(down, rows, strict=True)):
        y = top + number * (height + GAP)
        pen.text((left - GAP, y + height / 2), label, fill="black", font=font, anchor="rm")
        for column, picture in enumerate(pictures):
            large = picture.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(large, (left + column * (width + GAP), y))
    return sheet


def shortened(pen: ImageDraw.ImageDraw, label: str, font: Font, width: float) -> str:
    """The label, cut with an ellipsis where it is longer than `width` px; its first line only."""
    lines = label.splitlines() or [""]
    text = lines[0] if len(lines) == 1 else f"{lines[0]}…"
    while pen.textlength(text, font) > width and len(text) > 1:
        text = text[:-2] + "…"
    return text
