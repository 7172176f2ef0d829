"""FIGR-8: a table of unknown dialect, classes that differ in case, pictures left as they are."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from stages.collect.figr8 import class_of, table_of
from stages.collect.params import Figr8
from stages.core.errors import StageError
from tests.collect.reading import plant, read
from tests.pictures import drawing, encoded

FILES = ["Black Cat/11-200.png", "black cat/12-200.png", "yin_yang/13-200.png"]
ROWS: list[list[Any]] = [
    [1, "Black Cat", FILES[0], "O'Neil, Ann", "CC BY 3.0 US"],
    [1, "black cat", FILES[1], 'Bob "Bo"', "CC0"],
    [2, "yin_yang", FILES[2], "", ""],
]
HEADER = ["category_number", "category_name", "path", "artist", "license"]


def table(rows: list[list[Any]], delimiter: str, end: str = "\n") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    return text.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "figr8"
    shown = [drawing(0).convert("L"), drawing(1).convert("LA"), drawing(2).convert("1")]
    plant(root / "Data", {name: encoded(picture) for name, picture in zip(FILES, shown, strict=True)})
    return root


def figr(**knobs: Any) -> Figr8:
    return Figr8.model_validate({"kind": "figr8", **knobs})


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [True, False])
def test_every_dialect_of_the_table(root: Path, delimiter: str, header: bool) -> None:
    plant(root, {"data.csv": table([HEADER, *ROWS] if header else ROWS, delimiter, "\r\n" if header else "\n")})
    pairs, failures = read(figr(), root.parent)
    assert not failures
    assert list(pairs) == [f"Data/{name}" for name in FILES]
    assert [(pair.captions, pair.license, pair.attribution) for pair in pairs.values()] == [
        (["a pictogram of black cat"], "CC BY 3.0 US", "O'Neil, Ann"),
        (["a pictogram of black cat"], "CC0", 'Bob "Bo"'),
        (["a pictogram of yin yang"], None, None),
    ]
    assert [json.loads(pair.extra) for pair in pairs.values()] == [
        {"class": "black cat", "artist": "O'Neil, Ann"},
        {"class": "black cat", "artist": 'Bob "Bo"'},
        {"class": "yin yang"},
    ]
    for pair in pairs.values():
        assert pair.data == (root / pair.path).read_bytes()
        assert (pair.split, pair.group) == (None, None)


def test_columns_may_stand_in_another_order(root: Path) -> None:
    rows: list[list[Any]] = [
        ["License", "file", "Class", "id"],
        *([row[4], f"Data/{row[2]}", row[0], 9] for row in ROWS),
    ]
    plant(root, {"data.csv": "\ufeff" + table(rows, ";")})
    pairs, _ = read(figr(captions=["{caption}"], license="unknown"), root.parent)
    assert [(pair.captions, pair.license, pair.attribution) for pair in pairs.values()] == [
        (["black cat"], "CC BY 3.0 US", None),  # a class that is a number is not its name
        (["black cat"], "CC0", None),
        (["yin yang"], "unknown", None),
    ]


def test_without_the_table_folders_are_classes(root: Path) -> None:
    plant(root / "Data", {"notes.html": "x", ".hidden": "x"})
    (root / "Data" / "linked").symlink_to(root)
    pairs, failures = read(figr(), root.parent)
    assert {path: pair.captions for path, pair in pairs.items()} == {
        f"Data/{name}": [f"a pictogram of {kind}"]
        for name, kind in zip(FILES, ("black cat", "black cat", "yin yang"), strict=True)
    }
    assert failures == {"Data/linked": "linked_folder", "Data/notes.html": "unknown_kind"}


def test_what_is_missing_broken_or_too_much(root: Path) -> None:
    broken: list[list[Any]] = [["one", "cell"], [3, "gone", "gone/1-200.png"], [3, "up", "../../secret.png"], ROWS[0]]
    plant(root, {"data.csv": table([["", ""], *ROWS, *broken], ","), "Data/new/1-200.png": b"x"})
    plant(root.parent, {"secret.png": "secret"})
    pairs, failures = read(figr(), root.parent)
    assert list(pairs) == [f"Data/{name}" for name in FILES]
    assert failures == {
        "data.csv:1": "malformed_line",
        "data.csv:5": "malformed_line",
        "Data/gone/1-200.png": "missing_file",
        "Data/../../secret.png": "outside_folder",
        "data.csv:8": "listed_twice",
        "Data/new/1-200.png": "not_listed",
    }


def test_what_is_no_figr8_is_said(root: Path) -> None:
    plant(root, {"data.csv": "a,b\n1,2\n"})
    with pytest.raises(StageError, match=r"data\.csv: names no \.png; unpack FIGR-8 again"):
        read(figr(), root.parent)
    plant(root, {"data.csv": table(ROWS, ",") + '1,x,"' + "y" * 200_000 + '",z\n'})
    with pytest.raises(StageError, match=r"data\.csv: can't be read \(field larger than"):
        read(figr(), root.parent)
    (root / "data.csv").unlink()
    plant(root.parent, {"outside.csv": table(ROWS, ",")})
    (root / "data.csv").symlink_to(root.parent / "outside.csv")
    with pytest.raises(StageError, match=r"data\.csv: is a link that leaves the folder"):
        read(figr(), root.parent)
    (root / "Data").rename(root.parent / "Data")
    with pytest.raises(StageError, match=r"Data: is missing; unpack FIGR-8 there"):
        read(figr(), root.parent)


def test_a_long_table_is_told_from_its_beginning() -> None:
    rows = [[n, "it's", f"it's/{n}-200.png", "a; b", "CC0"] for n in range(5000)]
    told = table_of(table(rows, ",")[: 2**16], Path("data.csv"))
    assert (told.delimiter, told.header, told.columns) == (
        ",",
        False,
        {"path": 2, "class": 1, "artist": 3, "license": 4},
    )


@pytest.mark.parametrize(("name", "kind"), [("Cat", "cat"), (" ice__cream ", "ice cream"), ("Éclair", "éclair")])
def test_classes_have_one_name(name: str, kind: str) -> None:
    assert class_of(name) == kind
