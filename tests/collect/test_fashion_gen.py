"""Fashion-Gen: HDF5 that may not name other files, texts in two encodings, products that stay together."""

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from stages.collect.params import FashionGen
from stages.core.errors import StageError
from tests.collect.reading import read
from tests.pictures import drawing

TRAIN, VALIDATION = "fashiongen_256_256_train.h5", "fashiongen_256_256_validation.h5"
SIDE = 16
ROWS: list[tuple[int, bytes, bytes]] = [
    (7, b"Long sleeve shirt in white.", b"White Shirt"),
    (7, b"Long sleeve shirt in white.", b"White Shirt"),
    (8, "Jeans in blé. ".encode(), b"Blue Jeans"),
    (9, "Café jacket.".encode("cp437"), b"Jacket"),
]


def pixels(number: int) -> np.ndarray[Any, Any]:
    return np.asarray(drawing(number, (SIDE, SIDE)))


def write(path: Path, rows: list[tuple[int, bytes, bytes]], first: int = 0, flat: bool = False) -> Path:
    """As the set has it: everything (N, 1); or as some copies have it, (N,)."""
    path.parent.mkdir(exist_ok=True)
    shape = (len(rows),) if flat else (len(rows), 1)
    with h5py.File(path, "w") as file:
        images = np.stack([pixels(first + number) for number in range(len(rows))])
        file.create_dataset("input_image", data=images, chunks=(1, SIDE, SIDE, 3))
        file["input_productID"] = np.reshape([product for product, _, _ in rows], shape)
        file["input_description"] = np.reshape(np.array([text for _, text, _ in rows], dtype="S200"), shape)
        file["input_name"] = np.reshape(np.array([name for _, _, name in rows], dtype=h5py.string_dtype()), shape)
        for name, value in {"category": b"TOPS", "gender": b"Men", "pose": b"id_gridfs_1"}.items():
            file[f"input_{name}"] = np.full(shape, value)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "fashion_gen"
    write(root / TRAIN, ROWS)
    write(root / VALIDATION, [(9, b"Jacket.", b"Jacket")], first=4, flat=True)
    return root


def fashion(**knobs: Any) -> FashionGen:
    return FashionGen.model_validate({"kind": "fashion_gen", **knobs})


