"""Conditions lie beside their own picture's latents, byte for byte."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stages.core.errors import StageError
from stages.core.latents import Latents
from stages.encode.params import EncodeParams
from stages.encode.run import main
from tests.encode.rows import in_turn, lay, numbered
from tests.pictures import drawing, encoded

SIZES = [(32, 32), (64, 32)]


def conditioned(number: int, **others: bytes) -> dict[str, Any]:
    """Edges in grey, stored as RGB as preprocess does, and a palette in colour."""
    size = SIZES[number % 2]
    files = {
        "canny": encoded(drawing(100 + number, size).convert("L").convert("RGB")),
        "palette": encoded(drawing(200 + number, size)),
        **others,
    }
    return {**numbered(number, size), "conditions": [{"name": name, "bytes": data} for name, data in files.items()]}


def pixels(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(2, 0, 1)


def test_each_row_reads_its_own(base: Path, tmp_path: Path) -> None:
    rows = [conditioned(number) for number in range(14)]
    in_turn(lay(tmp_path / "processed", rows), base, tmp_path / "out")
    shapes = set()
    for path in (tmp_path / "out" / "pictures").iterdir():
        tensors = load_file(path)
        assert all(tensors[name].dtype == torch.uint8 for name in ("canny", "palette"))
        shapes |= {(name, tensors[name].shape[1]) for name in ("canny", "palette")}
    assert shapes == {("canny", 1), ("palette", 3)}  # grey takes a third of the space
    train = Latents(tmp_path / "out", "train")
    for group in train.groups:
        for name in ("canny", "palette"):
            found = train.condition(name, group)
            assert found.shape[1] == 3
            for row, picture in zip(group, found, strict=True):
                (data,) = (c["bytes"] for c in rows[int(train.keys[row][:2])]["conditions"] if c["name"] == name)
                assert torch.equal((picture * 255).round().byte(), pixels(data))
    with pytest.raises(StageError, match="the pictures have no condition depth; add depth to preprocess"):
        train.condition("depth", [0])


def test_latents_are_the_same_with_and_without(base: Path, tmp_path: Path) -> None:
    rows = [conditioned(number) for number in range(5)]
    in_turn(lay(tmp_path / "with", rows), base, tmp_path / "a")
    plain = [{name: value for name, value in row.items() if name != "conditions"} for row in rows]
    assert in_turn(lay(tmp_path / "without", plain), base, tmp_path / "b")[1].startswith("0 pictures")
    for one in (tmp_path / "b" / "pictures").iterdir():
        other = load_file(tmp_path / "a" / "pictures" / one.name)
        assert all(torch.equal(tensor, other[name]) for name, tensor in load_file(one).items())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"depth": encoded(drawing(1, (32, 32)))}, "picture 02 has no condition depth; give one to every picture"),
        ({"canny": encoded(drawing(1, (64, 64)))}, "condition canny of picture 00 is 64 x 64 px, not 32 x 32"),
        ({"std": encoded(drawing(1, (32, 32)))}, "a condition is named std, as the latents are"),
    ],
)
def test_what_fits_no_tensor_is_named(base: Path, tmp_path: Path, row: dict[str, bytes], message: str) -> None:
    rows = [conditioned(0, **row), *(conditioned(number) for number in range(1, 4))]
    with pytest.raises(StageError, match=message):
        main(EncodeParams(), lay(tmp_path / "processed", rows), base, tmp_path / "out", tmp_path / "m.json")
    assert not (tmp_path / "out").exists()
