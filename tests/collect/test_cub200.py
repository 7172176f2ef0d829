"""CUB-200-2011: lists, captions with the holes of the published ones, crops."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.collect.params import Cub200
from stages.core.errors import StageError
from tests.collect.reading import plant, read
from tests.pictures import drawing, encoded

ALBATROSS, TERN = "001.Black_footed_Albatross", "002.Arctic_Tern"
LISTS = {
    "images.txt": f"1 {ALBATROSS}/a_1.jpg\n2 {ALBATROSS}/a_2.jpg\n3 {TERN}/t_1.jpg\n4 {TERN}/gone.jpg\n",
    "classes.txt": f"1 {ALBATROSS}\n2 {TERN}\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n4 0\n",
    "bounding_boxes.txt": "1 20.0 10.0 20.0 40.0\n2 0.0 0.0 30.0 10.0\n3 500.0 500.0 10.0 10.0\n",
}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    base = plant(tmp_path / "cub200" / "CUB_200_2011", dict(LISTS))
    pictures = [drawing(0, (100, 80)), drawing(1, (100, 80)).convert("L"), drawing(2)]
    for name, picture in zip((f"{ALBATROSS}/a_1", f"{ALBATROSS}/a_2", f"{TERN}/t_1"), pictures, strict=True):
        plant(base / "images", {f"{name}.jpg": encoded(picture, "JPEG")})
    plant(
        tmp_path / "cub200" / "text_c10" / ALBATROSS,
        {"a_1.txt": "a large bird\r\n\r\nits be\ufffdak is  hooked\n \ufffd\n", "a_2.txt": b"a gr\xffey one"},
    )
    return tmp_path


def cub(**knobs: Any) -> Cub200:
    return Cub200.model_validate({"kind": "cub200", **knobs})


def at(name: str) -> str:
    return f"CUB_200_2011/images/{name}.jpg"


def test_captions_splits_and_what_is_missing(sources: Path) -> None:
    plant(sources / "cub200/CUB_200_2011/images", {f"{TERN}/new.jpg": b"x", ".DS_Store": b"x"})
    pairs, failures = read(cub(), sources)
    assert {path: (pair.captions, pair.split) for path, pair in pairs.items()} == {
        at(f"{ALBATROSS}/a_1"): (["a large bird", "its beak is hooked"], "train"),
        at(f"{ALBATROSS}/a_2"): (["a grey one"], "validation"),
        at(f"{TERN}/t_1"): (["a photo of a Arctic Tern, a kind of bird"], "train"),
    }
    assert failures == {at(f"{TERN}/gone"): "missing_file", at(f"{TERN}/new"): "not_listed"}
    first = pairs[at(f"{ALBATROSS}/a_1")]
    assert json.loads(first.extra) == {"class": "Black footed Albatross"}
    assert first.data == (sources / "cub200" / first.path).read_bytes()
    assert first.license == "non-commercial research and education"
    assert "Wah et al. 2011" in str(first.attribution)
    assert first.group is None


def test_the_draw_may_decide_instead_and_lists_may_lie_at_the_top(sources: Path) -> None:
    (sources / "cub200" / "CUB_200_2011").rename(sources / "moved")
    (sources / "cub200" / "text_c10").rename(sources / "moved" / "text")
    (sources / "moved" / "train_test_split.txt").unlink()
    pairs, failures = read(cub(path="moved", official_split=False), sources)
    assert {pair.split for pair in pairs.values()} == {None}
    assert [len(pair.captions) for pair in pairs.values()] == [2, 1, 1]
    assert failures == {f"images/{TERN}/gone.jpg": "missing_file"}


def test_a_crop_is_half_as_large_again_as_the_bird(sources: Path) -> None:
    pairs, failures = read(cub(crop=True), sources)
    tall, wide = (pairs[at(f"{ALBATROSS}/a_{n}")] for n in (1, 2))
    # 40 px high: 60 px around (30, 30); 30 px wide: 45 px around (15, 5), but nothing lies left of or above 0.
    assert [json.loads(pair.extra)["crop"] for pair in (tall, wide)] == [[0, 0, 60, 60], [0, 0, 38, 28]]
    stored = Image.open(sources / "cub200" / tall.path).convert("RGB").crop((0, 0, 60, 60))
    shown = Image.open(io.BytesIO(tall.data))
    assert (shown.format, shown.tobytes()) == ("PNG", stored.tobytes())
    assert Image.open(io.BytesIO(wide.data)).size == (38, 28)
    assert failures == {at(f"{TERN}/t_1"): "no_box", at(f"{TERN}/gone"): "missing_file"}
    assert read(cub(crop=True), sources) == (pairs, failures)
    (sources / "cub200" / tall.path).write_bytes(b"no picture")
    assert read(cub(crop=True), sources)[1][tall.path] == "unreadable"


def test_broken_lines_are_failures(sources: Path) -> None:
    base = sources / "cub200" / "CUB_200_2011"
    more = f"one two\n5 {ALBATROSS}/a_1.jpg\n6 ../../../secret.jpg\n2 {TERN}/again.jpg\n7 /etc/hostname\n"
    plant(base, {"images.txt": LISTS["images.txt"] + more, "image_class_labels.txt": "1 1\n2 x\n3 9\n"})
    plant(sources, {"secret.jpg": "secret"})
    pairs, failures = read(cub(), sources)
    assert [pair.captions for pair in pairs.values()] == [["a large bird", "its beak is hooked"], ["a grey one"], []]
    assert failures == {
        at(f"{TERN}/gone"): "missing_file",
        "CUB_200_2011/images.txt, id 5": "listed_twice",
        "CUB_200_2011/images/../../../secret.jpg": "outside_folder",
        "/etc/hostname": "outside_folder",
        "CUB_200_2011/images.txt:5": "malformed_line",
        "CUB_200_2011/images.txt:8": "listed_twice",
        "CUB_200_2011/image_class_labels.txt:2": "malformed_line",
    }


def test_links_that_leave_are_not_followed(sources: Path) -> None:
    base = sources / "cub200" / "CUB_200_2011"
    plant(sources, {"secret.jpg": "secret", "secret.txt": "secret"})
    (base / "images" / TERN / "gone.jpg").symlink_to(sources / "secret.jpg")
    (sources / "cub200" / "text_c10" / TERN).mkdir()
    (sources / "cub200" / "text_c10" / TERN / "t_1.txt").symlink_to(sources / "secret.txt")
    (base / "images" / "linked").symlink_to(sources)
    pairs, failures = read(cub(), sources)
    assert pairs[at(f"{TERN}/t_1")].captions == ["a photo of a Arctic Tern, a kind of bird"]
    assert failures == {at(f"{TERN}/gone"): "outside_folder", "CUB_200_2011/images/linked": "linked_folder"}
    (base / "classes.txt").unlink()
    (base / "classes.txt").symlink_to(sources / "secret.txt")
    with pytest.raises(StageError, match=r"classes\.txt: is a link that leaves the folder; copy the file"):
        read(cub(), sources)


@pytest.mark.parametrize(("text", "said"), [(None, "is missing"), ("<html>", "has no line as the data set's own")])
def test_lists_that_are_none_are_said(sources: Path, text: str | None, said: str) -> None:
    path = sources / "cub200" / "CUB_200_2011" / "images.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(StageError, match=rf"images\.txt: {said}.*unpack CUB_200_2011\.tgz again"):
        read(cub(), sources)
