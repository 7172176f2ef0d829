"""Icon sets: what is drawn, under which names, and what is left out."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.collect.params import Iconify
from stages.core.errors import StageError
from stages.core.pairs import Pair
from tests.collect.reading import read as read_pairs

RED_LEFT = '<path fill="#f00" d="M0 0h8v16H0z"/>'
ICONS: dict[str, Any] = {
    "prefix": "test",
    "width": 16,
    "height": 16,
    "icons": {
        "half": {"body": RED_LEFT},
        "old-half": {"body": RED_LEFT, "hidden": True},
        "waving-hand-medium-dark-skin-tone": {"body": '<circle cx="8" cy="8" r="4" fill="#630"/>'},
        "waving-hand": {"body": '<circle cx="8" cy="8" r="4" fill="#fc0"/>'},
        "broken": {"body": "<path"},
        "spy": {"body": '<image XLINK:HREF = "/etc/picture.png" width="8" height="8"/>'},
        "wide": {"body": '<path fill="#00f" d="M4 0h24v8H4z"/>', "left": 4, "width": 24, "height": 8},
    },
    "aliases": {
        "left-half": {"parent": "half"},
        "right-half": {"parent": "half", "hFlip": True},
        "top-half": {"parent": "half", "rotate": 1},
        "bottom-half": {"parent": "half", "vFlip": True, "rotate": 3},
        "stray": {"parent": "nothing"},
    },
}
ABOUT = {"name": "Test Set", "author": {"name": "Ann", "url": "https://example.org"}, "license": {"title": "MIT"}}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "icons.json").write_text(json.dumps(ICONS))
    (tmp_path / "test" / "info.json").write_text(json.dumps(ABOUT))
    return tmp_path


def read(sources: Path, **knobs: Any) -> tuple[dict[str, Pair], dict[str, str]]:
    return read_pairs(Iconify(kind="iconify", name="test", side=32, **knobs), sources)


def red(pair: Pair) -> np.ndarray[Any, Any]:
    """Where a picture is red, (32, 32) booleans."""
    pixels = np.asarray(Image.open(io.BytesIO(pair.data)).convert("RGBA"))
    assert pixels.shape[:2] == (32, 32)
    return (pixels[..., 0] > 200) & (pixels[..., 3] > 200)


def test_in_is_pictures_aliases_and_failures(sources: Path) -> None:
    pairs, failures = read(sources)
    named = [caption for pair in pairs.values() for caption in pair.captions]
    assert len(named) + len(failures) == len(ICONS["icons"]) + len(ICONS["aliases"])
    assert failures == {"old-half": "hidden", "stray": "no_parent", "broken": "unreadable", "spy": "outside_folder"}
    assert [path.removesuffix(".svg") for path in pairs] == sorted(path.removesuffix(".svg") for path in pairs)


def test_an_alias_is_a_caption_and_a_turned_one_a_picture(sources: Path) -> None:
    pairs, _ = read(sources)
    assert pairs["half.svg"].captions == ["half", "left half"]
    left, right, top, bottom = (red(pairs[f"{name}.svg"]) for name in ("half", "right-half", "top-half", "bottom-half"))
    assert left[:, :15].all()
    assert not left[:, 17:].any()
    assert (right == left[:, ::-1]).all()
    assert (top == np.rot90(left, -1)).all()  # rotate counts clockwise
    assert (bottom == np.rot90(left[::-1], -3)).all()


def test_captions_follow_the_templates(sources: Path) -> None:
    pairs, _ = read(sources, captions=["{caption}, test style", "{caption}"])
    assert pairs["waving-hand.svg"].captions == ["waving hand, test style", "waving hand"]


def test_a_motif_is_one_group_in_every_skin_tone(sources: Path) -> None:
    pairs, _ = read(sources)
    assert pairs["waving-hand-medium-dark-skin-tone.svg"].group == pairs["waving-hand.svg"].group == "waving hand"


def test_skin_tones_can_stay_away(sources: Path) -> None:
    names = [
        "person-medium",
        "couple-dark-skin-tone-light-skin-tone",
        "elf-tone3",
        "traffic-light",
        "light-bulb",
        "medium",
    ]
    icons = {name: {"body": f'<circle cx="{n}" cy="8" r="3"/>'} for n, name in enumerate(names)}
    (sources / "test" / "icons.json").write_text(json.dumps({"icons": icons}))
    pairs, failures = read(sources, skin_tones=False)
    assert set(pairs) == {"traffic-light.svg", "light-bulb.svg", "medium.svg"}
    assert set(failures.values()) == {"skin_tone"}
    assert len(pairs) + len(failures) == len(names)


def test_author_and_licence_are_carried(sources: Path) -> None:
    pair = read(sources)[0]["half.svg"]
    assert (pair.license, pair.attribution, pair.url) == ("MIT", "Test Set by Ann", "https://example.org")


def test_workers_change_nothing(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = ICONS | {"icons": {f"icon-{n}": {"body": f'<circle cx="{n % 16}" cy="8" r="3"/>'} for n in range(600)}}
    (sources / "test" / "icons.json").write_text(json.dumps(many | {"aliases": {}}))
    monkeypatch.setenv("DARKROOM_WORKERS", "1")
    alone = read(sources)
    monkeypatch.setenv("DARKROOM_WORKERS", "2")
    assert read(sources) == alone


@pytest.mark.parametrize(("name", "text"), [("icons.json", "{}"), ("icons.json", "[]"), ("info.json", "no json")])
def test_no_icon_set_is_said(sources: Path, name: str, text: str) -> None:
    (sources / "test" / name).write_text(text)
    with pytest.raises(StageError, match=name):
        read(sources)


def test_a_missing_package_is_said(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="npm pack"):
        read(tmp_path)
