"""The block layout, on the real models' key names."""

import pytest

from stages.core.original_names import Family
from stages.merge.blocks import blocks_of, layout


def unet_names(attention: list[int], levels: int) -> list[str]:
    """Module names of a UNet with two layers a level; `attention`: levels that attend."""
    names = ["conv_in.weight", "time_embedding.linear_1.weight", "conv_out.bias", "conv_norm_out.weight"]
    names += ["mid_block.resnets.0.conv1.weight", "mid_block.attentions.0.proj_in.weight"]
    for level in range(levels):
        names += [f"down_blocks.{level}.resnets.{layer}.conv1.weight" for layer in range(2)]
        names += [f"up_blocks.{levels - 1 - level}.resnets.{layer}.conv1.weight" for layer in range(3)]
        if level in attention:
            names += [f"down_blocks.{level}.attentions.{layer}.proj_in.weight" for layer in range(2)]
            names += [f"up_blocks.{levels - 1 - level}.attentions.{layer}.proj_in.weight" for layer in range(3)]
        if level < levels - 1:
            names += [f"down_blocks.{level}.downsamplers.0.conv.weight", f"up_blocks.{level}.upsamplers.0.conv.weight"]
    return [f"unet.{name}" for name in names]


@pytest.mark.parametrize(
    ("family", "attention", "levels", "number"),
    [("sd1", [0, 1, 2], 4, 25), ("sd2", [0, 1, 2], 4, 25), ("sdxl", [1, 2], 3, 19)],
)
def test_layouts(family: Family, attention: list[int], levels: int, number: int) -> None:
    names = unet_names(attention, levels)
    blocks = blocks_of(family, [*names, "vae.encoder.conv_in.weight", "text_encoder.final_layer_norm.weight"])
    known = layout(blocks.values())
    assert len(known) == number
    assert set(known) | {"BASE"} == set(blocks.values())
    half = levels * 3
    assert known == [f"IN{n:02d}" for n in range(half)] + ["M00"] + [f"OUT{n:02d}" for n in range(half)]
    for level in range(levels):
        for layer in range(2):
            assert blocks[f"unet.down_blocks.{level}.resnets.{layer}.conv1.weight"] == f"IN{3 * level + layer + 1:02d}"
        for layer in range(3):
            assert blocks[f"unet.up_blocks.{level}.resnets.{layer}.conv1.weight"] == f"OUT{3 * level + layer:02d}"
        if level < levels - 1:
            assert blocks[f"unet.down_blocks.{level}.downsamplers.0.conv.weight"] == f"IN{3 * level + 3:02d}"
            assert blocks[f"unet.up_blocks.{level}.upsamplers.0.conv.weight"] == f"OUT{3 * level + 2:02d}"
    assert {blocks["unet.conv_in.weight"], blocks["unet.time_embedding.linear_1.weight"]} == {"IN00"}
    assert {blocks["unet.conv_out.bias"], blocks["unet.conv_norm_out.weight"]} == {f"OUT{half - 1:02d}"}
    assert blocks["vae.encoder.conv_in.weight"] == blocks["text_encoder.final_layer_norm.weight"] == "BASE"
