"""Fashion-Gen (Rostamzadeh et al. 2018): fashiongen_256_256_train.h5 and fashiongen_256_256_validation.h5.

HDF5 with a data set a field, a row a picture: input_image (N, height, width, 3) uint8, input_productID,
input_description and other texts as bytes, (N, 1) or (N,).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

from PIL import Image

from stages.collect.files import name_of, png_of, refuse_no_file
from stages.collect.found import Found
from stages.collect.params import FashionGen
from stages.core.engine import worker_count
from stages.core.errors import StageError
from stages.core.pairs import Failure

SPLITS = {"train": "train", "validation": "validation"}
PICTURES, PRODUCT, DESCRIPTION = "input_image", "input_productID", "input_description"
FIELDS = {
    "category": "input_category",
    "subcategory": "input_subcategory",
    "gender": "input_gender",
    "pose": "input_pose",
    "name": "input_name",
}
ROWS, BLOCK = 64, 2**26  # in memory at once: rows at most, bytes of pixels about
LONGEST, LONGEST_TEXT, LARGEST_CHUNK = 4096, 2**16, 2**28  # px, bytes, bytes: a file says what memory it takes
DO = "fetch it again"


def read_fashion_gen(source: FashionGen, sources: Path) -> Iterator[Found | Failure]:
    """Every row of the training file, then of the validation file, named FILE:ROW; pictures become PNGs.

    A product is a group, also across the files. Text that is no UTF-8 is read as code page 437, and {decoded_as}
    says so. A row that can't be read, such as one in a broken chunk, is a failure `unreadable_row`. The split is the
    files' if both are there. Only data sets that lie in the file itself are read: links, virtual and external ones
    could name any file. Raises StageError if there is no file, or one isn't as above.
    """
    root = source.root(sources)
    files = [path for split in SPLITS for path in sorted(root.glob(f"fashiongen_*_{split}.h5"))]
    if not files:
        raise StageError(str(root), "has no fashiongen_256_256_train.h5", source.advice)
    both = {path.stem.rpartition("_")[2] for path in files} == set(SPLITS)
    for path in files:
        split = SPLITS[path.stem.rpartition("_")[2]] if both and source.official_split else None
        yield from _file(source, root, path, split)


def _file(source: FashionGen, root: Path, path: Path, split: str | None) -> Iterator[Found | Failure]:
    import h5py  # here: only this source needs it

    refuse_no_file(root, path, DO)
    foreign = 0
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StageError(str(path), f"is no HDF5 file ({str(error).splitlines()[0]})", DO) from None
    with file, ThreadPoolExecutor(worker_count()) as pool:
        columns = columns_of(file, path)
        count, *shape = columns[PICTURES].shape
        rows = min(ROWS, max(1, BLOCK // prod(shape)))
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            block = {name: values_of(column, start, stop) for name, column in columns.items()}
            pictures = pool.map(_png, block.pop(PICTURES))  # mostly outside of Python's lock
            for row, data in enumerate(pictures):
                cells = {name: values[row] for name, values in block.items()}
                found = _row(source, f"{name_of(root, path)}:{start + row}", data, cells, split)
                foreign += isinstance(found, Found) and "decoded_as" in found.extra
                yield found
    if foreign:
        print(f"{source.name}: {foreign} rows of {path.name} are no UTF-8, and were read as code page 437")


def _row(source: FashionGen, name: str, data: bytes | None, row: dict[str, Any], split: str | None) -> Found | Failure:
    if data is None or row[PRODUCT] is None or row[DESCRIPTION] is None:
        return Failure(source.name, name, "unreadable_row")
    texts = {key: text_of(value) for key, value in row.items() if value is not None}
    product = texts.pop(PRODUCT)[0]
    description = texts.pop(DESCRIPTION)
    extra = {"product": product, **{key: texts[field][0] for key, field in FIELDS.items() if field in texts}}
    if not all(is_utf8 for _, is_utf8 in (description, *texts.values())):
        extra["decoded_as"] = "cp437"
    return Found(data, name, [description[0]], extra, group=f"{source.name}:{product}", split=split)


def text_of(value: Any) -> tuple[str, bool]:
    """A cell as text without blanks around, and whether it was UTF-8 (or a number); else it is code page 437."""
    if not isinstance(value, bytes):
        return str(value).strip(), True
    try:
        return value.decode("utf-8").strip(), True
    except UnicodeDecodeError:
        return value.decode("cp437").strip(), False


def _png(pixels: Any) -> bytes | None:
    return None if pixels is None else png_of(Image.fromarray(pixels))


def columns_of(file: Any, path: Path) -> dict[str, Any]:
    """The data sets that are read, by name. Raises StageError if one is missing, lies elsewhere or has an odd shape."""
    optional = [name for name in FIELDS.values() if name in file]
    columns = {name: _own(file, path, name) for name in (PICTURES, PRODUCT, DESCRIPTION, *optional)}
    images = columns[PICTURES]
    sides = images.shape[1:3]
    if (
        images.ndim != 4
        or images.shape[3] != 3
        or images.dtype != "uint8"
        or not 0 < min(sides) <= max(sides) <= LONGEST
    ):
        raise StageError(str(path), f"{PICTURES} is {images.dtype}{list(images.shape)}", DO)
    for name, column in columns.items():
        if name != PICTURES and column.shape not in ((len(images),), (len(images), 1)):
            raise StageError(str(path), f"{name} has the shape {list(column.shape)}, {len(images)} pictures", DO)
    return columns


def _own(file: Any, path: Path, name: str) -> Any:
    """A data set that lies in the file itself, of numbers or texts, in chunks that fit the memory."""
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        raise StageError(str(path), f"has no {name}", DO)
    column = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(column, h5py.Dataset) or column.is_virtual or column.external:
        raise StageError(str(path), f"{name} is no data set of its own", DO)
    size, text = column.dtype.itemsize, h5py.check_string_dtype(column.dtype)
    chunk = size * prod(column.chunks or ())
    if not (text or column.dtype.kind in "iuf") or size > LONGEST_TEXT or chunk > LARGEST_CHUNK:
        raise StageError(str(path), f"{name} is {column.dtype} in chunks of {chunk} bytes", DO)
    return column


def values_of(column: Any, start: int, stop: int) -> list[Any]:
    """The rows as arrays or, of one value each, as bytes or numbers; None for each that can't be read."""
    try:
        block = column[start:stop]
    except OSError:
        if stop - start == 1:
            return [None]
        return [value for row in range(start, stop) for value in values_of(column, row, row + 1)]
    return list(block if block.ndim == 4 else block.reshape(-1).tolist())
