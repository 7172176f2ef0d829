"""method lora: a low-rank change of the attention's matrices (Hu et al., arXiv 2106.09685), by peft.

W + alpha / rank * B A, A of rank x in, B of out x rank, zero at first. DoRA (Liu et al., arXiv 2402.09353) learns the
length of each of W's columns apart from its direction.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraModel

from stages.core.draws import seed_of
from stages.core.errors import StageError
from stages.core.families.family import load_denoiser, load_encoder
from stages.core.latents import Latents
from stages.core.weights import WEIGHTS, save_weights
from stages.train.export import write_kohya
from stages.train.full import as_type, replace_part
from stages.train.learner import Opened, below
from stages.train.loop import Prepared
from stages.train.texts import Texts

ADAPTER = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


class Lora:
    """Adapters of the denoiser and, where they learn, of text encoders; the weights below stay as they are."""

    def __init__(self, opened: Opened, texts: Texts, encoders: dict[str, torch.nn.Module]) -> None:
        self.opened, self.texts = opened, texts
        torch.manual_seed(seed_of(opened.params.seed, "lora weights"))
        family, denoiser = opened.denoiser.family, opened.denoiser.network
        targets = opened.params.lora.targets or list(family.targets)
        self.adapted = {family.denoiser: self._adapt(denoiser, targets)}
        self.adapted |= {name: self._adapt(encoder, list(TEXT_TARGETS)) for name, encoder in encoders.items()}
        self.model = torch.nn.ModuleDict({name: tuner.model for name, tuner in self.adapted.items()})

    def _adapt(self, network: torch.nn.Module, targets: list[str]) -> LoraModel:
        lora = self.opened.params.lora
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, use_dora=lora.dora)
        try:
            return LoraModel(network, {"default": config}, "default")
        except ValueError as error:
            raise StageError("train.lora.targets", str(error).splitlines()[0], "name ends of linear layers") from None

    @property
    def rates(self) -> list[tuple[torch.nn.Module, float]]:
        denoiser, factor = self.opened.denoiser.family.denoiser, self.opened.params.text_encoder.rate
        return [(tuner.model, 1.0 if name == denoiser else factor) for name, tuner in self.adapted.items()]

    def conditions(self, data: Latents, rows: Sequence[int]) -> Prepared:  # noqa: ARG002 - other methods read them
        return {}

    def further(self, prepared: Prepared) -> None:
        """Nothing."""

    def show(self, pipeline: Any, data: Latents, count: int) -> tuple[Any, None]:  # noqa: ARG002 - other methods do
        for name, tuner in self.adapted.items():
            setattr(pipeline, name, tuner.model)
        return pipeline, None

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """The adapter by itself, as diffusers and sd-scripts have it, in `adapter`; the base with it in its weights.

        Stored scaled, so that alpha equals the rank, which is what loaders take where a file says nothing of alpha.
        """
        family, base = self.opened.denoiser.family, self.opened.base
        precise = {name: weight.float() for name, weight in weights.items()}
        learned = {
            name: get_peft_model_state_dict(tuner.model, below(precise, f"{name}."))
            for name, tuner in self.adapted.items()
        }
        dtype = next(iter(weights.values())).dtype
        scale = self.opened.params.lora.alpha / self.opened.params.lora.rank
        adapter = {}
        for name, values in learned.items():
            for key, value in values.items():
                scaled = value * scale if ".lora_B." in key else value
                adapter[f"{name}.{key}"] = scaled.detach().to(dtype).cpu()
        (out / "adapter").mkdir()
        save_weights(adapter, out / "adapter" / ADAPTER, about)
        plain = {}
        for name, tuner in self.adapted.items():  # added to the base as it is stored: here it may lie in fewer bits
            denoises = name == family.denoiser
            stored = load_denoiser(family, base) if denoises else load_encoder(family, base, name)
            fresh = self._adapt(stored, tuner.targeted_module_names)
            set_peft_model_state_dict(fresh.model, learned[name])
            plain[name] = fresh.merge_and_unload()
        modules = [
            f"{name}.{key.removesuffix('.weight')}"
            for name, network in plain.items()
            for key in network.state_dict()
            if key.endswith(".weight")
        ]
        if not self.opened.params.lora.dora:  # sd-scripts has no such files
            write_kohya(self.opened.base, adapter, modules, out / "adapter" / "kohya.safetensors", about)
        for name, network in plain.items():
            whole = {key: as_type(value, dtype) for key, value in network.state_dict().items()}
            replace_part(out / name, WEIGHTS if name == family.denoiser else "model.safetensors", whole, about)
