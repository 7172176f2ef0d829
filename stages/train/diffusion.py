"""The diffusion objective on stored latents, whichever method learns. Every draw belongs to a sample and its key."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from stages.core.draws import uniform
from stages.core.errors import StageError
from stages.core.families.known import empty_is_zero, load_pipeline
from stages.core.families.live import Live, embed
from stages.core.files import folder_digest
from stages.core.latents import Latents, latents_digest
from stages.core.noise import normal
from stages.core.objective import Further, validation_losses
from stages.core.sampling import Drawing, draw, side_of
from stages.core.sheets import contact_sheet
from stages.train.captions import choose_caption
from stages.train.controlnet import ControlNet
from stages.train.export import require_single_file, write_single_file
from stages.train.full import Full
from stages.train.inversion import Inversion
from stages.train.learner import Learner, Opened, below, open_base
from stages.train.loop import Prepared
from stages.train.lora import Lora
from stages.train.order import rows_of
from stages.train.params import TrainParams
from stages.train.priors import open_priors
from stages.train.texts import Stored, Texts
from stages.train.timesteps import draw_times
from stages.train.weighting import check_fits, offset_noise, perturbed_noise, picture_losses

MOST_AREA = 4.2  # times: twice the side, and buckets a little larger
PRIOR = "prior "  # what the names of a batch's tensors begin with that are of class pictures


@dataclass
class Diffusion:
    """Predict the noise (or velocity, or flow) of training pictures; of class pictures too, where some are given."""

    params: TrainParams
    opened: Opened
    learner: Learner
    validation: Latents
    priors: Latents | None
    digest: str

    splits = True

    def __len__(self) -> int:
        return len(self.opened.train)

    @property
    def model(self) -> torch.nn.Module:
        return self.learner.model

    @property
    def rates(self) -> Sequence[tuple[torch.nn.Module, float]]:
        return self.learner.rates

    @property
    def frozen(self) -> Sequence[torch.nn.Module]:
        texts = self.learner.texts
        encoders = texts.encoders if isinstance(texts, Live) else []
        return [self.opened.denoiser.network, *(encoder.model for encoder in encoders)]

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        return self.opened.train.groups

    @property
    def prompts(self) -> list[int]:
        """The numbers of the prompts that stand for the pictures' own captions; none if they keep them."""
        known = len(self.opened.captions)
        return list(range(known, known + len(self.params.prompts)))

    def prepare(self, samples: Sequence[int], rows: Sequence[int]) -> tuple[list[str], Prepared]:
        """What `losses` needs of these rows, and their keys."""
        keys, prepared = self._drawn(self.opened.train, "", samples, rows)
        if self.priors is not None:
            number, size = samples[0] // self.params.batch_size, self.params.batch_size
            chosen = rows_of(number, size, self.priors.groups, self.params.seed)
            first = samples[0] % size  # another process has the samples before
            _, more = self._drawn(self.priors, PRIOR, samples, chosen[first : first + len(samples)])
            prepared |= {PRIOR + name: value for name, value in more.items()}
        return keys, prepared

    def _drawn(
        self, data: Latents, kind: str, samples: Sequence[int], rows: Sequence[int]
    ) -> tuple[list[str], Prepared]:
        params, opened, batch = self.params, self.opened, data.read(rows)
        shape, named = tuple(batch.mean.shape[1:]), list(zip(samples, batch.keys, strict=True))

        def drawn(what: str, size: tuple[int, ...] = shape) -> torch.Tensor:
            return torch.stack([normal(size, params.seed, kind + what, *name) for name in named])

        noise = drawn("noise")
        if params.objective.noise_offset:
            noise = offset_noise(noise, drawn("noise offset", shape[:1]), params.objective.noise_offset)
        draws = torch.tensor([uniform(params.seed, kind + "timestep", *name) for name in named], dtype=torch.float64)
        prepared = {
            "latents": opened.denoiser.scale.apply(batch.mean + batch.std * drawn("posterior")),
            "noise": noise,
            "levels": draw_times(params.objective, draws).float(),
            "frames": batch.frames,
        }
        if params.objective.input_perturbation:
            prepared["perturbed"] = perturbed_noise(noise, drawn("perturbation"), params.objective.input_perturbation)
        if kind:  # class pictures have captions of their own, told by another table
            return batch.keys, prepared | self._prior_texts.prepare(self._captions(batch.captions, named))
        numbers = self._captions([self.prompts or listed for listed in batch.captions], named)
        if params.objective.mask:
            mask_B1HW = data.condition(params.objective.mask, rows).mean(dim=1, keepdim=True)
            prepared["mask"] = torch.nn.functional.interpolate(mask_B1HW, shape[1:], mode="area")
        return batch.keys, prepared | self.learner.texts.prepare(numbers) | self.learner.conditions(data, rows)

    def _captions(self, listed: list[list[int]], named: list[tuple[int, str]]) -> list[int]:
        return [choose_caption(self.params, one, *name) for one, name in zip(listed, named, strict=True)]

    @cached_property
    def _prior_texts(self) -> Texts:
        """Captions of class pictures: through the text encoders too, where those learn."""
        if self.priors is None:
            raise ValueError("there are no class pictures")
        texts = self.learner.texts
        if isinstance(texts, Live):
            return Live(texts.family, texts.encoders, self.priors.caption_texts(), texts.empty_is_zero)
        return Stored(self.priors)

    def losses(self, prepared: Prepared) -> torch.Tensor:
        """The denoiser's weighted errors, (B,); with class pictures, theirs times the prior's weight are added."""
        losses = self._errors(prepared, self.learner.texts)
        if self.priors is not None:
            more = self._errors(below(prepared, PRIOR), self._prior_texts)
            losses = losses + self.params.prior.weight * more
        return losses

    def _errors(self, prepared: Prepared, texts: Texts) -> torch.Tensor:
        denoiser, objective = self.opened.denoiser, self.params.objective
        timesteps = denoiser.process.timesteps(prepared["levels"])
        answer, target = denoiser.ask(
            prepared["latents"],
            texts.read(prepared),
            prepared["frames"],
            prepared["noise"],
            timesteps,
            self.learner.further(prepared),
            prepared.get("perturbed"),
        )
        snr, kind = denoiser.process.snr(timesteps), denoiser.process.kind
        return picture_losses(objective, kind, answer, target, snr, prepared["levels"], prepared.get("mask"))

    def validate(self) -> dict[str, float]:
        """The mean loss over timesteps, and in each bin of them from little noise to much."""
        if not len(self.validation):
            return {}
        params, texts, device = self.params, self.learner.texts, next(self.opened.denoiser.network.parameters()).device

        def text(numbers: Sequence[int]) -> Any:
            chosen = [self.prompts[0]] * len(numbers) if self.prompts else numbers
            return texts.read(on(device, texts.prepare(chosen)))

        def further(rows: Sequence[int]) -> Further | None:
            return self.learner.further(on(device, self.learner.conditions(self.validation, rows)))

        losses = validation_losses(
            self.opened.denoiser,
            self.validation,
            params.validation_pictures,
            params.validation_bins,
            params.seed,
            text,
            further,
        )
        curve: list[float] = losses.mean(dim=1).tolist()
        bins = {f"bins/{part:02d}": loss for part, loss in enumerate(curve)}
        return {"loss": sum(curve) / len(curve), **bins}

    def preview(self) -> Image.Image | None:
        """A sheet of the preview prompts, drawn with the base's other parts.

        As large as the training pictures; where they are of several sizes, as the model is meant for.
        """
        prompts = self.params.preview_prompts
        if not prompts:
            return None
        data = self.validation if len(self.validation) else self.opened.train
        pipeline, conditions = self.learner.show(self._pipeline, data, len(prompts))
        pipeline.to(next(self.opened.denoiser.network.parameters()).device)
        side = self.opened.train.sizes[0][0] if len(self.groups) == 1 else side_of(pipeline)
        steps, guidance = self.params.preview_steps, self.params.preview_guidance
        shown = conditions or [None] * len(prompts)
        drawings = [
            Drawing(prompt, seed, (side, side), steps, guidance, condition=condition)
            for seed, (prompt, condition) in enumerate(zip(prompts, shown, strict=True))
        ]
        drawn = draw(pipeline, drawings, batch_size=8)
        if conditions is None:
            return contact_sheet(drawn, prompts, columns=4)
        pairs = [picture for pair in zip(conditions, drawn, strict=True) for picture in pair]
        return contact_sheet(pairs, [label for prompt in prompts for label in ("follows", prompt)], columns=4)

    @cached_property
    def _pipeline(self) -> Any:
        pipeline = load_pipeline(self.opened.base)
        setattr(pipeline, self.opened.denoiser.family.denoiser, self.opened.denoiser.network)
        return pipeline

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """Write the base, changed by what was learned."""
        shutil.copytree(self.opened.base, out, dirs_exist_ok=True)
        if self.params.objective.zero_terminal_snr:
            path = out / "scheduler" / "scheduler_config.json"
            config = json.loads(path.read_text(encoding="utf-8"))
            config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        self.learner.save(weights, about, out)
        if self.params.single_file:
            write_single_file(out, out / "checkpoint.safetensors", about)


