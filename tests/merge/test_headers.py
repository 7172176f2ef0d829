"""safetensors headers: what is whole is read, what is not is refused in one line before anything is written."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from stages.core.errors import StageError
from stages.merge.headers import DTYPES, Files, Header, header_bytes, read_header
from tests.merge.models import Kitchen, near, random_tensors

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor([1, 2], dtype=torch.int64),
    "c": torch.randn(3).half(),
    "d": torch.zeros(0, 4),
    "e": torch.tensor(2.5, dtype=torch.bfloat16),
    "ü": torch.tensor([True, False, True]),
}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, metadata={"one": "1", "two": "zwei"})
    header = read_header(path)
    assert header.metadata == {"one": "1", "two": "zwei"}
    assert header.tensors.keys() == TENSORS.keys()
    with Files() as files:
        files.open([path])
        for key, tensor in TENSORS.items():
            place = header.tensors[key]
            rows = files.rows(place, 0, (place.shape or (1,))[0])
            assert torch.equal(rows.reshape(tensor.shape), tensor)
            assert place.shape == tuple(tensor.shape)


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    begin, starts = header_bytes({k: (t.dtype, tuple(t.shape)) for k, t in TENSORS.items()}, {"b": "2", "a": "ä"})
    data = bytearray(begin) + bytearray(sum(t.nbytes for t in TENSORS.values()))
    for key, tensor in TENSORS.items():
        raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        data[starts[key] : starts[key] + len(raw)] = raw
    path.write_bytes(data)
    assert all(torch.equal(tensor, TENSORS[key]) for key, tensor in load_file(path).items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"a": "ä", "b": "2"}
    assert (len(begin)) % 8 == 0
    assert read_header(path).tensors.keys() == TENSORS.keys()


def test_rows(tmp_path: Path) -> None:
    path, tensor = tmp_path / "x.safetensors", torch.randn(7, 3, 2)
    save_file({"x": tensor}, path)
    with Files() as files:
        files.open([path])
        assert torch.equal(files.rows(read_header(path).tensors["x"], 2, 5), tensor[2:5])


def with_header(whole: bytes, header: Any) -> bytes:
    """The file with another header before the same data."""
    data = whole[8 + int.from_bytes(whole[:8], "little") :]
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def mutations(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are not what they say, each in its own way."""
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    draws = random.Random(0)
    yield "empty", b""
    for cut in (
        1,
        7,
        8,
        9,
        8 + size // 2,
        8 + size - 1,
        8 + size,
        len(whole) - 1,
        *draws.sample(range(len(whole)), 40),
    ):
        yield f"cut at {cut}", whole[:cut]
    for more in (1, 8, 4096):
        yield f"{more} more", whole + bytes(more)
    for length in (0, 1, size - 1, size + 1, size + 8, len(whole), 2**31, 2**63, 2**64 - 1):
        yield f"length {length}", length.to_bytes(8, "little") + whole[8:]
    for text in (b"", b"{}", b"[]", b"null", b"7", b"\xff\xfe", b"{" * 5000, b'{"a": NaN}', b'{"x":{}}', b"{'a': 1}"):
        yield f"header {text[:9]!r}", with_header(whole, text)
    yield (
        "a name twice",
        with_header(
            whole,
            whole[8 : 8 + size].rstrip()[:-1]
            + b',"zz":'
            + json.dumps(next(v for k, v in header.items() if k != "__metadata__")).encode()
            + b"}",
        ),
    )
    yield "metadata of numbers", with_header(whole, header | {"__metadata__": {"a": 1}})
    yield "metadata in a list", with_header(whole, header | {"__metadata__": ["a"]})
    keys = [key for key in header if key != "__metadata__"]
    for number in range(120):
        changed, key = copy.deepcopy(header), draws.choice(keys)
        entry, what = changed[key], number % 12
        numbers = entry["shape"] if what % 2 else entry["data_offsets"]
        place = draws.randrange(len(numbers))
        match what:
            case 0 | 1:
                numbers[place] += draws.choice([1, 8, 2**20, 2**62])
            case 2 | 3:
                numbers[place] = -numbers[place] - 1
            case 4 | 5:
                numbers[place] = draws.choice([1.0, "1", None, True, [], 1e300])
            case 6:
                entry["dtype"] = draws.choice(["F99", "", 7, None, "f16", "I64" if entry["dtype"] != "I64" else "I8"])
            case 7:
                entry["shape"] = [*entry["shape"], 2]
            case 8:
                del entry[draws.choice(["dtype", "shape", "data_offsets"])]
            case 9:
                entry["more"] = 1
            case 10:
                del changed[key]
            case 11:
                changed[f"{key}.{number}"] = changed.pop(key)
        yield f"{key}, {what}, {number}", with_header(whole, changed)


def test_200_broken_files_are_refused_and_nothing_is_written(
    kitchen: Kitchen, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {name: tensor for name, tensor in random_tensors(0).items() if not name.startswith("text")}
    kitchen.put(random_tensors(0), near(random_tensors(0), 1))
    path = kitchen.trained / "unet" / "diffusion_pytorch_model.safetensors"
    whole = save({n.removeprefix("unet."): t for n, t in base.items() if n.startswith("unet.")}, {"format": "pt"})
    tried = 0
    for what, data in mutations(whole):
        path.write_bytes(data)
        with pytest.raises(StageError) as refused:
            kitchen.cook()
        assert "\n" not in str(refused.value), what
        assert not kitchen.out().parent.exists(), what
        tried += 1
    assert tried >= 180


def whole_or_none(path: Path) -> Header | None:
    try:
        return read_header(path)
    except StageError:
        return None


def test_random_bytes_of_a_header_are_refused_or_change_nothing(tmp_path: Path) -> None:
    whole, path = save(TENSORS), tmp_path / "x.safetensors"
    size, draws = int.from_bytes(whole[:8], "little"), random.Random(1)
    path.write_bytes(whole)
    known = {(p.start, p.shape, p.dtype.itemsize) for p in read_header(path).tensors.values()}
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        data[draws.randrange(8 + size)] = draws.randrange(256)
        path.write_bytes(data)
        if (header := whole_or_none(path)) is None:
            refused += 1
        else:  # a letter of a name; or a type of the same size
            assert {(p.start, p.shape, p.dtype.itemsize) for p in header.tensors.values()} == known
    assert refused > 150


def test_types_are_the_library_s() -> None:
    for name, dtype in DTYPES.items():
        tensor = torch.zeros(1).to(dtype)
        assert f'"{name}"'.encode() in save({"x": tensor})
