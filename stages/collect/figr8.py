"""FIGR-8 (Clouâtre and Demers 2019): Data/<class>/<id>-200.png, and data.csv beside Data.

data.csv: class number, class name, path below Data, artist, licence. Copies of it differ in delimiter and in having a
line of names, so both are found out: the path is the cell that ends in .png.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.collect.files import PICTURES, first_of, inside, name_of, read_file, refuse_no_file, unlisted, walk
from stages.collect.found import Found
from stages.collect.params import Figr8
from stages.core.errors import StageError
from stages.core.pairs import Failure

NAMES = {
    "class": ("category name", "class name", "category", "class", "name"),
    "artist": ("artist", "author", "creator"),
    "license": ("license", "licence"),
}
PLACES = {"class": -1, "artist": 1, "license": 2}  # beside the path, where no line of names says more
SAMPLE = 2**16  # characters, from which the delimiter is told
DO = "unpack FIGR-8 again, or remove it: the folders are then the classes"


@dataclass(frozen=True)
class Table:
    """How data.csv is written. columns: of path, and of class, artist and license where it has them."""

    delimiter: str
    header: bool
    columns: dict[str, int]


def read_figr8(source: Figr8, sources: Path) -> Iterator[Found | Failure]:
    """Every picture of data.csv in its order; then files in Data that it doesn't name.

    Without data.csv, every picture in order of paths. Classes are in small letters, so that Cat and cat are one; the
    pictures are left as they are, grey ones and transparent ones too. The artist is the attribution. Held in memory:
    the names of the files, 200 MB of the whole set. Raises StageError if Data is missing or data.csv no table.
    """
    root = source.root(sources)
    folder = first_of(root, "Data", "FIGR-8/Data")
    if not folder or not inside(root, folder):
        raise StageError(str(root / "Data"), "is missing", source.advice)
    listing = first_of(folder.parent, "data.csv", "Data/data.csv")
    if listing:
        yield from _listed(source, root, folder, listing)
        return
    for path in walk(folder):
        if path.suffix.lower() in PICTURES:
            yield _found(source, root, path, {})
        elif path.suffix.lower() not in (".txt", ".dvc"):
            yield Failure(source.name, name_of(root, path), "linked_folder" if path.is_dir() else "unknown_kind")


def _listed(source: Figr8, root: Path, folder: Path, listing: Path) -> Iterator[Found | Failure]:
    refuse_no_file(root, listing, DO)
    listed = {name_of(root, listing)}
    try:
        with listing.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            table = table_of(file.read(SAMPLE), listing)
            file.seek(0)
            lines = csv.reader(file, delimiter=table.delimiter)
            for number, cells in enumerate(lines, 1):
                if not cells or (number == 1 and table.header):
                    continue
                where = f"{name_of(root, listing)}:{lines.line_num}"
                told = {key: cells[at].strip() for key, at in table.columns.items() if 0 <= at < len(cells)}
                file_name = told.pop("path", "").replace("\\", "/").removeprefix("Data/")
                path = folder / file_name
                name = name_of(root, path)
                if not file_name.lower().endswith(".png"):
                    yield Failure(source.name, where, "malformed_line", table.delimiter.join(cells)[:200])
                elif name in listed:
                    yield Failure(source.name, where, "listed_twice", name)
                else:
                    listed.add(name)
                    yield _found(source, root, path, told)
    except (OSError, csv.Error) as error:
        raise StageError(str(listing), f"can't be read ({error})", DO) from None
    yield from unlisted(source.name, root, folder, listed)


def _found(source: Figr8, root: Path, path: Path, told: dict[str, str]) -> Found | Failure:
    data = read_file(source.name, root, path)
    if isinstance(data, Failure):
        return data
    named, artist = told.get("class", ""), told.get("artist") or None
    kind = class_of(path.parent.name if not named or named.isdigit() else named)
    extra = {"class": kind, **({"artist": artist} if artist else {})}
    return Found(data, name_of(root, path), [kind], extra, license=told.get("license") or None, attribution=artist)


def class_of(name: str) -> str:
    """One name for folders that differ in case, in _ for blanks, and in blanks around it."""
    return " ".join(name.replace("_", " ").lower().split())


def table_of(sample: str, path: Path) -> Table:
    """How the table is written, from its first lines. Raises StageError if none of them names a .png."""
    lines = sample.splitlines()[:-1] if len(sample) == SAMPLE else sample.splitlines()
    try:
        delimiter = csv.Sniffer().sniff("\n".join(lines[:99]), delimiters=",;\t|").delimiter
    except csv.Error:
        delimiter = max(",;\t|", key=sample.count)
    rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    shown = next((row for row in rows if _path_at(row) is not None), None)
    if shown is None:
        raise StageError(str(path), "names no .png", DO)
    at = _path_at(shown) or 0
    columns = {key: at + step for key, step in PLACES.items()}
    names = [cell.strip().lower().replace("_", " ") for cell in rows[0]]
    header = _path_at(rows[0]) is None and any(_first(wanted, names) for wanted in NAMES.values())
    if header:
        columns = {key: names.index(found) for key in NAMES if (found := _first(NAMES[key], names))}
    return Table(delimiter, header, {"path": at, **columns})


def _path_at(row: list[str]) -> int | None:
    return next((at for at, cell in enumerate(row) if cell.strip().lower().endswith(".png")), None)


def _first(wanted: tuple[str, ...], names: list[str]) -> str | None:
    return next((name for name in wanted if name in names), None)
