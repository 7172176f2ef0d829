"""Iconify icon sets: an npm package such as `@iconify-json/noto`, unpacked below data/sources.

`npm pack @iconify-json/noto` there and unpack the archive. The format is Iconify's IconifyJSON:
icons.json has `icons: {name: {body, left?, top?, width?, height?, hidden?}}` and
`aliases: {name: {parent, hFlip?, vFlip?, rotate?}}`; info.json has author and licence.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import resvg_py
from pydantic import BaseModel, Field, ValidationError

from stages.collect.found import Found
from stages.collect.params import Iconify
from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.pairs import Failure

# Sets name them `-medium-dark-skin-tone`, `-medium-dark` at the end, or `-tone4`; traffic and car lights are none.
SKIN_TONE = re.compile(
    r"(?<!traffic)(?<!car)-(?:(?:medium-light|medium-dark|light|medium|dark)(?:-skin-tone(?=-|$)|$)|tone[1-5](?=-|$))"
)
# resvg opens files that an <image> names by absolute path.
OUTSIDE = re.compile(r"""href\s*=\s*["'](?!#|data:image/(?:png|jpe?g|gif|webp)[;,])""", re.IGNORECASE)


class Icon(BaseModel):
    """One drawing; the numbers are its view box, the set's or 0 0 16 16 where there are none."""

    body: str
    left: float | None = None
    top: float | None = None
    width: float | None = None
    height: float | None = None
    hidden: bool = False


class Alias(BaseModel):
    """Another name of an icon, which may turn it."""

    parent: str
    h_flip: bool = Field(False, alias="hFlip")
    v_flip: bool = Field(False, alias="vFlip")
    rotate: int = 0

    @property
    def turns(self) -> bool:
        return self.h_flip or self.v_flip or self.rotate % 4 > 0


class IconSet(BaseModel):
    """icons.json."""

    icons: dict[str, Icon]
    aliases: dict[str, Alias] = {}
    left: float = 0
    top: float = 0
    width: float = 16
    height: float = 16


def read_iconify(source: Iconify, sources: Path) -> Iterator[Found | Failure]:
    """Every picture of the set in order of names; a plain alias is one more caption of its parent.

    Hidden icons (withdrawn by their set), aliases without a parent, drawings that name files (`outside_folder`)
    and unwanted skin tones are failures. Raises StageError if the folder is no icon set.
    """
    root = source.root(sources)
    about = _read_json(root / "info.json")
    try:
        icon_set = IconSet.model_validate(_read_json(root / "icons.json"))
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise StageError(str(root / "icons.json"), f"is no icon set ({said})", "unpack the npm package again") from None
    icons, aliases = icon_set.icons, icon_set.aliases
    names = {name: [name] for name, icon in icons.items() if not icon.hidden}
    turned: list[str] = []
    lost = [Failure(source.name, name, "hidden") for name, icon in icons.items() if icon.hidden]
    for name in sorted(aliases):
        parent = aliases[name].parent
        if parent not in names:
            lost.append(Failure(source.name, name, "no_parent", parent))
        elif aliases[name].turns:
            turned.append(name)
        else:
            names[parent].append(name)
    tasks = [(name, captions, svg_of(icon_set, icons[name])) for name, captions in names.items()]
    tasks += [(name, [name], svg_of(icon_set, icons[aliases[name].parent], aliases[name])) for name in turned]
    if not source.skin_tones:
        lost += [Failure(source.name, name, "skin_tone") for _, names, _ in tasks for name in names if _has_tone(name)]
        tasks = [(name, [each for each in names if not _has_tone(each)], svg) for name, names, svg in tasks]
        tasks = [task for task in tasks if task[1]]
    tasks.sort()
    chunks = [tasks[start : start + 256] for start in range(0, len(tasks), 256)]
    for results in map_shards(partial(_draw, source, about), chunks, source.name):
        yield from results
    yield from sorted(lost, key=lambda failure: failure.path)


def _has_tone(name: str) -> bool:
    return SKIN_TONE.search(name) is not None


def svg_of(icon_set: IconSet, icon: Icon, alias: Alias | None = None) -> str:
    """The icon as an SVG file. An alias may turn it: mirrored first, then by quarters clockwise."""
    left, top, width, height = (
        getattr(icon_set if getattr(icon, name) is None else icon, name) for name in ("left", "top", "width", "height")
    )
    body, turn, x, y = icon.body, 0, left + width / 2, top + height / 2
    if alias:
        turn, across, down = 90 * (alias.rotate % 4), 1 - 2 * alias.h_flip, 1 - 2 * alias.v_flip
        move = f"translate({x} {y}) rotate({turn}) scale({across} {down}) translate({-x} {-y})"
        body = f'<g transform="{move}">{body}</g>'
    if turn % 180:
        left, top, width, height = x - height / 2, y - width / 2, height, width
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


def _draw(source: Iconify, about: dict[str, Any], tasks: list[tuple[str, list[str], str]]) -> list[Found | Failure]:
    return [_draw_one(source, about, *task) for task in tasks]


def _draw_one(source: Iconify, about: dict[str, Any], name: str, names: list[str], svg: str) -> Found | Failure:
    if OUTSIDE.search(svg):
        return Failure(source.name, name, "outside_folder", "its drawing names a file")
    try:
        data = resvg_py.svg_to_bytes(svg_string=svg, width=source.side, height=source.side, skip_system_fonts=True)
    except ValueError as error:
        return Failure(source.name, name, "unreadable", str(error).splitlines()[0])
    author, terms = about.get("author", {}), about.get("license", {})
    return Found(
        data=data,
        path=f"{name}.svg",
        captions=[each.replace("-", " ") for each in names],
        url=author.get("url"),
        license=terms.get("title"),
        attribution=f"{about.get('name', source.name)} by {author['name']}" if "name" in author else None,
        group=SKIN_TONE.sub("", name).replace("-", " "),
        extra={"icon": name},
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise StageError(str(path), "is missing", "unpack the whole npm package there") from None
    except ValueError as error:
        raise StageError(str(path), f"is no JSON ({error})", "unpack the npm package again") from None
    if not isinstance(values, dict):
        raise StageError(str(path), "is no JSON object", "unpack the npm package again")
    return values
