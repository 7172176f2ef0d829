"""LoRAs: into weights, together, smaller, and out of weights again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stages.core.errors import StageError
from stages.core.lora_names import Adapter, to_kohya, to_peft
from stages.merge.loras import Factors, extracted, reduced
from tests.merge.models import Kitchen, Tensors, near, random_tensors

A = random_tensors(0)
MODULES = [name.removesuffix(".weight") for name in A if name.endswith(".weight") and not name.startswith("vae")]
CHANGED = (
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "unet.mid_block.resnets.0.conv1",
    "unet.conv_out",
    "text_encoder.encoder.layers.0.self_attn.q_proj",
)
MODELS = {**A, "unet.mid_block.resnets.0.conv1.weight": torch.randn(16, 16, 3, 3)}


def adapters(seed: int, rank: int = 2, alpha: float = 1.0) -> dict[str, Adapter]:
    draws = torch.Generator().manual_seed(seed)
    found = {}
    for module in CHANGED:
        shape = MODELS[f"{module}.weight"].shape
        ones = (1,) * len(shape[2:])
        down, up = torch.randn(rank, *shape[1:], generator=draws), torch.randn(shape[0], rank, *ones, generator=draws)
        found[module] = Adapter(down, up, alpha)
    return found


def updates(given: dict[str, Adapter]) -> dict[str, torch.Tensor]:
    return {
        f"{module}.weight": (a.up.flatten(1) @ a.down.flatten(1) * a.alpha / a.rank).reshape(
            MODELS[f"{module}.weight"].shape
        )
        for module, a in given.items()
    }


def save_as(kind: str, given: dict[str, Adapter], path: Path) -> None:
    if kind == "kohya":
        modules = [n.removesuffix(".weight") for n in MODELS if n.endswith(".weight") and not n.startswith("vae")]
        save_file(to_kohya("sd1", given, modules), path)
    else:
        tensors, metadata = to_peft(given)
        save_file(tensors, path, metadata=metadata)


def assert_near(found: Tensors, expected: Tensors, by: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=by, rtol=by, msg=name)


def plus(tensors: Tensors, *more: Tensors) -> dict[str, torch.Tensor]:
    """Tensors and what is added to some of them."""
    found = dict(tensors)
    for each in more:
        found |= {name: found[name] + tensor for name, tensor in each.items()}
    return found


@pytest.mark.parametrize("kind", ["kohya", "peft"])
def test_into_weights(kitchen: Kitchen, kind: str) -> None:
    kitchen.put(MODELS, MODELS)
    save_as(kind, adapters(1), kitchen.imported / "one.safetensors")
    found = kitchen.cook(method="lora", loras=[{"file": "file:one.safetensors", "weight": 0.5}])
    half = {name: tensor * 0.5 for name, tensor in updates(adapters(1)).items()}
    assert_near(found, plus(MODELS, half))


def test_together_and_as_one_file(kitchen: Kitchen) -> None:
    """Files of different kinds, ranks and alphas: exactly their sum, and the file that is made holds it."""
    kitchen.put(MODELS, MODELS)
    one, two = adapters(1), adapters(2, rank=3, alpha=6.0)
    del two["unet.conv_out"]
    save_as("kohya", one, kitchen.imported / "one.safetensors")
    save_as("peft", two, kitchen.imported / "two.safetensors")
    loras = [{"file": "file:one.safetensors"}, {"file": "file:two.safetensors", "weight": -1.0}]
    found = kitchen.cook(method="lora", loras=loras)
    minus = {name: -tensor for name, tensor in updates(two).items()}
    assert_near(found, plus(MODELS, updates(one), minus))
    path = kitchen.out() / "pytorch_lora_weights.safetensors"
    made = load_file(path)
    assert made[f"{CHANGED[0]}.lora_A.weight"].shape[0] == 5
    assert made["unet.conv_out.lora_A.weight"].shape[0] == 2
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["darkroom"])["merge"]["recipe"]["loras"] == [
            {"file": "file:one.safetensors", "weight": 1.0},
            {"file": "file:two.safetensors", "weight": -1.0},
        ]
    path.rename(kitchen.imported / "made.safetensors")
    again = kitchen.cook("again", method="lora", loras=[{"file": "file:made.safetensors"}])
    assert_near(again, found)


def test_to_a_rank(kitchen: Kitchen) -> None:
    """The best of that rank, as numpy's singular values have it."""
    kitchen.put(MODELS, MODELS)
    one = adapters(1, rank=4)
    save_as("peft", one, kitchen.imported / "one.safetensors")
    found = kitchen.cook(method="lora", loras=[{"file": "file:one.safetensors"}], rank=2)
    best = {}
    for name, update in updates(one).items():
        u, s, v = torch.linalg.svd(update.flatten(1), full_matrices=False)
        best[name] = (u[:, :2] * s[:2] @ v[:2]).reshape(update.shape)
    assert_near(found, plus(MODELS, best), 1e-4)
    made = load_file(kitchen.out() / "pytorch_lora_weights.safetensors")
    assert {tensor.shape[0] for key, tensor in made.items() if "lora_A" in key} == {2}


