"""Grids: every cell is the picture of its two settings, ratio and strength in float32 in memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stages.base.random_families import build
from stages.core.errors import StageError
from stages.core.families.known import family_of, load_pipeline
from stages.core.params import parse_section
from stages.core.sampling import Drawing, draw
from stages.core.sheets import GAP
from stages.grid.params import GridParams
from stages.grid.run import main
from stages.grid.weights import Weights

SIDE = 128  # px of a cell


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, trained (another UNet, another text encoder, an adapter in its weights), merged/half, merged/other."""
    folder = tmp_path_factory.mktemp("models")
    build("tiny", 0).save_pretrained(folder / "base")
    trained = build("tiny", 1)
    learned: dict[str, torch.Tensor] = {}
    torch.manual_seed(0)
    for name, module in trained.unet.named_modules():
        if name.endswith("to_k"):
            down, up = torch.randn(2, module.in_features), torch.randn(module.out_features, 2)
            learned |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    trained.save_pretrained(folder / "trained")
    (folder / "trained" / "adapter").mkdir()
    save_file(learned, folder / "trained" / "adapter" / "pytorch_lora_weights.safetensors")
    build("mini", 0).save_pretrained(folder / "merged" / "other")
    return folder


def params_of(x: dict[str, Any], y: dict[str, Any], **others: Any) -> GridParams:
    values = {"one": {"prompt": "a fox", "steps": 2, "x": x, "y": y, **others}}
    parsed: GridParams = parse_section(GridParams, "grid", values)
    return parsed


def axis(name: str, *values: Any) -> dict[str, Any]:
    return {"name": name, "values": list(values)}


def cells_of(sheet: Image.Image, columns: int, rows: int) -> list[list[bytes]]:
    """Each cell, from the lower right corner, where no label is."""
    left, top = (edge - count * (SIDE + GAP) for edge, count in zip(sheet.size, (columns, rows), strict=True))
    boxes = [[(left + x * (SIDE + GAP), top + y * (SIDE + GAP)) for x in range(columns)] for y in range(rows)]
    return [[sheet.crop((x, y, x + SIDE, y + SIDE)).tobytes() for x, y in row] for row in boxes]


def drawn(models: Path, params: GridParams, out: Path) -> list[list[bytes]]:
    main(params, models / "base", models / "trained", models / "merged", out)
    grid = params.root["one"]
    with Image.open(out / "one.png") as sheet:
        return cells_of(sheet, len(grid.x.values), len(grid.y.values))


def alone(pipeline: Any, **settings: Any) -> bytes:
    (picture,) = draw(pipeline, [Drawing("a fox", 0, (32, 32), **{"steps": 2, **settings})], 1)
    return picture.resize((SIDE, SIDE), Image.Resampling.NEAREST).tobytes()


def test_a_cell_is_the_picture_of_its_settings(models: Path, tmp_path: Path) -> None:
    params = params_of(axis("guidance", 1, 4.5), axis("scheduler", "ddim", "euler_a", "heun"))
    cells = drawn(models, params, tmp_path / "grids")
    pipeline = load_pipeline(models / "trained")
    for row, scheduler in zip(cells, ("ddim", "euler_a", "heun"), strict=True):
        assert row == [alone(pipeline, guidance=guidance, scheduler=scheduler) for guidance in (1.0, 4.5)]
    assert json.loads((tmp_path / "grids" / "grids.json").read_text()) == {
        "one": {
            "file": "one.png",
            "x": {"name": "guidance", "values": [1, 4.5]},
            "y": {"name": "scheduler", "values": ["ddim", "euler_a", "heun"]},
            "prompt": "a fox",
            "seed": 0,
            "model": "trained",
        }
    }


def test_a_ratio_leads_from_the_base_to_the_model(models: Path, tmp_path: Path) -> None:
    (row,) = drawn(models, params_of(axis("ratio", 1, 0, 0.5), axis("steps", 2)), tmp_path / "grids")
    base, trained = (load_pipeline(models / name) for name in ("base", "trained"))
    base.vae = trained.vae
    assert row[:2] == [alone(trained), alone(base)]
    assert len(set(row)) == 3


