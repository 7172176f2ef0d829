"""Everything there is to draw: the section's prompts, then the lines of its file in data/prompts."""

import difflib
import json
from pathlib import Path

from pydantic import ValidationError

from stages.core.errors import StageError
from stages.sample.params import Picture, SampleParams


def pictures_of(params: SampleParams, folder: Path) -> list[Picture]:
    """In order. Raises StageError naming file and line, or a picture that isn't in the folder."""
    found = [(f"sample.prompts.{number}", picture) for number, picture in enumerate(params.prompts)]
    if params.file:
        found += read_lines(folder / params.file)
    for where, picture in found:
        for name in picture.files:
            if not (folder / name).is_file():
                raise StageError(where, f"the picture {folder / name} is missing", "put it there, or `dvc pull`")
    return [picture for _, picture in found]


def read_lines(file: Path) -> list[tuple[str, Picture]]:
    """Each line's place and picture; blank lines are none."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise StageError(str(file), "is no UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise StageError("sample.file", f"{file} can't be read ({error.strerror})", "put it there") from None
    lines = [(f"{file}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise StageError(str(file), "holds no prompt", "write one a line, or leave sample.file out")
    if file.suffix == ".txt":
        return [(where, Picture(prompt=line.strip())) for where, line in lines]
    return [(where, _parsed(where, line)) for where, line in lines]


def _parsed(where: str, line: str) -> Picture:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise StageError(where, f"is no JSON ({error.msg})", "mend that line") from None
    if isinstance(values, str):
        return Picture(prompt=values)
    if not isinstance(values, dict):
        raise StageError(where, "is neither an object nor a text", 'write {"prompt": "..."}')
    try:
        return Picture.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = list(Picture.model_fields)
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise StageError(where, f"unknown key {key}", advice) from None
        said = fault["msg"].removeprefix("Value error, ")
        what = f"{key} is {fault['input']!r}, but {said[0].lower()}{said[1:]}" if key else said
        raise StageError(where, what, "see docs/params.md, sample.prompts") from None