def test_a_lora_inside_a_recipe(kitchen: Kitchen) -> None:
    kitchen.put(MODELS, near(MODELS_NAMED, 3) | {"unet.mid_block.resnets.0.conv1.weight": MODELS[CONV]})
    save_as("peft", adapters(1), kitchen.imported / "one.safetensors")
    inner = {"method": "lora", "loras": [{"file": "file:one.safetensors"}]}
    found = kitchen.cook(a="base", b=inner, ratio=0.25)
    quarter = {name: tensor * 0.25 for name, tensor in updates(adapters(1)).items()}
    assert_near(found, plus(MODELS, quarter))


CONV = "unet.mid_block.resnets.0.conv1.weight"
MODELS_NAMED = {name: tensor for name, tensor in MODELS.items() if name != CONV}


def test_extracted_at_full_rank_and_applied_again_is_the_tuned_model(kitchen: Kitchen) -> None:
    """All but what no LoRA holds: vectors, embeddings, the VAE."""
    tuned = near(A, 1)
    kitchen.put(A, tuned)
    found = kitchen.cook(method="extract_lora")
    kept = ("bias", "norm1.weight", "embedding.weight", "position_ids")
    expected = {name: A[name] if name.endswith(kept) or name.startswith("vae") else tuned[name] for name in A}
    assert_near(found, expected)
    (kitchen.out() / "pytorch_lora_weights.safetensors").rename(kitchen.imported / "made.safetensors")
    assert_near(kitchen.cook("again", method="lora", loras=[{"file": "file:made.safetensors"}]), expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.integers(0, 99))
def test_extraction_is_the_best_of_its_rank(rows: int, columns: int, rank: int, seed: int) -> None:
    delta = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    factors = extracted(delta, 1.0, rank)
    assert factors is not None
    kept = min(rank or 12, rows, columns)
    assert factors.up.shape == (rows, kept)
    assert factors.down.shape == (kept, columns)
    error = float((delta - factors.up @ factors.down).square().sum())
    assert error == pytest.approx(float(torch.linalg.svdvals(delta)[kept:].square().sum()), rel=1e-5, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 15), st.integers(1, 15), st.integers(0, 99))
def test_reduction_is_the_best_of_its_rank(rows: int, columns: int, inner: int, rank: int, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    up, down = torch.randn(rows, inner, generator=draws), torch.randn(inner, columns, generator=draws)
    found = reduced(Factors(up, down), rank)
    error = float((up @ down - found.up @ found.down).square().sum())
    assert error == pytest.approx(float(torch.linalg.svdvals(up @ down)[rank:].square().sum()), rel=1e-4, abs=1e-4)
    assert found.up.shape[1] == found.down.shape[0] <= rank


def test_nothing_to_extract(kitchen: Kitchen) -> None:
    kitchen.put(A, A)
    with pytest.raises(StageError, match="the LoRA would be empty"):
        kitchen.cook(method="extract_lora")
    assert not kitchen.out().exists()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            {"unet.none.lora_A.weight": torch.ones(1, 1)},
            r"unet\.none\.lora_A\.weight is no tensor of a LoRA for this model",
        ),
        ({"unet.conv_out.lora_A.weight": torch.ones(1, 8, 3, 3)}, r"unet\.conv_out\.weight has no up matrix"),
        (
            {
                "unet.conv_out.lora_A.weight": torch.ones(1, 8, 1, 1),
                "unet.conv_out.lora_B.weight": torch.ones(4, 1, 1, 1),
            },
            r"unet\.conv_out\.weight of shape \(4, 8, 3, 3\) can't take",
        ),
    ],
)
def test_refusals(kitchen: Kitchen, tensors: dict[str, Any], said: str) -> None:
    kitchen.put(A, A)
    save_file(tensors, kitchen.imported / "one.safetensors")
    with pytest.raises(StageError, match=said):
        kitchen.cook(method="lora", loras=[{"file": "file:one.safetensors"}])
    assert not kitchen.out().parent.exists()