def test_rows_of_both_files(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, failures = read(fashion(), root.parent)
    assert not failures
    assert list(pairs) == [*(f"{TRAIN}:{row}" for row in range(4)), f"{VALIDATION}:0"]
    assert [pair.captions for pair in pairs.values()] == [
        ["Long sleeve shirt in white."],
        ["Long sleeve shirt in white."],
        ["Jeans in blé."],
        ["Café jacket."],
        ["Jacket."],
    ]
    assert [pair.split for pair in pairs.values()] == ["train"] * 4 + ["validation"]
    assert [pair.group for pair in pairs.values()] == [f"fashion_gen:{number}" for number in (7, 7, 8, 9, 9)]
    told = {"category": "TOPS", "gender": "Men", "name": "Jacket", "pose": "id_gridfs_1", "product": "9"}
    assert json.loads(pairs[f"{TRAIN}:3"].extra) == {**told, "decoded_as": "cp437"}
    assert json.loads(pairs[f"{VALIDATION}:0"].extra) == told
    assert f"1 rows of {TRAIN} are no UTF-8" in capsys.readouterr().out
    for number, pair in enumerate(pairs.values()):
        shown = Image.open(io.BytesIO(pair.data))
        assert shown.format == "PNG"
        assert (np.asarray(shown) == pixels(number)).all()
        assert (pair.license, pair.url) == ("non-commercial research", None)
        assert "Rostamzadeh et al. 2018" in str(pair.attribution)


def test_workers_change_no_byte(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / TRAIN, [(row, b"x", b"y") for row in range(150)])
    monkeypatch.setenv("DARKROOM_WORKERS", "1")
    alone = read(fashion(), root.parent)
    monkeypatch.setenv("DARKROOM_WORKERS", "3")
    assert read(fashion(), root.parent) == alone
    assert len(alone[0]) == 151


def test_one_file_has_no_split_and_fields_fill_templates(root: Path) -> None:
    (root / VALIDATION).unlink()
    pairs, _ = read(fashion(captions=["{name}, for {gender}"]), root.parent)
    assert [(pair.captions, pair.split) for pair in pairs.values()][2] == (["Blue Jeans, for Men"], None)
    write(root / VALIDATION, ROWS)
    assert {pair.split for pair in read(fashion(official_split=False), root.parent)[0].values()} == {None}


def test_a_broken_chunk_costs_its_own_row(root: Path) -> None:
    with h5py.File(root / TRAIN, "w") as file:
        images = np.stack([pixels(number) for number in range(3)])
        file.create_dataset("input_image", data=images, chunks=(1, SIDE, SIDE, 3), compression="gzip", fletcher32=True)
        chunk = file["input_image"].id.get_chunk_info(1)
        file["input_productID"] = [1, 2, 3]
        file["input_description"] = np.array([b"a", b"b", b"c"])
    content = bytearray((root / TRAIN).read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (root / TRAIN).write_bytes(content)
    pairs, failures = read(fashion(), root.parent)
    assert [pair.captions for pair in pairs.values()] == [["a"], ["c"], ["Jacket."]]
    assert failures == {f"{TRAIN}:1": "unreadable_row"}


def put(root: Path, name: str, value: Any) -> None:
    with h5py.File(root / TRAIN, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value


@pytest.mark.parametrize("name", ["input_image", "input_description", "input_name"])
def test_what_lies_elsewhere_is_not_read(root: Path, name: str) -> None:
    shape = (4, SIDE, SIDE, 3) if name == "input_image" else (4, 1)
    secret = root.parent / "secret.h5"
    write(secret, ROWS)
    for link in (h5py.ExternalLink(str(secret), name), h5py.SoftLink("/input_productID")):
        put(root, name, link)
        with pytest.raises(StageError, match=f"{name} is no data set of its own"):
            read(fashion(), root.parent)
    put(root, name, None)
    layout = h5py.VirtualLayout(shape, dtype="uint8")
    layout[:] = h5py.VirtualSource(str(secret), name, shape)
    with h5py.File(root / TRAIN, "r+") as file:
        file.create_virtual_dataset(name, layout)
    with pytest.raises(StageError, match=f"{name} is no data set of its own"):
        read(fashion(), root.parent)
    put(root, name, None)
    size = int(np.prod(shape))
    with h5py.File(root / TRAIN, "r+") as file:
        file.create_dataset(name, shape, dtype="uint8", external=[(str(secret), 0, size)])
    with pytest.raises(StageError, match=f"{name} is no data set of its own"):
        read(fashion(), root.parent)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("input_image", np.zeros((4, 2, 2), np.uint8), r"input_image is uint8\[4, 2, 2\]"),
        ("input_image", np.zeros((4, 2, 2, 3), np.float32), r"input_image is float32"),
        ("input_image", np.zeros((4, 1, 5000, 3), np.uint8), r"input_image is uint8\[4, 1, 5000, 3\]"),
        ("input_description", np.array([b"one"]), r"input_description has the shape \[1\], 4 pictures"),
        ("input_description", np.array([b"x" * 70_000] * 4), "input_description is .*S70000"),
        ("input_productID", None, "has no input_productID"),
    ],
)
def test_files_of_another_shape_are_refused(root: Path, name: str, value: Any, said: str) -> None:
    put(root, name, value)
    with pytest.raises(StageError, match=rf"{TRAIN}: {said}.*; fetch it again"):
        read(fashion(), root.parent)


def test_chunks_larger_than_memory_are_refused(root: Path) -> None:
    put(root, "input_image", None)
    with h5py.File(root / TRAIN, "r+") as file:
        file.create_dataset("input_image", (4, 4096, 4096, 3), "uint8", chunks=(8, 4096, 4096, 3), maxshape=(None,) * 4)
    with pytest.raises(StageError, match="in chunks of 402653184 bytes"):
        read(fashion(), root.parent)


def test_what_is_no_hdf5_is_said(root: Path) -> None:
    (root / TRAIN).write_bytes(b"no HDF5")
    with pytest.raises(StageError, match=rf"{TRAIN}: is no HDF5 file"):
        read(fashion(), root.parent)
    for path in root.iterdir():
        path.unlink()
    with pytest.raises(StageError, match=r"has no fashiongen_256_256_train\.h5; put fashiongen"):
        read(fashion(), root.parent)
