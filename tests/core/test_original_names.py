"""Original key names: diffusers itself loads what they say, and every name comes back."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stages.core.errors import StageError
from stages.core.original_names import (
    PREFIXES,
    Family,
    current_name,
    family_of_keys,
    link_keys,
    link_names,
    to_folder,
    to_original,
)
from tests.pipelines import FAMILIES, tensors_below, tensors_of, tiny


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_loads_the_single_file(family: Family, layers: int, tmp_path: Path) -> None:
    pipeline = tiny(family, layers=layers)
    pipeline.save_pretrained(tmp_path / "folder")
    tensors = tensors_below(tmp_path / "folder")
    original = to_original(family, tensors)
    save_file({key: tensor.contiguous() for key, tensor in original.items()}, tmp_path / "one.safetensors")
    loaded = type(pipeline).from_single_file(
        str(tmp_path / "one.safetensors"),
        config=str(tmp_path / "folder"),
        local_files_only=True,
        **({} if family == "sdxl" else {"safety_checker": None}),
    )
    expected, got = tensors_of(pipeline), tensors_of(loaded)
    assert expected.keys() == got.keys()
    assert all(torch.equal(tensor, got[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_and_value_comes_back(family: Family, layers: int, tmp_path: Path) -> None:
    tiny(family, layers=layers).save_pretrained(tmp_path)
    tensors = tensors_below(tmp_path)
    original = to_original(family, tensors)
    assert family_of_keys(original) == family
    assert all(key.startswith(tuple(PREFIXES[family].values())) for key in original)
    back = to_folder(original)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in tensors.items())
    again = to_original(family, back)
    assert list(again) == list(to_original(family, back))
    assert all(torch.equal(tensor, again[key]) for key, tensor in original.items())


def test_names_that_the_world_knows() -> None:
    """Keys as they stand in the released checkpoints, beside the names in the released folders."""
    unet = {f"unet.down_blocks.{i}.resnets.{j}.conv1.weight" for i in range(4) for j in range(2)}
    vae = {f"vae.decoder.up_blocks.{i}.resnets.{j}.conv1.bias" for i in range(4) for j in range(3)}
    pairs = {
        "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight": (
            "model.diffusion_model.input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight"
        ),
        "unet.down_blocks.2.downsamplers.0.conv.weight": "model.diffusion_model.input_blocks.9.0.op.weight",
        "unet.mid_block.resnets.1.norm2.bias": "model.diffusion_model.middle_block.2.out_layers.0.bias",
        "unet.up_blocks.0.upsamplers.0.conv.bias": "model.diffusion_model.output_blocks.2.1.conv.bias",
        "unet.up_blocks.1.attentions.2.proj_in.weight": "model.diffusion_model.output_blocks.5.1.proj_in.weight",
        "unet.up_blocks.1.upsamplers.0.conv.bias": "model.diffusion_model.output_blocks.5.2.conv.bias",
        "unet.up_blocks.3.resnets.2.conv_shortcut.weight": (
            "model.diffusion_model.output_blocks.11.0.skip_connection.weight"
        ),
        "vae.decoder.up_blocks.0.resnets.0.conv_shortcut.weight": (
            "first_stage_model.decoder.up.3.block.0.nin_shortcut.weight"
        ),
        "vae.encoder.mid_block.attentions.0.to_out.0.weight": "first_stage_model.encoder.mid.attn_1.proj_out.weight",
        "text_encoder.encoder.layers.11.mlp.fc1.weight": (
            "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight"
        ),
        "text_encoder.embeddings.position_ids": "cond_stage_model.transformer.text_model.embeddings.position_ids",
    }
    links, rest = link_names("sd1", [*sorted(unet | vae), *pairs])
    assert not rest
    found = {link.names[0]: link.key for link in links}
    assert pairs.items() <= found.items()


def test_what_has_no_pair_is_told_and_not_lost() -> None:
    names = [
        "cond_stage_model.model.token_embedding.weight",
        *(f"cond_stage_model.model.transformer.resblocks.{layer}.ln_1.weight" for layer in range(24)),
        "cond_stage_model.model.text_projection",
        "model_ema.decay",
    ]
    links, rest = link_keys("sd2", names)
    assert [link.key for link in links] == names[:24]
    assert rest == names[24:]
    with pytest.raises(StageError, match=r"encoder\.layers\.23\.layer_norm1\.weight: has no name in a sd2 checkpoint"):
        to_original("sd2", {"text_encoder.encoder.layers.23.layer_norm1.weight": torch.ones(1)})


def test_two_of_three_are_no_stack() -> None:
    start = "text_encoder.encoder.layers.0.self_attn"
    assert link_names("sd2", [f"{start}.q_proj.bias", f"{start}.k_proj.bias"]) == (
        [],
        [f"{start}.q_proj.bias", f"{start}.k_proj.bias"],
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("text_encoder.text_model.final_layer_norm.bias", "text_encoder.final_layer_norm.bias"),
        ("text_encoder_2.text_model.final_layer_norm.bias", "text_encoder_2.text_model.final_layer_norm.bias"),
        ("vae.encoder.mid_block.attentions.0.proj_attn.bias", "vae.encoder.mid_block.attentions.0.to_out.0.bias"),
        ("vae.decoder.mid_block.attentions.0.key.weight", "vae.decoder.mid_block.attentions.0.to_k.weight"),
    ],
)
def test_old_names(old: str, new: str) -> None:
    assert current_name(old) == new == current_name(new)


def test_old_names_link_by_their_own() -> None:
    links, rest = link_names("sd1", ["text_encoder.text_model.final_layer_norm.bias"])
    assert not rest
    assert links[0].names == ("text_encoder.text_model.final_layer_norm.bias",)
    assert links[0].key == "cond_stage_model.transformer.text_model.final_layer_norm.bias"


def test_no_family() -> None:
    with pytest.raises(StageError, match="is no key of a Stable Diffusion"):
        family_of_keys(["double_blocks.0.img_attn.norm.key_norm.scale"])
