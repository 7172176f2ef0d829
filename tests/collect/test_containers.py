"""Pictures in archives, Parquet tables and Hugging Face data sets: asked for = pairs + failures."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.collect.params import Hub, ParquetTables, WebDataset
from stages.core.errors import StageError
from tests.collect.reading import read
from tests.pictures import drawing, encoded

PICTURE = encoded(drawing(1))


def tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)


def web(**options: Any) -> WebDataset:
    return WebDataset(kind="webdataset", name="web", **options)


def test_an_archive_as_img2dataset_writes_it(tmp_path: Path) -> None:
    said = {"url": "https://example.org/a.jpg", "caption": "A", "punsafe": 0.25, "status": "success"}
    tar(
        tmp_path / "web" / "00000.tar",
        {"000.jpg": PICTURE, "000.txt": b"a cat\n", "000.json": json.dumps(said).encode(), "002.jpg": PICTURE + b"x"},
    )
    rows = {"key": ["000", "001"], "status": ["success", "failed_to_download"], "url": ["u", "https://example.org/b"]}
    pd.DataFrame(rows).to_parquet(tmp_path / "web" / "00000.parquet")
    pairs, failures = read(web(captions=["{caption}"]), tmp_path)
    first, second = pairs.values()
    assert (first.path, first.captions, first.url) == ("00000.tar/000.jpg", ["a cat"], "https://example.org/a.jpg")
    assert json.loads(first.extra)["punsafe"] == 0.25
    assert (second.path, second.captions) == ("00000.tar/002.jpg", [])
    assert failures == {"00000.tar/001": "not_downloaded"}


def test_zips_and_the_caption_in_the_json(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    with zipfile.ZipFile(tmp_path / "web" / "a.zip", "w") as archive:
        archive.writestr("sub/", b"")
        archive.writestr("sub/1.png", PICTURE)
        archive.writestr("sub/1.json", '{"caption": "from JSON"}')
    pairs, failures = read(web(), tmp_path)
    assert [(pair.path, pair.captions) for pair in pairs.values()] == [("a.zip/sub/1.png", ["from JSON"])]
    assert not failures


def test_nothing_odd_in_an_archive_vanishes_or_leaves_it(tmp_path: Path) -> None:
    members = {
        "1.png": PICTURE,
        "1.jpg": PICTURE,
        "2.txt": b"no picture",
        "../../escaped.png": PICTURE + b"1",
        "/root.png": PICTURE + b"2",
        "4.mp4": b"film",
        "5.json": b"{broken",
        "6.png": b"x" * 2**20,
    }
    tar(tmp_path / "web" / "odd.tar", members, links={"7.png": "/etc/passwd"})
    before = sorted(tmp_path.rglob("*"))
    pairs, failures = read(web(most_bytes=2**19), tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert list(pairs) == ["odd.tar/1.png", "odd.tar/../../escaped.png", "odd.tar//root.png"]
    assert failures == {
        "odd.tar/1.jpg": "second_picture",
        "odd.tar/2.txt": "no_picture",
        "odd.tar/4.mp4": "unknown_kind",
        "odd.tar/5.json": "unknown_kind",
        "odd.tar/6.png": "too_large",
        "odd.tar/7.png": "no_file",
    }


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 10_239))
def test_an_archive_that_ends_early_keeps_what_was_read(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    base = tmp_path_factory.mktemp("cut")
    tar(base / "web" / "a.tar", {f"{number}.png": bytes([number]) * 700 for number in range(5)})
    whole = (base / "web" / "a.tar").read_bytes()
    (base / "web" / "a.tar").write_bytes(whole[:cut])
    pairs, failures = read(web(), base)
    assert set(failures) <= {"a.tar"}
    assert set(pairs) <= {f"a.tar/{number}.png" for number in range(5)}
    assert all(pair.data == bytes([int(Path(path).stem)]) * 700 for path, pair in pairs.items())
    if cut < 5 * 1536:
        assert len(pairs) < 5 or not failures


def test_an_empty_source_is_said(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    with pytest.raises(StageError, match="has no archives"):
        read(web(), tmp_path)
    with pytest.raises(StageError, match=r"has no \.parquet tables"):
        read(ParquetTables(kind="parquet", name="web"), tmp_path)


def table(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_parquet_as_hugging_face_and_img2dataset_write_it(tmp_path: Path) -> None:
    images = [{"bytes": PICTURE, "path": "/etc/passwd"}, {"bytes": None, "path": "/etc/passwd"}]
    table(tmp_path / "p" / "a.parquet", {"image": images, "text": ["one", "two"], "score": [0.5, None]})
    columns = {"jpg": [PICTURE + b"1", None], "txt": ["three", "four"], "status": ["success", "failed"]}
    table(tmp_path / "p" / "b.parquet", columns)
    pairs, failures = read(ParquetTables(kind="parquet", name="p", captions=["{caption}!"]), tmp_path)
    assert {path: pair.captions for path, pair in pairs.items()} == {"a.parquet:0": ["one!"], "b.parquet:0": ["three!"]}
    assert json.loads(pairs["a.parquet:0"].extra) == {"score": 0.5}
    assert failures == {"a.parquet:1": "no_bytes", "b.parquet:1": "not_downloaded"}


def test_parquet_columns_by_name_and_broken_tables(tmp_path: Path) -> None:
    table(tmp_path / "p" / "a.parquet", {"pixels": [PICTURE], "words": [["one", "two"]], "kind": ["cat"]})
    (tmp_path / "p" / "b.parquet").write_bytes(b"PAR1 and no more")
    options = {"kind": "parquet", "name": "p", "image_column": "pixels"}
    pairs, failures = read(ParquetTables.model_validate({**options, "caption_column": "words"}), tmp_path)
    assert [pair.captions for pair in pairs.values()] == [["one", "two"]]
    assert failures == {"b.parquet": "unreadable_table"}
    knobs = {**options, "caption_column": None, "captions": ["a photo of a {kind}"]}
    pairs, _ = read(ParquetTables.model_validate(knobs), tmp_path)
    assert [pair.captions for pair in pairs.values()] == [["a photo of a cat"]]
    with pytest.raises(StageError, match=r"has no caption column .*it has pixels, words, kind"):
        read(ParquetTables.model_validate(options), tmp_path)


def hub(**options: Any) -> Hub:
    return Hub.model_validate({"kind": "hub", "name": "h", "dataset": "folder:set", **options})


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    for number, name in enumerate(["train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "test/dog/3.png"]):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(drawing(number)))
    return tmp_path


@pytest.mark.filterwarnings("default")  # of datasets' own libraries
def test_a_local_data_set_with_class_labels(data_set: Path) -> None:
    knobs = {"caption_column": None, "captions": ["a photo of a {label}"]}
    pairs, failures = read(hub(splits=["train", "test"], **knobs), data_set)
    assert [(pair.captions, pair.split) for pair in pairs.values()] == [
        (["a photo of a cat"], "train"),
        (["a photo of a cat"], "train"),
        (["a photo of a dog"], "train"),
        (["a photo of a dog"], "validation"),
    ]
    assert not failures
    assert {pair.split for pair in read(hub(**knobs), data_set)[0].values()} == {None}


@pytest.mark.filterwarnings("default")  # of datasets' own libraries
def test_data_sets_that_are_not_there(data_set: Path) -> None:
    with pytest.raises(StageError, match="Bad split: night"):
        read(hub(splits=["night"], caption_column=None), data_set)
    with pytest.raises(StageError, match=r"has no caption column.*it has image, label"):
        read(hub(), data_set)
    with pytest.raises(StageError, match="is missing"):
        read(hub(dataset="folder:none"), data_set)
    with pytest.raises(ValueError, match="pattern"):
        hub(dataset="owner/name@main")
