"""FFHQ: a list of 255 MB in small steps, a licence a picture, hashes."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.collect import ffhq
from stages.collect.ffhq import LIST, entries_of
from stages.collect.params import Ffhq
from stages.core.errors import StageError
from tests.collect.reading import plant, read
from tests.pictures import drawing, encoded

FOLDERS = {"image": "images1024x1024", "thumbnail": "thumbnails128x128", "in_the_wild": "in-the-wild-images"}
TERMS = [
    ("Attribution License", "https://creativecommons.org/licenses/by/2.0/"),
    ("Attribution-NonCommercial License", "https://creativecommons.org/licenses/by-nc/2.0/"),
    ("Public Domain Mark", "https://creativecommons.org/publicdomain/mark/1.0/"),
]


def picture(number: int, part: str) -> bytes:
    return encoded(drawing(3 * number + list(FOLDERS).index(part), (16, 16)))


def entry(number: int) -> dict[str, Any]:
    """As the list has it."""
    parts = {
        part: {
            "file_url": "https://drive.google.com/uc?id=x",
            "file_path": f"{folder}/00000/{number:05d}.png",
            "file_md5": hashlib.md5(picture(number, part)).hexdigest(),
            "face_landmarks": [[131.62, 453.8]] * 68,
        }
        for part, folder in FOLDERS.items()
    }
    terms, address = TERMS[number]
    metadata = {
        "photo_url": f"https://www.flickr.com/photos/someone/{number}/",
        "photo_title": f"DSCF089{number}.JPG",
        "author": f"Åsa {number}",
        "country": "",
        "license": terms,
        "license_url": address,
        "date_uploaded": "2008-08-16",
        "date_crawled": "2018-10-10",
    }
    return {"category": "validation" if number == 2 else "training", "metadata": metadata, **parts}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "ffhq"
    entries = {str(number): entry(number) for number in range(3)}
    for number in range(3):
        plant(root, {entries[str(number)][part]["file_path"]: picture(number, part) for part in FOLDERS})
    return plant(root, {LIST: json.dumps(entries)})


def faces(**knobs: Any) -> Ffhq:
    return Ffhq.model_validate({"kind": "ffhq", **knobs})


def test_every_picture_has_its_own_terms(root: Path) -> None:
    plant(root / "images1024x1024", {"LICENSE.txt": "x"})
    pairs, failures = read(faces(verify_hash=True), root.parent)
    assert not failures
    assert list(pairs) == [f"images1024x1024/00000/0000{number}.png" for number in range(3)]
    assert [pair.data for pair in pairs.values()] == [picture(number, "image") for number in range(3)]
    assert [pair.license for pair in pairs.values()] == [terms for terms, _ in TERMS]
    assert [pair.split for pair in pairs.values()] == ["train", "train", "validation"]
    assert {tuple(pair.captions) for pair in pairs.values()} == {("a photo of a person's face",)}
    second = list(pairs.values())[1]
    assert second.attribution == "DSCF0891.JPG, Åsa 1, https://creativecommons.org/licenses/by-nc/2.0/"
    assert second.url == "https://www.flickr.com/photos/someone/1/"
    assert json.loads(second.extra) == {
        "author": "Åsa 1",
        "date_uploaded": "2008-08-16",
        "license_url": "https://creativecommons.org/licenses/by-nc/2.0/",
        "photo_title": "DSCF0891.JPG",
    }


def test_other_folders_licences_and_captions(root: Path) -> None:
    knobs = {"licenses": ["attribution license", "public domain*"], "captions": ["by {author}"]}
    pairs, failures = read(faces(folder="thumbnails128x128", **knobs, official_split=False), root.parent)
    assert [(pair.captions, pair.split) for pair in pairs.values()] == [(["by Åsa 0"], None), (["by Åsa 2"], None)]
    assert failures == {"thumbnails128x128/00000/00001.png": "license_not_allowed"}
    pairs, _ = read(faces(folder="in-the-wild-images"), root.parent)
    assert [pair.data for pair in pairs.values()] == [picture(number, "in_the_wild") for number in range(3)]


def test_what_is_missing_changed_or_too_much(root: Path) -> None:
    entries: dict[str, Any] = {str(number): entry(number) for number in range(3)}
    entries |= {"3": {"category": "training"}, "4": {"metadata": {}, "image": {"file_path": "../../secret.png"}}}
    entries |= {"5": entry(0)}
    plant(root, {LIST: json.dumps(entries), "images1024x1024/00000/00007.png": b"x"})
    plant(root, {"images1024x1024/00000/00000.png": b"changed"})
    (root / "images1024x1024/00000/00001.png").unlink()
    pairs, failures = read(faces(verify_hash=True), root.parent)
    assert list(pairs) == ["images1024x1024/00000/00002.png"]
    assert failures == {
        "images1024x1024/00000/00000.png": "wrong_hash",
        "images1024x1024/00000/00001.png": "missing_file",
        "images1024x1024/00000/00007.png": "not_listed",
        "../../secret.png": "outside_folder",
        f"{LIST}:3": "malformed_entry",
        f"{LIST}:5": "listed_twice",
    }
    assert len(read(faces(), root.parent)[0]) == 2  # a hash is looked at only where asked


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '{"0": 1}', '{"0": {}', '{"0": {}} more', '{"0": {}, }', '{"0": {"a": }}', '{"0":' * 9999],
)
def test_a_list_that_is_none_is_said(root: Path, text: str) -> None:
    plant(root, {LIST: text})
    with pytest.raises(StageError, match=r"ffhq-dataset-v2\.json: can't be read .*; put ffhq-dataset-v2\.json of"):
        read(faces(), root.parent)
    (root / LIST).unlink()
    with pytest.raises(StageError, match=r"ffhq-dataset-v2\.json: is missing"):
        read(faces(), root.parent)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    tree=st.dictionaries(
        st.from_regex(r"\w{1,4}", fullmatch=True), st.dictionaries(st.text(max_size=3), VALUES, max_size=3), min_size=1
    ),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 2]),
)
def test_entries_are_those_of_json_wherever_it_is_cut(tree: dict[str, Any], chunk: int, indent: int | None) -> None:
    text = json.dumps(tree, indent=indent, ensure_ascii=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ffhq, "CHUNK", chunk)
        assert list(entries_of(io.StringIO(text))) == list(json.loads(text).items())


def test_an_endless_entry_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffhq, "CHUNK", 10)
    monkeypatch.setattr(ffhq, "LARGEST", 100)
    for start in ('{"0": {"a": "', "", '{"0": {}'):
        file = io.StringIO(start + " " * 10_000)
        with pytest.raises(ValueError, match=r"Unterminated|no entry begins"):
            list(entries_of(file))
        assert file.tell() < 300
