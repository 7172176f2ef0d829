"""Merging: identities, and refusals before the first tensor."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stages.core.errors import StageError
from stages.core.weights import UNET_WEIGHTS, load_unet_weights
from stages.merge.methods import weighted_sum
from stages.merge.params import MergeParams, Recipe
from stages.merge.run import blend, main


def model(folder: Path, weights: dict[str, torch.Tensor], kind: str = "epsilon") -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    save_file(weights, folder / UNET_WEIGHTS)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": kind}))
    return folder


def recipes(**values: object) -> MergeParams:
    return MergeParams.model_validate({"x": values})


A = {"w": torch.tensor([0.0, 1.0]), "n": torch.tensor([3])}
B = {"w": torch.tensor([4.0, 3.0]), "n": torch.tensor([5])}


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, [0.0, 1.0]), (0.25, [1.0, 1.5]), (1.0, [4.0, 3.0])])
def test_ratio(tmp_path: Path, ratio: float, expected: list[float]) -> None:
    a, b = model(tmp_path / "a", A), model(tmp_path / "b", B)
    main(recipes(ratio=ratio), "x", a, b, tmp_path / "out")
    merged = load_unet_weights(tmp_path / "out")
    assert merged["w"].tolist() == expected
    assert merged["n"].tolist() == [3]
    with safe_open(tmp_path / "out" / UNET_WEIGHTS, "pt") as file:
        assert json.loads(file.metadata()["darkroom"])["recipe"]["ratio"] == ratio
        assert len(file.metadata()) == 1


def test_the_ends_are_exact_and_the_sides_change_places() -> None:
    a, b = torch.randn(100), torch.randn(100)
    assert torch.equal(weighted_sum(a, b, 0.0), a)
    assert torch.equal(weighted_sum(a, b, 1.0), b)
    torch.testing.assert_close(weighted_sum(a, b, 0.3), weighted_sum(b, a, 0.7))


def test_half_precision_is_rounded_once() -> None:
    a, b = torch.randn(1000).half(), torch.randn(1000).half()
    exact = (0.7 * a.double() + 0.3 * b.double()).half()
    merged = blend(Recipe(ratio=0.3), a, b)
    assert merged.dtype == torch.float16
    assert (merged != exact).float().mean() < 0.01


@pytest.mark.parametrize(
    ("other", "kind", "said"),
    [
        ({**A, "extra": torch.ones(1)}, "epsilon", "extra is in one model only"),
        ({**A, "w": torch.ones(3)}, "epsilon", r"w has the shapes \(2,\) and \(3,\)"),
        (B, "v_prediction", "prediction types epsilon and v_prediction"),
    ],
)
def test_refusals(tmp_path: Path, other: dict[str, torch.Tensor], kind: str, said: str) -> None:
    a, b = model(tmp_path / "a", A), model(tmp_path / "b", other, kind)
    with pytest.raises(StageError, match=rf"merge\.x: {said}"):
        main(recipes(), "x", a, b, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_recipe_at_least() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        MergeParams.model_validate({})


def test_taken_names_are_refused() -> None:
    with pytest.raises(ValueError, match="has a recipe named base"):
        MergeParams.model_validate({"base": {}})