def on(device: torch.device, prepared: Prepared) -> Prepared:
    """The batch on a device; from pinned memory without waiting."""
    return {name: value.to(device, non_blocking=True) for name, value in prepared.items()}


def open_diffusion(params: TrainParams, latents: Path, base: Path) -> Diffusion:
    """Open base and latents for the method. Raises StageError if they don't fit each other."""
    own = Latents(latents, "train", ["regularisation"])
    preserves = params.method in ("full", "dreambooth", "lora") and bool(len(own) or params.prior.prompt)
    # Class pictures are no pictures of the word, nor of what a validation under train.prompts asks for.
    apart = preserves or params.method == "textual_inversion"
    opened = open_base(params, latents, base, ["train"] if apart else ["train", "regularisation"])
    if not len(opened.train):
        raise StageError("train", "there are no training pictures", "lower clean.validation_share")
    check_fit(opened)
    check_size(opened)
    if params.single_file:
        require_single_file(base)
    check_fits(params.objective, opened.denoiser.process.kind)
    digest = latents_digest(latents)
    priors = open_priors(opened, latents, folder_digest(base)) if preserves else None
    return Diffusion(params, opened, open_learner(opened), Latents(latents, "validation", ["train"]), priors, digest)


def check_fit(opened: Opened) -> None:
    """Refuse latents and text that the base doesn't know. Raises StageError."""
    network, family = opened.denoiser.network, opened.denoiser.family
    batch, text = opened.train.read([0]), opened.train.text([0])
    width, pooled = family.text_shape(network)
    found = 0 if text.pooled is None else text.pooled.shape[1]
    fits = text.embeddings.shape[2] == width or (family.optional and text.embeddings.shape[2] < width)
    if batch.mean.shape[1] != network.config.in_channels or not fits or found != pooled:
        raise StageError(
            "train",
            f"latents of {batch.mean.shape[1]} channels and text of width {text.embeddings.shape[2]} ({found} pooled) "
            f"don't fit {family.name} with {network.config.in_channels} and {width} ({pooled})",
            "run encode with this base",
        )


