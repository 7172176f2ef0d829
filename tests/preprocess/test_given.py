"""A person's own conditions: found by name, and taken the same way as their picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.core.errors import StageError
from stages.core.params import parse_section
from stages.preprocess.given import find_given
from stages.preprocess.params import PreprocessParams
from tests.pictures import drawing, encoded, rotated_by_exif
from tests.preprocess.making import drawings, make, opened, preprocess

DRAWN: dict[str, Any] = {"variants": 3, "rotate": 10.0, "crop": 0.1}
GIVEN: dict[str, Any] = {"conditions": ["canny", "folder:depth"]}


def put(folder: Path, name: str, data: bytes) -> None:
    """A file in the folder `depth`, for a picture of the source `a`."""
    path = folder / "conditions" / "depth" / "a" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def arrays(table: Any) -> list[Any]:
    """Of each row the condition from a folder."""
    conditions = [{one["name"]: one for one in row} for row in table["conditions"]]
    return [np.asarray(opened({"image": one["folder:depth"]}), int) for one in conditions]


@pytest.mark.parametrize("fit", ["center_crop", "bucket", "pad"])
def test_a_picture_that_is_its_own_condition_stays_so_in_every_variant(in_folder: Path, fit: str) -> None:
    pictures = [*drawings((96, 64), (101, 93)), rotated_by_exif(drawing(5, (90, 140)))]
    make(in_folder, pictures, kept=[0, 1, 2])
    for number, data in enumerate(pictures):
        put(in_folder, f"{number}.{'JPG' if number == 2 else 'png'}", data)
    values = {**GIVEN, "fit": fit, "bucket_step": 8, "flip": "swap"}
    table, figures = preprocess(in_folder, **values, augment=DRAWN)
    assert figures["without_condition"] == 0
    assert len(table) == 3 * 5
    assert all([one["name"] for one in row] == GIVEN["conditions"] for row in table["conditions"])
    shown = [np.asarray(opened(row), int) for row in table.to_dict("records")]
    assert all(np.array_equal(image, condition) for image, condition in zip(shown, arrays(table), strict=True))
    # Colours are the picture's alone: jitter moves it, and leaves its condition.
    again, _ = preprocess(in_folder, "again", **values, augment={**DRAWN, "jitter": 0.2})
    for one, other in zip(arrays(table), arrays(again), strict=True):
        assert np.array_equal(one, other)
    moved = [np.asarray(opened(row), int) for row in again[again["variant"] >= 2].to_dict("records")]
    kept = [image for image, variant in zip(shown, table["variant"], strict=True) if variant >= 2]
    assert not any(np.array_equal(one, other) for one, other in zip(moved, kept, strict=True))


@pytest.mark.parametrize("size", [(48, 32), (384, 256), (190, 128)])
def test_a_condition_of_another_size_shows_the_same_place(in_folder: Path, size: tuple[int, int]) -> None:
    """A ramp says of each pixel where it came from."""
    ramp = Image.fromarray(np.broadcast_to(np.linspace(0, 255, 192, dtype=np.uint8), (128, 192)))
    make(in_folder, [encoded(ramp)], kept=[0])
    put(in_folder, "0.png", encoded(ramp.resize(size, Image.Resampling.BILINEAR)))
    table, _ = preprocess(in_folder, **GIVEN, max_upscale=4.0, flip="swap", augment={**DRAWN, "crop": 0.3})
    for row, condition in zip(table.to_dict("records"), arrays(table), strict=True):
        assert np.abs(condition - np.asarray(opened(row), int))[3:-3, 3:-3].max() <= 5


def test_a_picture_without_its_condition_is_left_out_and_counted(in_folder: Path) -> None:
    make(in_folder, drawings(*[(64, 64)] * 6, (8, 8)), kept=[*range(7)], validation=(5,))
    for name, data in {
        "0.png": encoded(drawing(0)),
        "1.png": b"no picture",
        "2.png": encoded(drawing(2, (64, 80))),
        "3.png": encoded(drawing(3)),
        "3.jpeg": encoded(drawing(3), "JPEG"),
        "5.tif": encoded(drawing(5), "TIFF"),
        "6.png": encoded(drawing(6, (8, 8))),
    }.items():
        put(in_folder, name, data)
    table, figures = preprocess(in_folder, **GIVEN)
    assert sorted(int(key, 16) for key in table["key"]) == [0, 5]
    names = ("pictures", "train", "validation", "too_small", "without_condition")
    assert [figures[name] for name in names] == [7, 1, 1, 1, 4]
    assert [(row["reason"], row["pictures"], row["first"]) for row in figures["lacking"]] == [
        ("missing", 1, "a/4.png"),
        ("other_shape", 1, "a/2.png"),
        ("two_files", 1, "a/3.png"),
        ("unreadable", 1, "a/1.png"),
    ]
    assert {row["condition"] for row in figures["lacking"]} == {"folder:depth"}


def test_without_any_condition_nothing_is_written(in_folder: Path) -> None:
    make(in_folder, drawings((64, 64), (64, 64)), kept=[0, 1])
    put(in_folder, "other.png", encoded(drawing(0)))
    with pytest.raises(StageError, match=r"none of 2 pictures is left: of 2 the condition folder:depth is missing"):
        preprocess(in_folder, **GIVEN)
    assert not (in_folder / "out").exists()


def test_folders_that_cannot_work_are_refused_before_any_work(in_folder: Path) -> None:
    params = PreprocessParams.model_validate(GIVEN)
    with pytest.raises(StageError, match=r"the folder conditions.depth is missing"):
        params.verify(Path("conditions"), ["a"])
    (in_folder / "conditions" / "depth" / "b").mkdir(parents=True)
    with pytest.raises(StageError, match=r"no folder named for a source \(a\).*conditions.depth.a.cats.1\.png"):
        params.verify(Path("conditions"), ["a"])
    params.verify(Path("conditions"), ["a", "b"])
    for name in ("folder:../depth", "folder:", "folder:a/b", "depth"):
        with pytest.raises(StageError, match=r"known are canny, .* and folder:NAME"):
            parse_section(PreprocessParams, "preprocess", {"conditions": [name]})


def test_names_are_those_in_the_source_without_the_ending(in_folder: Path) -> None:
    for name in ("cats/1.v2.PNG", "set.h5:12.webp", "1F600.png"):
        put(in_folder, name, b"x")
    put(in_folder, "../outside.png", b"x")
    depth = in_folder / "conditions" / "depth"

    def found(path: str) -> list[str]:
        return [file.relative_to(depth).as_posix() for file in find_given(depth, "a", path)]

    assert found("cats/1.v2.jpg") == found("cats/1.v2.JPEG") == found("cats/1.v2") == ["a/cats/1.v2.PNG"]
    assert found("cats/1.jpg") == found("1.v2.jpg") == []
    assert found("set.h5:12") == ["a/set.h5:12.webp"]
    assert found("1F600.svg") == ["a/1F600.png"]
    assert (depth / "outside.png").exists()
    assert found("../outside.png") == found(str(depth / "outside.png")) == []


@given(st.text(max_size=400))
def test_no_name_can_raise_or_leave_the_folder(name: str) -> None:
    assert find_given(Path("nowhere"), "a", name) == []


def test_counts_know_nothing_of_workers(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(in_folder, drawings(*[(64, 64)] * 8), kept=[*range(8)])
    put(in_folder, "4.png", encoded(drawing(4)))
    told = []
    for workers in ("1", "3"):
        monkeypatch.setenv("DARKROOM_WORKERS", workers)
        told.append(json.dumps(preprocess(in_folder, **GIVEN)[1]))
    assert told[0] == told[1]
    assert json.loads(told[0])["lacking"][0]["first"] == "a/0.png"
