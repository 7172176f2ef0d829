"""The two names of a LoRA's tensors: in PEFT's and diffusers' files, and in kohya's sd-scripts' files.

A LoRA (Hu et al., arXiv 2106.09685) adds `alpha / rank * up @ down` to a module's weight. A module is called
`<part>.<name in the part>`: `unet.mid_block.attentions.0.proj_in`. Its tensors are

    diffusers   unet.mid_block.attentions.0.proj_in.lora_A.weight, .lora_B.weight; alpha in the file's metadata
    sd-scripts  lora_unet_mid_block_attentions_0_proj_in.lora_down.weight, .lora_up.weight, .alpha

sd-scripts writes `_` for every `.`, which can't be undone without a list of the modules there are; names the text
encoders lora_te_, or lora_te1_ and lora_te2_ in Stable Diffusion XL, whose UNet it calls by the original names.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from stages.core.errors import StageError
from stages.core.original_names import PREFIXES, Family, current_name, link_names

Role = Literal["down", "up", "alpha"]

# What diffusers writes, and what it wrote before it had PEFT.
DIFFUSERS_ROLES: dict[str, Role] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
KOHYA_ROLES: dict[str, Role] = {".lora_down.weight": "down", ".lora_up.weight": "up", ".alpha": "alpha"}
METADATA = "lora_adapter_metadata"  # diffusers' key for peft's LoraConfig, a JSON object whose keys begin with the part


@dataclass(frozen=True)
class Adapter:
    """One module's update. down: (rank, in) or (rank, in, h, w). up: (out, rank) or (out, rank, 1, 1)."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def kohya_names(family: Family, modules: Iterable[str]) -> dict[str, str]:
    """What sd-scripts calls each module, by module.

    modules: all that the model has, for the numbers of the original names follow from them.
    Raises StageError if two modules would share a name.
    """
    given = list(modules)
    original: dict[str, str] = {}
    if family == "sdxl":
        prefix = PREFIXES[family]["unet"]
        for link in link_names(family, [f"{module}.weight" for module in given if module.startswith("unet.")])[0]:
            original[link.names[0].removesuffix(".weight")] = link.key.removeprefix(prefix).removesuffix(".weight")
    names: dict[str, str] = {}
    for module in given:
        names[module] = _kohya_name(family, module, original.get(module))
    if len(set(names.values())) < len(names):
        raise StageError("LoRA", "two modules have one name in sd-scripts' files", "keep PEFT's")
    return names


def _kohya_name(family: Family, module: str, original: str | None) -> str:
    part, _, inner = module.partition(".")
    if part == "unet":
        return f"lora_unet_{(original or inner).replace('.', '_')}"
    start = {"text_encoder": "te1" if family == "sdxl" else "te", "text_encoder_2": "te2"}[part]
    if not inner.startswith(("text_model.", "text_projection")):
        inner = f"text_model.{inner}"
    return f"lora_{start}_{inner.replace('.', '_')}"


def roles_of(
    family: Family, keys: Iterable[str], modules: Iterable[str]
) -> tuple[dict[str, dict[Role, str]], list[str]]:
    """Each module's keys by role, and the keys that are of no module.

    keys: of a file of either kind. modules: all that the model has, by `stages.core.original_names.current_name`.
    """
    given = list(modules)
    by_kohya = {name: module for module, name in kohya_names(family, given).items()}
    if family == "sdxl":  # diffusers reads its own names too
        by_kohya |= {_kohya_name(family, module, None): module for module in given}
    known = set(given)
    found: dict[str, dict[Role, str]] = {}
    rest = []
    for key in keys:
        named = _parse(key, by_kohya) if key.startswith("lora_") else _parse_diffusers(key)
        if named and named[0] in known:
            found.setdefault(named[0], {})[named[1]] = key
        else:
            rest.append(key)
    return found, rest


def _parse(key: str, by_kohya: Mapping[str, str]) -> tuple[str, Role] | None:
    for end, role in KOHYA_ROLES.items():
        if key.endswith(end) and key.removesuffix(end) in by_kohya:
            return by_kohya[key.removesuffix(end)], role
    return None


