"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011), with the captions of Reed et al. 2016 if they are there.

CUB_200_2011/images.txt and its neighbours: a line `ID VALUE`, IDs from 1. Captions lie in text_c10 or text, a
caption a line, in a file a picture: text_c10/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.txt.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.collect.files import Lists, captions_of, first_of, name_of, png_of, read_file, unlisted
from stages.collect.found import Found
from stages.collect.params import Cub200
from stages.core.pairs import Failure
from stages.core.pictures import SHOWN, decode

NUMBER = r"(\d+(?:\.\d+)?)"
MARGIN = 1.5  # of the box's longer side: what StackGAN (Zhang et al. 2017) and its successors show
MOST_PIXELS = 89_478_485  # as in inspect; only of pictures that are cropped
WHITE = (255, 255, 255)


def read_cub200(source: Cub200, sources: Path) -> Iterator[Found | Failure]:
    """Every picture of images.txt in its order; then lines that can't be read and files that it doesn't name.

    Test pictures are validation. With `crop`, one without a box or that can't be decoded is a failure.
    Raises StageError if one of the lists is missing.
    """
    root = source.root(sources)
    base = first_of(root, "CUB_200_2011", ".") or root
    lists = Lists(source.name, root, "unpack CUB_200_2011.tgz again")
    images = lists.read(base / "images.txt", r"(\d+)\s+(\S.*)")
    classes = lists.read(base / "classes.txt", r"(\d+)\s+(\S.*)")
    labels = lists.read(base / "image_class_labels.txt", r"(\d+)\s+(\d+)")
    splits = lists.read(base / "train_test_split.txt", r"(\d+)\s+([01])") if source.official_split else {}
    boxes = lists.read(base / "bounding_boxes.txt", rf"(\d+)\s+{' '.join([NUMBER] * 4)}") if source.crop else {}
    texts = first_of(root, "text_c10", "text", "CUB_200_2011/text_c10", "CUB_200_2011/text", "cvpr2016_cub/text_c10")
    listed: set[str] = set()
    for number, (file,) in images.items():
        path = base / "images" / file
        name = name_of(root, path)
        if name in listed:
            yield Failure(source.name, f"{name_of(root, base / 'images.txt')}, id {number}", "listed_twice", file)
            continue
        listed.add(name)
        data = read_file(source.name, root, path)
        label, box = labels.get(number, ("",))[0], boxes.get(number)
        extra: dict[str, Any] = {"class": bird(classes[label][0])} if label in classes else {}
        if source.crop and isinstance(data, bytes):
            data, extra["crop"] = cropped(source.name, name, data, tuple(map(float, box or ())))
        if isinstance(data, Failure):
            yield data
            continue
        said = captions_of(root, texts / Path(file).with_suffix(".txt")) if texts else []
        split = {"0": "validation", "1": "train"}.get(splits.get(number, ("",))[0])
        yield Found(data, name, said, extra, split=split)
    yield from lists.failures
    yield from unlisted(source.name, root, first_of(base, "images"), listed)


def bird(folder: str) -> str:
    """001.Black_footed_Albatross is a Black footed Albatross."""
    number, dot, name = folder.partition(".")
    return (name if dot and number.isdigit() else folder).replace("_", " ")


def cropped(source: str, name: str, data: bytes, box: tuple[float, ...]) -> tuple[bytes | Failure, list[int]]:
    """The square of MARGIN times the longer side around the middle of box (left, top, width, height), px, as PNG.

    What of the square lies outside the picture is cut away: the second value, left, top, right and bottom in px.
    """
    if not box:
        return Failure(source, name, "no_box"), []
    picture = decode(data, WHITE, MOST_PIXELS)
    if picture.image is None or picture.code not in SHOWN:
        return Failure(source, name, picture.code), []
    left, top, width, height = box
    x, y, half = left + width / 2, top + height / 2, MARGIN * max(width, height) / 2
    edges = (max(x - half, 0), max(y - half, 0), min(x + half, picture.width), min(y + half, picture.height))
    x0, y0, x1, y1 = map(round, edges)
    if x1 <= x0 or y1 <= y0:
        return Failure(source, name, "no_box", "it lies outside the picture"), []
    return png_of(picture.image.crop((x0, y0, x1, y1))), [x0, y0, x1, y1]
