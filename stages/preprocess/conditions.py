"""Pictures that a ControlNet follows and a person made."""

from dataclasses import replace
from pathlib import Path

from stages.preprocess.buckets import Size
from stages.preprocess.given import find_given, folder_of, is_given
from stages.preprocess.params import PreprocessParams
from stages.preprocess.transform import Upright, open_picture

SHAPE = 0.03  # share by which aspects may differ: who makes conditions rounds their sides, often to multiples of 64

# Why a person's condition can't be used.
REASONS = {
    "missing": "missing",
    "two_files": "in two files, one of which should go",
    "unreadable": "no picture that can be read",
    "other_shape": "of another shape than the picture",
}


def open_given(
    params: PreprocessParams, conditions: Path, source: str, path: str, size: Size, least: int
) -> tuple[list[Upright], dict[str, str]]:
    """A person's conditions of a picture, in the order of their names in params, and for those it lacks the reasons.

    source, path, size: the picture's. A condition may be smaller or larger; it is taken to show the same, so from here
    on it has the picture's size.
    """
    found, reasons = [], {}
    for name in filter(is_given, params.conditions):
        files = find_given(folder_of(conditions, name), source, path)
        upright = open_picture(params, files[0].read_bytes(), least) if len(files) == 1 else None
        if upright is None:
            reasons[name] = "missing" if not files else "two_files" if len(files) > 1 else "unreadable"
        elif abs(upright.size[0] * size[1] / (upright.size[1] * size[0]) - 1) > SHAPE:
            reasons[name] = "other_shape"
        else:
            found.append(replace(upright, size=size))
    return found, reasons
