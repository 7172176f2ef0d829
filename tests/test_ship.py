"""A shipped copy: half the size, the same model."""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stages.tools.ship import main


def test_floats_are_halved_and_nothing_else(tmp_path: Path) -> None:
    weights = {"w": torch.randn(40, 30), "position_ids": torch.arange(70_000)}
    (tmp_path / "model" / "unet").mkdir(parents=True)
    save_file(weights, tmp_path / "model" / "unet" / "w.safetensors", metadata={"darkroom": "{}"})
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("the card")
    main(tmp_path / "model", tmp_path / "out")
    with safe_open(tmp_path / "out" / "unet" / "w.safetensors", framework="pt") as file:
        assert file.metadata() == {"darkroom": "{}"}
        assert torch.equal(file.get_tensor("position_ids"), weights["position_ids"])
        assert torch.equal(file.get_tensor("w"), weights["w"].half())
    assert (tmp_path / "out" / "config.json").read_text() == "{}"
    assert (tmp_path / "out" / "README.md").read_text() == "the card"
