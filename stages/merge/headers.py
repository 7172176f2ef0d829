"""safetensors headers: checked before a tensor is read, and written so that tensors can follow one by one.

Source: the format's specification in the README of huggingface/safetensors: eight bytes with the length of a JSON
object, the object, the tensors' bytes without gaps.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.core.errors import StageError

LONGEST = 100_000_000  # bytes of a header, as the specification has it

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Place:
    """Where a tensor's numbers lie. start: first byte in the file. transposed: rows and columns are exchanged there."""

    path: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def floating(self) -> bool:
        return self.dtype.is_floating_point


@dataclass(frozen=True)
class Header:
    """tensors: by key, in the file's order."""

    tensors: dict[str, Place]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Every tensor's place, after a check of each number in the header against the file.

    Raises StageError, which names the key, if the file is cut short, overlong or inconsistent.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(LONGEST, size - 8):
                raise _broken(path, f"its header can't have {length} bytes in a file of {size}")
            text = file.read(length)
    except OSError as error:
        raise StageError(str(path), f"can't be read ({error.strerror})", "check the file") from None
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header is no JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(entries, dict):
        raise _broken(path, "its header holds no names")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "its metadata are no words")
    places = {key: _place(path, key, entry, 8 + length) for key, entry in entries.items()}
    end = 8 + length
    ordered = sorted(places.items(), key=lambda item: (item[1].start, _bytes(item[1])))
    for key, place in ordered:
        if place.start != end:
            raise _broken(path, f"{key} begins at byte {place.start}, not at {end}")
        end += _bytes(place)
    if end != size:
        raise _broken(path, f"it has {size} bytes instead of {end}")
    return Header(dict(ordered), metadata)


def _place(path: Path, key: str, entry: Any, data: int) -> Place:
    """Raises StageError if the entry isn't of the form {dtype, shape, data_offsets}."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"{key} isn't described by dtype, shape and data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise _broken(path, f"{key} is of the unknown type {kind!r}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
            raise _broken(path, f"{key} has the numbers {numbers!r}")
    place = Place(path, data + offsets[0] if offsets else 0, DTYPES[kind], tuple(shape))
    if len(offsets) != 2 or offsets[1] - offsets[0] != _bytes(place):
        raise _broken(path, f"{key} of shape {tuple(shape)} can't lie at {offsets}")
    return place


def _bytes(place: Place) -> int:
    return count(place.shape) * place.dtype.itemsize


def count(shape: Iterable[int]) -> int:
    """Numbers in a tensor of this shape; 1 for no dimension."""
    numbers = 1
    for side in shape:
        numbers *= side
    return numbers


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _broken(path: Path, what: str) -> StageError:
    return StageError(str(path), f"is no whole safetensors file: {what}", "fetch or make it again")


def header_bytes(
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    """The beginning of a file, and the byte at which each tensor starts.

    Tensors lie in the order of the library: largest numbers first, then by key; the data starts at a multiple of 8.
    """
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset, starts = 0, {}
    for key in sorted(tensors, key=lambda key: (-tensors[key][0].itemsize, key)):
        dtype, shape = tensors[key]
        starts[key], size = offset, count(shape) * dtype.itemsize
        entries[key] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {key: first + start for key, start in starts.items()}


class Files:
    """Open files by path, to read bytes at a place; several threads at once may."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def open(self, paths: Iterable[Path]) -> None:
        """Open them all, before threads read."""
        for path in paths:
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY)

    def rows(self, place: Place, start: int, stop: int) -> torch.Tensor:
        """Some rows of a tensor, (stop - start, ...) as it is stored; a tensor without dimensions is one row.

        Raises StageError if the file ends early.
        """
        shape = place.shape or (1,)
        if place.transposed:
            whole = self.rows(Place(place.path, place.start, place.dtype, (shape[1], shape[0])), 0, shape[1])
            return whole.T[start:stop].contiguous()
        row = count(shape[1:]) * place.dtype.itemsize
        data = torch.empty((stop - start) * row, dtype=torch.uint8)
        if data.numel():
            array, done = data.numpy().data, 0
            while done < len(array):  # the system may give less than is asked for
                got = os.preadv(self._open[place.path], [array[done:]], place.start + start * row + done)
                if not got:
                    raise StageError(str(place.path), "ended while it was read", "nothing may write it meanwhile")
                done += got
        return data.view(place.dtype).reshape(stop - start, *shape[1:])
