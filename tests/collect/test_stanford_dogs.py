"""Stanford Dogs: breeds from folders, MATLAB lists, annotations that must do no harm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from stages.collect.params import StanfordDogs
from stages.collect.stanford_dogs import boxes_of, breed_of
from stages.core.errors import StageError
from tests.collect.reading import plant, read
from tests.pictures import drawing, encoded

CHIHUAHUA, AFFEN = "n02085620-Chihuahua", "n02110627-affen_pinscher"
BOX = "<object><name>x</name><bndbox><xmin>{0}</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>"


def annotation(*lefts: int) -> str:
    """As the set has them; %s stands where the file's name should."""
    return f"<annotation><filename>%s</filename>{''.join(BOX.format(left) for left in lefts)}</annotation>"


def mat_list(path: Path, names: list[str]) -> None:
    cells = np.empty((len(names), 1), dtype=object)
    cells[:, 0] = names
    savemat(path, {"file_list": cells, "labels": np.ones((len(names), 1))})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "stanford_dogs"
    rgba = drawing(2).convert("RGBA")
    plant(
        root / "Images",
        {
            f"{CHIHUAHUA}/n02085620_1.jpg": encoded(drawing(0), "JPEG"),
            f"{CHIHUAHUA}/n02085620_2.jpg": encoded(drawing(1), "JPEG"),
            f"{AFFEN}/n02105855_2933.jpg": encoded(rgba),  # a PNG, as in the set
        },
    )
    plant(
        root / "Annotation",
        {f"{CHIHUAHUA}/n02085620_1": annotation(1, 5), f"{AFFEN}/n02105855_2933": annotation(3).replace("\n", "\r\n")},
    )
    return root


def dogs(**knobs: Any) -> StanfordDogs:
    return StanfordDogs.model_validate({"kind": "stanford_dogs", **knobs})


def test_breeds_and_boxes_without_lists(root: Path) -> None:
    plant(root / "Images", {"notes.html": "x"})
    pairs, failures = read(dogs(), root.parent)
    assert [(path.rpartition("/")[2], pair.captions, pair.split) for path, pair in pairs.items()] == [
        ("n02085620_1.jpg", ["a photo of a Chihuahua, a breed of dog"], None),
        ("n02085620_2.jpg", ["a photo of a Chihuahua, a breed of dog"], None),
        ("n02105855_2933.jpg", ["a photo of a affen pinscher, a breed of dog"], None),
    ]
    first, second, png = pairs.values()
    assert json.loads(first.extra) == {"class": "Chihuahua", "objects": 2, "boxes": [[1, 2, 30, 40], [5, 2, 30, 40]]}
    assert json.loads(second.extra) == {"class": "Chihuahua"}
    assert png.data == (root / png.path).read_bytes()
    assert png.data.startswith(b"\x89PNG")
    assert failures == {"Images/notes.html": "unknown_kind"}
    assert (first.license, first.group) == ("non-commercial research and education", None)
    assert "Khosla et al. 2011" in str(first.attribution)


def test_lists_decide_which_there_are(root: Path) -> None:
    mat_list(root / "train_list.mat", [f"{CHIHUAHUA}/n02085620_1.jpg", f"{CHIHUAHUA}/gone.jpg", "../Annotation/x"])
    with pytest.raises(StageError, match=r"has only one of train_list\.mat and test_list\.mat"):
        read(dogs(), root.parent)
    mat_list(root / "test_list.mat", [f"{AFFEN}/n02105855_2933.jpg"])
    pairs, failures = read(dogs(captions=["{caption}"]), root.parent)
    assert [(pair.captions, pair.split) for pair in pairs.values()] == [
        (["Chihuahua"], "train"),
        (["affen pinscher"], "validation"),
    ]
    assert failures == {
        "Images/../Annotation/x": "outside_folder",
        f"Images/{CHIHUAHUA}/gone.jpg": "missing_file",
        f"Images/{CHIHUAHUA}/n02085620_2.jpg": "not_listed",
    }
    assert {pair.split for pair in read(dogs(official_split=False), root.parent)[0].values()} == {None}


@pytest.mark.parametrize("data", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"\x80\x04."])
def test_lists_that_are_none_are_said(root: Path, data: bytes) -> None:
    for name in ("train_list.mat", "test_list.mat"):
        (root / name).write_bytes(data)
    with pytest.raises(StageError, match=r"train_list\.mat: is no list of files .*unpack lists\.tar again"):
        read(dogs(), root.parent)


def test_missing_pictures_are_said(tmp_path: Path) -> None:
    (tmp_path / "stanford_dogs").mkdir()
    with pytest.raises(StageError, match=r"Images: is missing; unpack images\.tar there"):
        read(dogs(), tmp_path)


@pytest.mark.parametrize(
    "xml",
    [
        "no xml",
        annotation(1)[:-5],
        annotation(1).replace("<xmin>1", "<xmin>one"),
        annotation(1).replace("<xmax>30</xmax>", ""),
        '<!DOCTYPE a [<!ENTITY a "1">]>' + annotation(1).replace("<xmin>1", "<xmin>&a;"),
        '<!DOCTYPE a SYSTEM "file:///etc/passwd">' + annotation(1),
    ],
)
def test_an_annotation_that_is_none_is_a_failure(root: Path, xml: str) -> None:
    plant(root / "Annotation", {f"{CHIHUAHUA}/n02085620_1": xml})
    pairs, failures = read(dogs(), root.parent)
    assert failures == {f"Annotation/{CHIHUAHUA}/n02085620_1": "malformed_annotation"}
    assert len(pairs) == 3
    assert json.loads(pairs[f"Images/{CHIHUAHUA}/n02085620_1.jpg"].extra) == {"class": "Chihuahua"}


def test_a_hidden_document_type_is_refused_too() -> None:
    xml = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY a "1">]>' + annotation(1)
    with pytest.raises(ValueError, match="document type"):
        boxes_of(xml.encode("utf-16"))


@pytest.mark.parametrize(
    ("folder", "breed"),
    [("n02089973-English_foxhound", "English foxhound"), ("n02086240-Shih-Tzu", "Shih-Tzu"), ("husky", "husky")],
)
def test_breeds(folder: str, breed: str) -> None:
    assert breed_of(folder) == breed
