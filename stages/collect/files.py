"""Files of a source: in which order they lie, how they are read, and which of them no list names."""

import io
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from stages.core.errors import StageError
from stages.core.pairs import Failure

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}


def walk(folder: Path) -> Iterator[Path]:
    """Files, and links to folders, in order of relative paths, hidden ones left out; memory holds a folder's names."""
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk(folder / entry.name)
        else:
            yield folder / entry.name


def inside(root: Path, path: Path) -> bool:
    """Whether `path`, its links followed, lies below `root`; links in a circle lie nowhere."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except RuntimeError:
        return False


def name_of(root: Path, path: Path) -> str:
    """A file's name in every table: relative to its source's folder."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def read_file(source: str, root: Path, path: Path) -> bytes | Failure:
    """The bytes of a file below `root`; a failure `outside_folder`, `missing_file` or `unreadable_file`.

    path: as a list names it, so it may be anything.
    """
    name = name_of(root, path)
    try:
        if ".." in Path(name).parts or not inside(root, path):
            return Failure(source, name, "outside_folder", "its name, or a link, leaves the folder")
        if not path.exists():
            return Failure(source, name, "missing_file")
        if not path.is_file():
            return Failure(source, name, "unreadable_file", "no file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # no permission; a NUL in its name
        return Failure(source, name, "unreadable_file", getattr(error, "strerror", None) or str(error))


def first_of(root: Path, *names: str) -> Path | None:
    """The first of these that is there, the root itself for "."."""
    return next((root / name for name in names if (root / name).exists()), None)


def captions_of(root: Path, path: Path) -> list[str]:
    """A file's lines that say something, each a caption; none without the file.

    U+FFFD is dropped: published captions hold it where they lost a letter.
    """
    if not path.is_file() or not inside(root, path):
        return []
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").replace("\ufffd", "").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip()]


def unlisted(source: str, root: Path, folder: Path | None, listed: Collection[str]) -> Iterator[Failure]:
    """A failure for each file in `folder` that no list names: `not_listed`, or `linked_folder`; texts are left alone.

    listed: names relative to `root`.
    """
    for path in walk(folder) if folder else ():
        name = name_of(root, path)
        if path.is_dir():
            yield Failure(source, name, "linked_folder", "links to folders are not followed")
        elif name not in listed and path.suffix.lower() not in (".txt", ".dvc"):
            yield Failure(source, name, "not_listed", "the data set's own list doesn't name it")


def refuse_no_file(root: Path, path: Path, do: str) -> None:
    """Raises StageError if a list is missing, no file or a link that leaves the folder."""
    if not path.exists():
        raise StageError(str(path), "is missing", do)
    if not inside(root, path):
        raise StageError(str(path), "is a link that leaves the folder", "copy the file")
    if not path.is_file():
        raise StageError(str(path), "is no file", do)


def read_text(root: Path, path: Path, do: str) -> str:
    """A list's text, line ends as \\n; what is no UTF-8 is U+FFFD. Raises StageError if it can't be read."""
    refuse_no_file(root, path, do)
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise StageError(str(path), f"can't be read ({error.strerror})", do) from None


@dataclass
class Lists:
    """Reads the text lists of a data set: a line is a name and what is said of it.

    failures: `malformed_line` and `listed_twice`, named FILE:LINE.
    """

    source: str
    root: Path
    do: str
    failures: list[Failure] = field(default_factory=list)

    def read(self, path: Path, pattern: str, skip: int = 0) -> dict[str, tuple[str, ...]]:
        """The groups of `pattern`, which each whole line after the first `skip` ones has to match, by the first group.

        Raises StageError if the list is missing or no line matches.
        """
        rows: dict[str, tuple[str, ...]] = {}
        shape = re.compile(pattern)
        for number, line in enumerate(read_text(self.root, path, self.do).split("\n"), 1):
            if number <= skip or not line.strip():
                continue
            found = shape.fullmatch(line.strip())
            if found is None or found[1] in rows:
                code = "listed_twice" if found else "malformed_line"
                self.failures.append(Failure(self.source, f"{name_of(self.root, path)}:{number}", code, line[:200]))
            else:
                rows[found[1]] = found.groups()[1:]
        if not rows:
            raise StageError(str(path), "has no line as the data set's own list has them", self.do)
        return rows


def png_of(image: Image.Image) -> bytes:
    """A picture as PNG, lossless; the same bytes each time."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)  # a quarter of the time of Pillow's 6, a tenth larger
    return buffer.getvalue()
