"""Stanford Dogs (Khosla et al. 2011): a folder a breed, MATLAB lists of the split, Pascal VOC annotations.

Images/n02085620-Chihuahua/n02085620_199.jpg, Annotation/n02085620-Chihuahua/n02085620_199 (XML, without an
extension), train_list.mat and test_list.mat (variable `file_list`: paths below Images).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from stages.collect.files import PICTURES, first_of, inside, name_of, read_file, refuse_no_file, unlisted, walk
from stages.collect.found import Found
from stages.collect.params import StanfordDogs
from stages.core.errors import StageError
from stages.core.pairs import Failure

LISTS = {"train_list.mat": "train", "test_list.mat": "validation"}
EDGES = ("xmin", "ymin", "xmax", "ymax")
WHOLE = re.compile(r"\s*\d{1,9}\s*")


def read_stanford_dogs(source: StanfordDogs, sources: Path) -> Iterator[Found | Failure]:
    """Every picture in order of paths; with the lists, these decide which there are.

    The breed is caption and {class}. `objects` says how many dogs the annotation has, `boxes` where (left, top,
    right, bottom, px); one that can't be read is a failure `malformed_annotation`, its picture is kept.
    Raises StageError if the pictures or one of the two lists are missing.
    """
    root = source.root(sources)
    images = first_of(root, "Images", "images/Images")
    if not images or not inside(root, images):
        raise StageError(str(root / "Images"), "is missing", "unpack images.tar there")
    notes = first_of(root, "Annotation", "annotations/Annotation")
    splits = {name_of(root, images / file): split for file, split in _lists(root).items()}
    on_disk = (name_of(root, path) for path in walk(images) if path.suffix.lower() in PICTURES)
    for name in sorted(splits) if splits else on_disk:
        path = root / name
        data = read_file(source.name, root, path)
        if isinstance(data, Failure):
            yield data
            continue
        breed = breed_of(path.parent.name)
        extra: dict[str, Any] = {"class": breed}
        if notes and (note := notes / path.parent.name / path.stem).is_file():
            try:
                boxes = boxes_of(note.read_bytes() if inside(root, note) else b"")
                extra.update(objects=len(boxes), boxes=boxes)
            except (ValueError, expat.ExpatError, OSError) as error:
                yield Failure(source.name, name_of(root, note), "malformed_annotation", str(error))
        yield Found(data, name, [breed], extra, split=splits.get(name) if source.official_split else None)
    if splits:
        yield from unlisted(source.name, root, images, splits)
    else:
        others = (name_of(root, path) for path in walk(images) if path.suffix.lower() not in PICTURES)
        yield from (Failure(source.name, name, "unknown_kind") for name in others)


def breed_of(folder: str) -> str:
    """n02089973-English_foxhound is an English foxhound; n02086240-Shih-Tzu a Shih-Tzu."""
    number, dash, name = folder.partition("-")
    return (name if dash else number).replace("_", " ")


def _lists(root: Path) -> dict[str, str]:
    """The split of each listed file; none if there are no lists. Raises StageError if there is one, or a broken one."""
    places = {first_of(root, name, f"lists/{name}"): split for name, split in LISTS.items()}
    if not any(places):
        return {}
    if None in places:
        raise StageError(str(root), f"has only one of {' and '.join(LISTS)}", "unpack lists.tar there")
    return {file: split for path, split in places.items() if path for file in file_list(root, path)}


def file_list(root: Path, path: Path) -> list[str]:
    """The names in a MATLAB list, a column of one string each. Raises StageError if it is none."""
    from scipy.io import loadmat  # here: only this source needs it

    refuse_no_file(root, path, "unpack lists.tar again")
    try:
        cells = loadmat(path, variable_names=["file_list"])["file_list"].ravel()
        return [str(cell.item()) for cell in cells]
    except Exception as error:  # noqa: BLE001 - its reader raises whatever it likes on broken files
        said = (str(error).splitlines() or [""])[0]
        raise StageError(str(path), f"is no list of files ({said})", "unpack lists.tar again") from None


def boxes_of(xml: bytes) -> list[list[int]]:
    """xmin, ymin, xmax, ymax of every object in a Pascal VOC annotation, px.

    Raises ValueError or ExpatError if it is none. A document type, which could declare entities, is refused.
    """
    boxes: list[dict[str, int]] = []
    open_tags: list[str] = []
    text: list[str] = []

    def start(tag: str, _: dict[str, str]) -> None:
        open_tags.append(tag)
        text.clear()
        if tag == "object":
            boxes.append({})

    def end(tag: str) -> None:
        open_tags.pop()
        if tag in EDGES and open_tags[-2:] == ["object", "bndbox"]:
            if not WHOLE.fullmatch("".join(text)):
                raise ValueError(f"{tag} is no number")
            boxes[-1][tag] = int("".join(text))

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text.append
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(xml, True)
    if any(set(box) != set(EDGES) for box in boxes):
        raise ValueError("an object has no whole box")
    return [[box[edge] for edge in EDGES] for box in boxes]
