"""method controlnet: a copy of the UNet's first half that reads a further picture (Zhang et al., arXiv 2302.05543).

What it says is added to the UNet's own; its last layers are zero at first, so that it begins by saying nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline

from stages.core.draws import seed_of
from stages.core.errors import StageError
from stages.core.families.family import Text
from stages.core.latents import Latents
from stages.core.objective import Further
from stages.core.pixels import to_images
from stages.core.weights import WEIGHTS, save_weights
from stages.train.learner import Opened, below
from stages.train.loop import Prepared
from stages.train.texts import Texts

PIPELINES = {
    "StableDiffusionPipeline": StableDiffusionControlNetPipeline,
    "StableDiffusionXLPipeline": StableDiffusionXLControlNetPipeline,
}


class ControlNet:
    """The copy learns; the UNet stays."""

    def __init__(self, opened: Opened, texts: Texts) -> None:
        self.opened, self.texts = opened, texts
        self.name = opened.params.controlnet.condition
        if opened.denoiser.family.pipeline.__name__ not in PIPELINES:
            raise StageError(
                "train.method",
                f"controlnet doesn't know {opened.denoiser.family.name}",
                "use Stable Diffusion 1, 2 or XL",
            )
        torch.manual_seed(seed_of(opened.params.seed, "controlnet weights"))
        self.network: Any = ControlNetModel.from_unet(opened.denoiser.network)
        self.model = torch.nn.ModuleDict({"controlnet": self.network})

    @property
    def rates(self) -> list[tuple[torch.nn.Module, float]]:
        return [(self.network, 1.0)]

    def conditions(self, data: Latents, rows: Sequence[int]) -> Prepared:
        return {"condition": data.condition(self.name, rows)}

    def further(self, prepared: Prepared) -> Further:
        """What the copy says of the condition."""

        def say(
            noised_BCHW: torch.Tensor, timesteps_B: torch.Tensor, text: Text, frames_B6: torch.Tensor
        ) -> dict[str, Any]:
            sized = {"text_embeds": text.pooled, "time_ids": frames_B6.to(noised_BCHW)}
            down, middle = self.network(
                noised_BCHW,
                timesteps_B,
                encoder_hidden_states=text.embeddings,
                controlnet_cond=prepared["condition"],
                added_cond_kwargs=sized if self.opened.denoiser.family.sized else None,
                return_dict=False,
            )
            return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

        return say

    def show(self, pipeline: Any, data: Latents, count: int) -> tuple[Any, list[Any]]:
        """A pipeline that follows conditions of the first pictures."""
        kind = PIPELINES[self.opened.denoiser.family.pipeline.__name__]
        chosen = next(rows for rows in data.groups if 0 in rows)
        rows = [chosen[number % len(chosen)] for number in range(count)]
        following = kind.from_pipe(pipeline, controlnet=self.network)
        return following, to_images(data.condition(self.name, rows) * 2 - 1)

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """The ControlNet in `controlnet`; the base stays as it is."""
        self.network.save_config(out / "controlnet")
        save_weights(below(weights, "controlnet."), out / "controlnet" / WEIGHTS, about)
