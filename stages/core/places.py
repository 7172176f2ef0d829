"""Where a model that params name is: a folder that a person put in models/imported, or a pinned hub id."""

from pathlib import Path

from stages.core.errors import StageError

FORM = r"folder:[\w-][\w.-]*|hub:[\w.-]+/[\w.-]+@[0-9a-f]{40}"
ADVICE = "folder:NAME in models/imported, or hub:OWNER/NAME@COMMIT (of 40 hex digits)"


def place_of(model: str, imported: Path, knob: str) -> tuple[str, str | None]:
    """Folder or id, and the id's commit, of what has the form FORM.

    Raises StageError, which names the knob, if the folder is missing.
    """
    kind, _, name = model.partition(":")
    if kind == "hub":
        name, _, commit = name.partition("@")
        return name, commit
    folder = imported / name
    if not folder.is_dir():
        raise StageError(knob, f"the folder {folder} is missing", "put the model there")
    return str(folder), None
