"""LoRA names: diffusers reads either file alike, and every name comes back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stages.core.errors import StageError
from stages.core.lora_names import METADATA, Adapter, alphas_of, kohya_names, read_adapters, roles_of, to_kohya, to_peft
from stages.core.original_names import Family
from tests.pipelines import FAMILIES, tiny

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
TARGETS = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "fc1", "fc2")


def modules_of(pipeline: Any) -> list[str]:
    """Every module with a weight, as the folder's files name it."""
    return [
        f"{part}.{name.removesuffix('.weight')}"
        for part in ("unet", "text_encoder", "text_encoder_2")
        if getattr(pipeline, part, None) is not None
        for name in getattr(pipeline, part).state_dict()
        if name.endswith(".weight")
    ]


def adapters_for(pipeline: Any, alphas: tuple[float, float] = (1.0, 3.0)) -> dict[str, Adapter]:
    """Random ones for attention, feed-forward and projections, of different ranks."""
    torch.manual_seed(0)
    found: dict[str, Adapter] = {}
    for module in modules_of(pipeline):
        if module.endswith(TARGETS):
            part, _, name = module.partition(".")
            weight = getattr(pipeline, part).get_submodule(name).weight
            rank, rest = (2, 4)[len(found) % 2], weight.shape[2:]
            down = torch.randn(rank, weight.shape[1], *rest)
            up = torch.randn(weight.shape[0], rank, *(1 for _ in rest))
            found[module] = Adapter(down, up, alphas[len(found) // 2 % 2])
    return found


def deltas_of(pipeline: Any) -> dict[str, torch.Tensor]:
    """What a loaded LoRA adds to each weight."""
    layers: Any = LoraLayer
    return {
        f"{part}.{name}": layer.get_delta_weight(layer.active_adapters[0])
        for part in ("unet", "text_encoder", "text_encoder_2")
        if getattr(pipeline, part, None) is not None
        for name, layer in getattr(pipeline, part).named_modules()
        if isinstance(layer, layers)
    }


def product(adapter: Adapter) -> torch.Tensor:
    matrix = adapter.up.flatten(1) @ adapter.down.flatten(1) * (adapter.alpha / adapter.rank)
    return matrix.reshape(adapter.up.shape[0], *adapter.down.shape[1:])


@pytest.mark.parametrize("kind", ["kohya", "peft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_loads_it(family: Family, kind: str, tmp_path: Path) -> None:
    pipeline = tiny(family, layers=2)
    # diffusers 0.42 loses a kohya file's alphas of attention where they differ: it looks for them by old names.
    adapters = adapters_for(pipeline, (3.0, 3.0) if kind == "kohya" else (1.0, 3.0))
    if kind == "kohya":
        tensors, metadata = to_kohya(family, adapters, modules_of(pipeline)), None
    else:
        tensors, metadata = to_peft(adapters)
    save_file(tensors, tmp_path / "lora.safetensors", metadata={"format": "pt", **(metadata or {})})
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    loaded = deltas_of(pipeline)
    assert loaded.keys() == adapters.keys()
    for module, adapter in adapters.items():
        torch.testing.assert_close(loaded[module], product(adapter))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_and_value_comes_back(family: Family, tmp_path: Path) -> None:
    pipeline = tiny(family)
    adapters, modules = adapters_for(pipeline), modules_of(pipeline)
    save_file(to_kohya(family, adapters, modules), tmp_path / "kohya.safetensors")
    tensors, metadata = to_peft(adapters)
    save_file(tensors, tmp_path / "peft.safetensors", metadata=metadata)
    for path in (tmp_path / "kohya.safetensors", tmp_path / "peft.safetensors"):
        with safe_open(path, "pt") as file:
            back = read_adapters(family, load_file(path), file.metadata(), modules)
        assert back.keys() == adapters.keys()
        for module, adapter in adapters.items():
            assert back[module].alpha == adapter.alpha
            assert torch.equal(back[module].down, adapter.down)
            assert torch.equal(back[module].up, adapter.up)


def test_names_that_the_world_knows() -> None:
    unet = [f"unet.down_blocks.{i}.resnets.{j}.conv1" for i in range(3) for j in range(2)]
    attention = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    text = "text_encoder.encoder.layers.0.self_attn.q_proj"
    sd1 = kohya_names("sd1", [*unet, attention, text])
    assert sd1[attention] == "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    assert sd1[text] == "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    second = "text_encoder_2.text_model.encoder.layers.31.mlp.fc1"
    sdxl = kohya_names("sdxl", [*unet, attention, text, second, "text_encoder_2.text_projection"])
    assert sdxl[attention] == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    assert sdxl[text] == "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    assert sdxl[second] == "lora_te2_text_model_encoder_layers_31_mlp_fc1"
    assert sdxl["text_encoder_2.text_projection"] == "lora_te2_text_projection"


def test_old_diffusers_files() -> None:
    modules = ["unet.mid.attn1.to_q", "unet.mid.attn1.to_out.0", "text_encoder.encoder.layers.0.mlp.fc1"]
    keys = [
        "unet.mid.attn1.processor.to_q_lora.down.weight",
        "unet.mid.attn1.processor.to_out_lora.up.weight",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight",
        "unet.mid.attn1.to_q.dora_scale",
    ]
    found, rest = roles_of("sd1", keys, modules)
    assert found == {modules[0]: {"down": keys[0]}, modules[1]: {"up": keys[1]}, modules[2]: {"up": keys[2]}}
    assert rest == keys[3:]


def test_alphas_in_metadata() -> None:
    config = {"unet.lora_alpha": 8, "unet.alpha_pattern": {"conv": 2, "^a.proj": 6}, "text_encoder.use_rslora": True}
    modules = {"unet.a.lin": 4, "unet.a.conv": 4, "unet.a.proj": 4, "text_encoder.lin": 4}
    found = alphas_of({METADATA: json.dumps(config)}, modules)
    assert found == {"unet.a.lin": 8, "unet.a.conv": 2, "unet.a.proj": 6, "text_encoder.lin": 8}
    assert alphas_of(None, modules) == dict.fromkeys(modules, 4)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["lora_unet_a.hada_w1_a"], r"lora_unet_a\.hada_w1_a: is no tensor of a LoRA"),
        (["unet.b.lora_A.weight"], r"unet\.b\.lora_A\.weight: is no tensor of a LoRA"),
        (["unet.a.lora_A.weight"], r"unet\.a: has no up matrix"),
    ],
)
def test_refusals(keys: list[str], said: str) -> None:
    with pytest.raises(StageError, match=said):
        read_adapters("sd1", {key: torch.ones(1, 1) for key in keys}, None, ["unet.a"])


def test_a_dora_is_refused() -> None:
    with pytest.raises(StageError, match=r"unet\.a: is a DoRA"):
        alphas_of({METADATA: json.dumps({"unet.use_dora": True})}, {"unet.a": 1})
