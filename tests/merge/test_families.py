"""Whole pipelines of every family, as diffusers builds them: merged as folders and as single files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from stages.core.original_names import Family, to_original
from tests.merge.models import Kitchen
from tests.pipelines import FAMILIES, tensors_below, tensors_of, tiny


def save(pipeline: Any, folder: Path) -> dict[str, torch.Tensor]:
    pipeline.save_pretrained(folder)
    return tensors_below(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_folders_and_single_files_give_one_result(family: Family, kitchen: Kitchen) -> None:
    a, b = save(tiny(family, 0), kitchen.base), save(tiny(family, 1), kitchen.trained)
    expected = {name: torch.lerp(tensor, b[name], 0.25) for name, tensor in a.items()}
    found = kitchen.cook("folders", ratio=0.25)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)
    for name, tensors in (("a", a), ("b", b)):
        save_file(
            {k: t.contiguous() for k, t in to_original(family, tensors).items()},
            kitchen.imported / f"{name}.safetensors",
        )
    files = kitchen.cook("files", a="file:a.safetensors", b="file:b.safetensors", ratio=0.25, single_file=True)
    assert files.keys() == found.keys()
    assert all(torch.equal(tensor, files[name]) for name, tensor in found.items())
    single = load_file(kitchen.out("files") / "single_file.safetensors")
    original = to_original(family, found)
    assert single.keys() == original.keys()
    assert all(torch.equal(tensor, single[key]) for key, tensor in original.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_opens_the_result(family: Family, kitchen: Kitchen) -> None:
    pipeline = tiny(family, 0)
    save(pipeline, kitchen.base)
    save(tiny(family, 1), kitchen.trained)
    kitchen.cook(ratio=0.25, single_file=True)
    options: dict[str, Any] = {} if family == "sdxl" else {"safety_checker": None}
    whole = tensors_of(DiffusionPipeline.from_pretrained(kitchen.out(), **options))
    single = type(pipeline).from_single_file(
        str(kitchen.out() / "single_file.safetensors"), config=str(kitchen.base), local_files_only=True, **options
    )
    for name, tensor in tensors_of(single).items():
        assert torch.equal(tensor, whole[name]), name
