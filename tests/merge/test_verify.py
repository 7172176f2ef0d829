"""verify_merge: a merged model is what it records, until somebody changes it or its inputs."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from stages.core.errors import StageError
from stages.core.files import scratch
from stages.merge.headers import read_header
from stages.merge.prepare import Roots
from stages.tools.verify_merge import main
from tests.merge.models import Kitchen, near, random_tensors

A = random_tensors(0)
RECIPES: list[dict[str, Any]] = [
    {"ratio": 0.3, "single_file": True, "blocks": {"IN01": 0.9}},
    {"a": {"method": "slerp"}, "b": "folder:c", "dtype": "float16"},
    {"method": "dare_ties", "models": [{"model": "trained"}, {"model": "folder:c"}], "density": 0.5},
    {"method": "extract_lora", "rank": 3},
]


def verify(kitchen: Kitchen, path: Path | None = None, tensors: int = 0) -> list[str]:
    roots = Roots(kitchen.base, kitchen.trained, kitchen.imported, partial(scratch, "merge"))
    return main(path or kitchen.out(), roots, tensors)


@pytest.fixture
def stocked(kitchen: Kitchen) -> Kitchen:
    return kitchen.put(A, near(A, 1), c=near(A, 2))


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_was_merged_is_found_again(
    stocked: Kitchen, recipe: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    stocked.cook(**recipe)
    assert verify(stocked) == []
    assert verify(stocked, tensors=2) == []
    assert "2 of 2 tensors computed again are the same, of 10" in capsys.readouterr().out
    assert verify(stocked, stocked.out() / "unet" / "diffusion_pytorch_model.safetensors") == []


def test_a_changed_number_is_found(stocked: Kitchen) -> None:
    stocked.cook(ratio=0.3)
    path = stocked.out() / "unet" / "diffusion_pytorch_model.safetensors"
    place = read_header(path).tensors["conv_out.weight"]
    with path.open("r+b") as file:
        file.seek(place.start + 5)
        file.write(os.urandom(2))
    assert verify(stocked) == [f"{path}: conv_out.weight is not what the recipe gives"]


def test_a_changed_input_is_found(stocked: Kitchen) -> None:
    stocked.cook(ratio=0.0)
    path = stocked.trained / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    assert verify(stocked) == ["trained: vae/diffusion_pytorch_model.safetensors is not the file that was merged"]


def test_what_was_never_merged(stocked: Kitchen) -> None:
    with pytest.raises(StageError, match="records no merge"):
        verify(stocked, stocked.base)