def _parse_diffusers(key: str) -> tuple[str, Role] | None:
    for end, role in DIFFUSERS_ROLES.items():
        if key.endswith(end):
            module = key.removesuffix(end).replace(".processor.", ".")
            if end.startswith("_lora"):  # attn1.processor.to_out_lora
                module = re.sub(r"\.to_out$", ".to_out.0", module)
            return current_name(module), role
    return None


def alphas_of(metadata: Mapping[str, str] | None, ranks: Mapping[str, int]) -> dict[str, float]:
    """Each module's alpha by what a diffusers file's metadata say; its rank where they say nothing, a scale of 1.

    ranks: by module. Raises StageError if the file is a DoRA.
    """
    config: dict[str, Any] = json.loads((metadata or {}).get(METADATA, "{}"))
    alphas = {}
    for module, rank in ranks.items():
        part, _, inner = module.partition(".")
        own = {key.removeprefix(f"{part}."): value for key, value in config.items() if key.startswith(f"{part}.")}
        if own.get("use_dora"):
            raise StageError(module, "is a DoRA, whose magnitudes are no sum of matrices", "use a plain LoRA")
        alpha = float(own.get("lora_alpha", rank))
        for pattern, value in own.get("alpha_pattern", {}).items():
            if re.match(rf"(.*\.)?({pattern.removeprefix('^')})$", inner):
                alpha = float(value)
        alphas[module] = alpha * math.sqrt(rank) if own.get("use_rslora") else alpha  # arXiv 2312.03732
    return alphas


def read_adapters(
    family: Family, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None, modules: Iterable[str]
) -> dict[str, Adapter]:
    """A file's adapters by module, whichever kind of file it is.

    Raises StageError, which names the key, if a tensor is of no module or has no counterpart.
    """
    found, rest = roles_of(family, tensors, modules)
    if rest:
        raise StageError(rest[0], "is no tensor of a LoRA for this model", "use a LoRA of the model's family")
    for module, keys in found.items():
        for role in ("down", "up"):
            if role not in keys:
                raise StageError(module, f"has no {role} matrix in the LoRA", "use a whole file")
    alphas = alphas_of(metadata, {module: tensors[keys["down"]].shape[0] for module, keys in found.items()})
    return {
        module: Adapter(
            tensors[keys["down"]],
            tensors[keys["up"]],
            float(tensors[keys["alpha"]]) if "alpha" in keys else alphas[module],
        )
        for module, keys in found.items()
    }


def to_kohya(family: Family, adapters: Mapping[str, Adapter], modules: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors of a file as sd-scripts writes them; alpha is float32, a scalar."""
    names = kohya_names(family, modules)
    tensors: dict[str, torch.Tensor] = {}
    for module, adapter in adapters.items():
        tensors[f"{names[module]}.lora_down.weight"] = adapter.down
        tensors[f"{names[module]}.lora_up.weight"] = adapter.up
        tensors[f"{names[module]}.alpha"] = torch.tensor(adapter.alpha)
    return tensors


def to_peft(adapters: Mapping[str, Adapter]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a file as diffusers writes them, and its metadata."""
    tensors: dict[str, torch.Tensor] = {}
    config: dict[str, Any] = {}
    for module, adapter in sorted(adapters.items()):
        tensors[f"{module}.lora_A.weight"] = adapter.down
        tensors[f"{module}.lora_B.weight"] = adapter.up
        part, _, inner = module.partition(".")
        config.setdefault(f"{part}.r", adapter.rank)
        config.setdefault(f"{part}.lora_alpha", adapter.alpha)
        config.setdefault(f"{part}.target_modules", []).append(inner)
        if adapter.rank != config[f"{part}.r"]:
            config.setdefault(f"{part}.rank_pattern", {})[f"^{re.escape(inner)}"] = adapter.rank
        if adapter.alpha != config[f"{part}.lora_alpha"]:
            config.setdefault(f"{part}.alpha_pattern", {})[f"^{re.escape(inner)}"] = adapter.alpha
    return tensors, {METADATA: json.dumps(config, sort_keys=True)}