def test_mixed_weights_are_the_weighted_sum_and_come_back(models: Path) -> None:
    base, trained = (load_pipeline(models / name) for name in ("base", "trained"))
    folder, family = models / "trained", family_of(models / "trained")
    weights = Weights(trained, family, folder, models / "base", strengths=True)
    own = {part: dict(load_pipeline(folder).components[part].state_dict()) for part in ("unet", "text_encoder")}
    weights.set(0.25, 1)
    for part, tensors in own.items():
        for name, other in base.components[part].state_dict().items():
            wanted = 0.75 * other + 0.25 * tensors[name]
            torch.testing.assert_close(trained.components[part].state_dict()[name], wanted, atol=1e-6, rtol=1e-5)
    weights.set(0.25, -1)
    weights.set(0, 3)
    assert all(torch.equal(value, trained.unet.state_dict()[name]) for name, value in base.unet.state_dict().items())
    weights.set(1, 1)
    for part, tensors in own.items():
        assert all(torch.equal(value, trained.components[part].state_dict()[name]) for name, value in tensors.items())


def test_a_strength_adds_and_takes_away_the_adapter(models: Path, tmp_path: Path) -> None:
    params = params_of(axis("strength", 0, 1, 2), axis("ratio", 1, 0))
    own, base = drawn(models, params, tmp_path / "grids")
    assert own[1] == alone(load_pipeline(models / "trained"))
    assert len(set(own)) == 3
    assert len(set(base)) == 1


def test_grids_may_be_none(models: Path, tmp_path: Path) -> None:
    main(GridParams({}), models / "base", models / "trained", models / "merged", tmp_path / "grids")
    assert [path.name for path in (tmp_path / "grids").iterdir()] == ["grids.json"]


def test_what_a_model_has_not_is_refused(models: Path, tmp_path: Path) -> None:
    places = models / "base", models / "trained", models / "merged", tmp_path / "grids"
    with pytest.raises(StageError, match="has no adapter"):
        main(params_of(axis("strength", 0), axis("steps", 2), model="base"), *places)
    with pytest.raises(StageError, match="unet of the model has other tensors than the base's; leave the ratio out"):
        main(params_of(axis("ratio", 0), axis("steps", 2), model="other"), *places)
    assert not (tmp_path / "grids").exists()
    params = params_of(axis("ratio", 0), axis("steps", 2), model="othr")
    with pytest.raises(StageError, match=r"grid\.one\.model: no model is named othr; use base, trained, other"):
        params.verify(["base", "trained", "other"], ["trained"])
    strength = params_of(axis("strength", 0), axis("steps", 2))
    strength.verify(["base", "trained"], ["trained"])
    with pytest.raises(StageError, match=r"grid\.one: trained will have no LoRA"):
        strength.verify(["base", "trained"], [])


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (axis("steps", 2), axis("steps", 3), "x and y are both steps"),
        (axis("steps", 2.5), axis("ratio", 3), "should be whole numbers from 1 to 1000, as the axis steps has them"),
        (axis("ratio", "a"), axis("steps", 3), "should be numbers from -1 to 2"),
        (axis("scheduler", "plms"), axis("steps", 3), "should be of ddim, ddpm"),
        (axis("guidance", 1, 1.0), axis("steps", 3), "should be different from each other"),
        (axis("size", 1), axis("steps", 3), "grid.one.x.name is 'size'"),
    ],
)
def test_bad_axes_stop_before_any_work(x: dict[str, Any], y: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError) as error:
        params_of(x, y)
    assert said in str(error.value)


def test_sizes_need_not_be_square(models: Path, tmp_path: Path) -> None:
    params = params_of(axis("steps", 1, 2), axis("guidance", 1), size=[32, 64])
    main(params, models / "base", models / "trained", models / "merged", tmp_path / "grids")
    with Image.open(tmp_path / "grids" / "one.png") as sheet:
        assert np.asarray(sheet).shape[0] > 2 * SIDE
