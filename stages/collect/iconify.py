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

from stages.collect.found import Found
from stages.collect.params import Iconify
from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.pairs import Failure

# Sets name them `-medium-dark-skin-tone`, `-medium-dark` at the end, or `-tone4`; traffic and car lights are none.
SKIN_TONE = re.compile(
    r"(?<!traffic)(?<!car)-(?:(?:medium-light|medium-dark|light|medium|dark)(?:-skin-tone(?=-|$)|$)|tone[1-5](?=-|$))"
)
TURNS = ("hFlip", "vFlip", "rotate")


def read_iconify(source: Iconify, sources: Path) -> Iterator[Found | Failure]:
    """Every picture of the set in order of names; a plain alias is one more caption of its parent.

    Hidden icons (withdrawn by their set), aliases without a parent and unwanted skin tones are failures.
    Raises StageError if the folder is no icon set.
    """
    root = source.root(sources)
    icon_set, about = _read_json(root / "icons.json"), _read_json(root / "info.json")
    icons, aliases = icon_set.get("icons", {}), icon_set.get("aliases", {})
    if not icons:
        raise StageError(str(root / "icons.json"), "has no icons", "unpack the npm package again")
    names: dict[str, list[str]] = {name: [name] for name, icon in icons.items() if not icon.get("hidden")}
    turned: list[str] = []
    lost = [Failure(source.name, name, "hidden") for name, icon in icons.items() if icon.get("hidden")]
    for name in sorted(aliases):
        parent = aliases[name]["parent"]
        if parent not in names:
            lost.append(Failure(source.name, name, "no_parent", parent))
        elif any(aliases[name].get(turn) for turn in TURNS):
            turned.append(name)
        else:
            names[parent].append(name)
    tasks: list[tuple[str, list[str], str]] = [
        (name, captions, svg_of(icon_set, icons[name], {})) for name, captions in names.items()
    ]
    tasks += [(name, [name], svg_of(icon_set, icons[aliases[name]["parent"]], aliases[name])) for name in turned]
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


def svg_of(icon_set: dict[str, Any], icon: dict[str, Any], alias: dict[str, Any]) -> str:
    """The icon as an SVG file. An alias may turn it: mirrored first, then by quarters clockwise."""
    left, top, width, height = (
        float(icon.get(name, icon_set.get(name, default)))
        for name, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    body, x, y = icon["body"], left + width / 2, top + height / 2
    turn = 90 * (int(alias.get("rotate", 0)) % 4)
    across, down = (-1 if alias.get(flip) else 1 for flip in ("hFlip", "vFlip"))
    if turn or (across, down) != (1, 1):
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
