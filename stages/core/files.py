"""Files that are whole or not there, and the same bytes every time."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.core.errors import StageError

SCRATCH = "DARKROOM_SCRATCH"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path`, else it is removed.

    Works for a file and for a folder (which the caller finds made and empty when
    `path` has no suffix). An existing `path` stays untouched until the new one is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    _remove(temporary)
    if not path.suffix:
        temporary.mkdir()
    try:
        yield temporary
        _remove(path)
        temporary.rename(path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Sorted keys, shortest floats, one newline at the end; NaN is refused (ValueError)."""
    text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sync(path: Path) -> None:
    """Have the disk hold the file's bytes: a rename after this survives a power loss."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, pattern: str = "*") -> str:
    """sha256 over the relative names and bytes of the files below `folder` that match, in name order."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return digest.hexdigest()


def scratch(*parts: str) -> Path:
    """A folder for resumable state, outside every output, in the real project.

    DVC sets DVC_ROOT to the project even for `--temp` and queued experiments,
    whose own workspaces are deleted with all they hold. DARKROOM_SCRATCH is another place for it, where the project
    lies on a network's disk or a small one: there each project has a folder by its path.
    """
    root = Path(os.environ.get("DVC_ROOT", "."))
    elsewhere = os.environ.get(SCRATCH)
    if elsewhere:
        place = str(root.resolve())
        folder = Path(elsewhere, f"{root.resolve().name}-{hashlib.sha256(place.encode()).hexdigest()[:12]}", *parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    if not (root / ".dvc").is_dir():
        raise StageError(str(root.resolve()), "is no DVC project", "run in the project's root")
    folder = root.joinpath(".dvc", "tmp", "darkroom", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
