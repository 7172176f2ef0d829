"""The two names of a Stable Diffusion tensor: in a diffusers folder and in an original single-file checkpoint.

A folder's tensor is called `<part>.<key>`: `unet.conv_in.weight` is the key `conv_in.weight` of the part unet. An
original key is `model.diffusion_model.input_blocks.0.0.weight`. One table, built for the model at hand, is read in
both directions, so that the names are pairs. Four things are more than a name:

    pointwise   the VAE's attention: a matrix (C, C) in a folder, a 1 x 1 convolution (C, C, 1, 1) in a file
    transposed  OpenCLIP's text projection
    stacked     OpenCLIP's query, key and value: three tensors in a folder, one above the other in a file
    no pair     the last layer of Stable Diffusion 2's text encoder, and averaged weights: no folder holds them

Sources: the modules of CompVis/stable-diffusion, Stability-AI/stablediffusion and Stability-AI/generative-models,
which the keys name, and diffusers' `from_single_file`, which the tests let read them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from stages.core.errors import StageError

Family = Literal["sd1", "sd2", "sdxl"]
Form = Literal["same", "pointwise", "transposed", "stacked"]

PREFIXES: dict[Family, dict[str, str]] = {
    "sd1": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.text_model.",
    },
    "sd2": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.model.",
    },
    "sdxl": {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.transformer.text_model.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}
OPENCLIP = {("sd2", "text_encoder"), ("sdxl", "text_encoder_2")}
UNUSED_LAYER = 23  # of OpenCLIP ViT-H: Stable Diffusion 2 reads the layer before it

RESNET = {  # diffusers' name of a layer: the original's
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.attentions.0": "middle_block.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
# What diffusers called them before 0.17.
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OPENCLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


@dataclass(frozen=True)
class Link:
    """key: in the file. names: in the folder; three where form is stacked, else one."""

    key: str
    names: tuple[str, ...]
    form: Form = "same"

    def join(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The file's tensor of the folder's, in the order of `names`."""
        match self.form:
            case "pointwise":
                return tensors[0][:, :, None, None]
            case "transposed":
                return tensors[0].T.contiguous()
            case "stacked":
                return torch.cat(list(tensors))
            case "same":
                return tensors[0]

    def split(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The folder's tensors of the file's, in the order of `names`."""
        match self.form:
            case "pointwise":  # (C, C, 1, 1), (C, C, 1) in old files
                return [tensor.reshape(tensor.shape[:2])]
            case "transposed":
                return [tensor.T.contiguous()]
            case "stacked":
                return [part.contiguous() for part in tensor.chunk(len(self.names))]
            case "same":
                return [tensor]


def to_original(family: Family, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a single file, by original key, of a folder's, by name.

    Raises StageError if a tensor has no original name: then the folder is of another family.
    """
    links, rest = link_names(family, tensors)
    if rest := [name for name in rest if not name.endswith(".position_ids")]:
        raise StageError(rest[0], f"has no name in a {family} checkpoint", "keep the folder")
    return {link.key: link.join([tensors[name] for name in link.names]) for link in links}


def to_folder(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a folder, by name, of a single file's, by original key; what no folder holds is left out.

    Raises StageError if the keys are of no known family.
    """
    links, _ = link_keys(family_of_keys(tensors), tensors)
    return {name: part for link in links for name, part in zip(link.names, link.split(tensors[link.key]), strict=True)}


def family_of_keys(keys: Iterable[str]) -> Family:
    """Which family a single file is of, by its text encoders. Raises StageError if it is of none."""
    found = set(keys)
    for family in ("sdxl", "sd2", "sd1"):
        if any(key.startswith(PREFIXES[family]["text_encoder"]) for key in found):
            return family
    raise StageError(
        min(found, default="the file"),
        "is no key of a Stable Diffusion 1, 2 or XL checkpoint with its text encoder",
        "use a whole checkpoint",
    )


def link_names(family: Family, names: Iterable[str]) -> tuple[list[Link], list[str]]:
    """Links of a folder's tensors, in the order of their first names, and the names that no file has."""
    own = {current_name(name): name for name in names}
    keys = _modules(family, list(own))
    modules = _reversed(keys)
    links: dict[str, Link] = {}
    rest = []
    for name in own:
        found = _split(keys, name)
        link = _link_of(modules, keys[found[0]] + found[1]) if found else None
        if link is None or not all(needed in own for needed in link.names):
            rest.append(own[name])
        elif link.key not in links:
            links[link.key] = Link(link.key, tuple(own[needed] for needed in link.names), link.form)
    return list(links.values()), rest


def link_keys(family: Family, keys: Iterable[str]) -> tuple[list[Link], list[str]]:
    """Links of a file's tensors, in the order of their keys, and the keys that no folder has."""
    given = list(keys)
    modules = _reversed(_modules(family, given))
    links = {key: _link_of(modules, key) for key in given}
    return [link for link in links.values() if link], [key for key, link in links.items() if not link]


def current_name(name: str) -> str:
    """One name for what libraries wrote differently over time: the one that those installed write.

    transformers before 5.6 put `text_model.` before the keys of the first text encoder; diffusers before 0.17
    called the VAE's query, key, value and output by other names.
    """
    if name.startswith("text_encoder.text_model."):
        return name.replace(".text_model.", ".", 1)
    if name.startswith("vae.") and (match := re.search(r"(?<=attentions\.0\.)(query|key|value|proj_attn)(?=\.)", name)):
        return name.replace(f".{match[0]}.", f".{OLD_VAE_ATTENTION[match[0]]}.")
    return name


def _modules(family: Family, given: list[str]) -> dict[str, str]:
    """Original module by folder module, of every part of a model whose tensors have these names, of either kind."""
    parts = PREFIXES[family]
    table: dict[str, str] = {}
    for part, prefix in parts.items():
        inner = [one.removeprefix(start) for one in given for start in (f"{part}.", prefix) if one.startswith(start)]
        if part == "unet":
            found = _unet_modules(inner)
        elif part == "vae":
            found = _vae_modules(inner)
        elif (family, part) in OPENCLIP:
            found = _openclip_modules(inner, family)
        else:
            found = {name: name for name in ("embeddings", "encoder", "final_layer_norm")}
        table |= {f"{part}.{ours}": f"{prefix}{theirs}" for ours, theirs in found.items()}
    return table


def _unet_modules(inner: list[str]) -> dict[str, str]:
    """Blocks are numbered through in a file, by level and layer in a folder."""
    layers = _highest(inner, r"down_blocks\.\d+\.resnets\.(\d+)\.") + 1
    if not layers:  # a file's names: a level ends with its downsampling, if there is more than one level
        blocks = _numbers(inner, r"input_blocks\.(\d+)\.")
        layers = min(_numbers(inner, r"input_blocks\.(\d+)\.0\.op\."), default=max(blocks, default=1) + 1) - 1
    count = layers + 1
    levels = max(_highest(inner, r"down_blocks\.(\d+)\."), _highest(inner, r"output_blocks\.(\d+)\.") // count) + 1
    resnets = {"mid_block.resnets.0": "middle_block.0", "mid_block.resnets.1": "middle_block.2"}
    table = UNET_ENDS.copy()
    for level in range(levels):
        first, last = level * count, level * count + layers
        for layer in range(count):
            resnets[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{first + layer + 1}.0"
            table[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{first + layer + 1}.1"
            resnets[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{first + layer}.0"
            table[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        attends = any(name.startswith((f"up_blocks.{level}.attentions.", f"output_blocks.{last}.2.")) for name in inner)
        table[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{last + 1}.0.op"
        table[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{last}.{2 if attends else 1}.conv"
    return table | _within(resnets, RESNET)


def _vae_modules(inner: list[str]) -> dict[str, str]:
    """The decoder's levels are numbered from the finest in a file, from the coarsest in a folder."""
    levels = _highest(inner, r"decoder\.up(?:_blocks)?\.(\d+)\.") + 1
    layers = _highest(inner, r"decoder\.up(?:_blocks)?\.\d+\.(?:resnets|block)\.(\d+)\.") + 1
    table = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    resnets: dict[str, str] = {}
    for half in ("encoder", "decoder"):
        table |= {f"{half}.{name}": f"{half}.{name}" for name in ("conv_in", "conv_out")}
        table[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        resnets |= {f"{half}.mid_block.resnets.{n}": f"{half}.mid.block_{n + 1}" for n in range(2)}
        table |= _within({f"{half}.mid_block.attentions.0": f"{half}.mid.attn_1"}, VAE_ATTENTION)
    for level in range(levels):
        down, up = ("encoder.down_blocks", "encoder.down"), ("decoder.up_blocks", "decoder.up")
        table[f"{down[0]}.{level}.downsamplers.0.conv"] = f"{down[1]}.{level}.downsample.conv"
        table[f"{up[0]}.{level}.upsamplers.0.conv"] = f"{up[1]}.{levels - 1 - level}.upsample.conv"
        for layer in range(layers):
            resnets[f"{down[0]}.{level}.resnets.{layer}"] = f"{down[1]}.{level}.block.{layer}"
            resnets[f"{up[0]}.{level}.resnets.{layer}"] = f"{up[1]}.{levels - 1 - level}.block.{layer}"
    return table | _within(resnets, VAE_RESNET)


def _openclip_modules(inner: list[str], family: Family) -> dict[str, str]:
    """Three names lead to one key where query, key and value are stacked."""
    wrapper = "" if family == "sd2" else "text_model."
    layers = _highest(inner, r"(?:text_model\.encoder\.layers|encoder\.layers|transformer\.resblocks)\.(\d+)\.") + 1
    table = {
        f"{wrapper}embeddings.token_embedding": "token_embedding",
        f"{wrapper}embeddings.position_embedding.weight": "positional_embedding",
        f"{wrapper}final_layer_norm": "ln_final",
    }
    if family == "sdxl":
        table["text_projection.weight"] = "text_projection"
    for layer in range(min(layers, UNUSED_LAYER) if family == "sd2" else layers):
        ours, theirs = f"{wrapper}encoder.layers.{layer}", f"transformer.resblocks.{layer}"
        table |= _within({ours: theirs}, OPENCLIP_LAYER)
        for kind in ("weight", "bias"):
            for name in ("q", "k", "v"):
                table[f"{ours}.self_attn.{name}_proj.{kind}"] = f"{theirs}.attn.in_proj_{kind}"
    return table


def _within(modules: Mapping[str, str], layers: Mapping[str, str]) -> dict[str, str]:
    """Every layer of every module."""
    return {f"{m}.{ours}": f"{modules[m]}.{theirs}" for m in modules for ours, theirs in layers.items()}


def _numbers(names: Iterable[str], pattern: str) -> set[int]:
    return {int(match[1]) for name in names if (match := re.match(pattern, name))}


def _highest(names: Iterable[str], pattern: str) -> int:
    """The highest number that the pattern finds, -1 for none."""
    return max(_numbers(names, pattern), default=-1)


def _split(modules: Mapping[str, object], name: str) -> tuple[str, str] | None:
    """The longest known beginning of a name, and the rest."""
    start = name
    while start not in modules:
        start, dot, _ = start.rpartition(".")
        if not dot:
            return None
    return start, name[len(start) :]


def _reversed(keys: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The folder's modules by the file's: one, or three where they are stacked."""
    modules: dict[str, tuple[str, ...]] = {}
    for ours, theirs in keys.items():
        modules[theirs] = (*modules.get(theirs, ()), ours)
    return modules


def _link_of(modules: Mapping[str, tuple[str, ...]], key: str) -> Link | None:
    """The link of a key, by the folder's modules of the file's."""
    found = _split(modules, key)
    if not found:
        return None
    names = tuple(module + found[1] for module in modules[found[0]])
    form: Form = "stacked" if len(names) > 1 else "same"
    if key.endswith(".text_projection"):
        form = "transposed"
    elif ".mid.attn_1." in key and key.endswith(".weight") and not key.endswith(".norm.weight"):
        form = "pointwise"
    return Link(key, names, form)