def check_size(opened: Opened) -> None:
    """Refuse pictures far from the size that the base was made for: it would draw nothing that is whole.

    Raises StageError where an area is more than 4.2 times the base's, or less than a part of that.
    """
    made_for = opened.denoiser.network.config.sample_size
    for rows in opened.train.groups:
        height, width = opened.train.read(rows[:1]).mean.shape[2:]
        ratio = height * width / made_for**2
        if not 1 / MOST_AREA <= ratio <= MOST_AREA:
            size = opened.train.sizes[rows[0]]
            side = round((size[0] * size[1] / ratio) ** 0.5)
            raise StageError(
                "train",
                f"pictures of {size[0]} x {size[1]} px don't fit a base made for {side} x {side}",
                "set preprocess.resolution nearer to it, half or twice at most",
            )


def open_learner(opened: Opened) -> Learner:
    """The method's learner."""
    params, family = opened.params, opened.denoiser.family
    zero, captions = empty_is_zero(opened.base), [*opened.captions, *params.prompts]
    if params.method == "textual_inversion":
        return Inversion(opened, captions, zero)
    if params.text_encoder.learns and params.method != "controlnet":
        encoders = opened.encoders()
        live = Live(family, encoders, captions, zero)
        learn = {encoder.name: encoder.model for encoder in encoders if encoder.name != "text_encoder_3"}
        return Lora(opened, live, learn) if params.method == "lora" else Full(opened, live, learn)
    prompts = embed(family, opened.encoders(), params.prompts) if params.prompts else None
    stored = Stored(opened.train, prompts, len(opened.captions))
    match params.method:
        case "lora":
            return Lora(opened, stored, {})
        case "controlnet":
            return ControlNet(opened, stored)
        case _:
            return Full(opened, stored, {})
