"""Conditions that a person made: pictures below data/conditions/NAME, found by the names of the pictures they are of.

`data/conditions/depth/mine/cats/1.png` belongs to `cats/1.jpg` of the source `mine`.
"""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from stages.core.errors import StageError

FORM = r"^folder:[\w-][\w.-]*$"
# What can be opened, and what pictures are made from; no file system's mind about .PNG matters.
OPENED = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
ENDINGS = (*OPENED, ".svg")


def is_given(name: str) -> bool:
    """Whether a condition's name in params is that of a folder."""
    return name.startswith("folder:")


def folder_of(conditions: Path, name: str) -> Path:
    """The folder that `folder:NAME` means."""
    return conditions / name.partition(":")[2]


def refuse_missing(conditions: Path, names: Iterable[str], sources: Iterable[str]) -> None:
    """Raises StageError if a folder is missing, or has none for any source."""
    known = list(sources)
    for name in filter(is_given, names):
        folder = folder_of(conditions, name)
        if not folder.is_dir():
            raise StageError(
                "preprocess.conditions", f"the folder {folder} is missing", "put your pictures there, or `dvc pull`"
            )
        if not any((folder / source).is_dir() for source in known):
            raise StageError(
                "preprocess.conditions",
                f"{folder} has no folder named for a source ({', '.join(known)})",
                f"the condition of cats/1.jpg in the source {known[0]} is {folder / known[0]}/cats/1.png",
            )


def find_given(folder: Path, source: str, path: str) -> list[Path]:
    """The files that may be a picture's condition: none, one, or several that differ by ending alone.

    path: the picture's name in its source; it may be anything, so nothing outside the folder is looked at.
    """
    name = PurePosixPath(path)
    if name.suffix.lower() in ENDINGS:
        name = name.with_suffix("")
    if name.is_absolute() or ".." in name.parts or not name.name:
        return []
    stem = folder / source / name
    found: dict[tuple[int, int], Path] = {}
    for ending in OPENED:
        for written in (ending, ending.upper()):
            file = f"{stem}{written}"
            if os.path.isfile(file):  # noqa: PTH113 - unlike Path.is_file it says no to names that no file can have
                at = os.stat(file)  # noqa: PTH116 - as above
                found.setdefault((at.st_dev, at.st_ino), Path(file))
    return list(found.values())
