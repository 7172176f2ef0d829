"""Draw pictures: one CPU generator a picture, so that nothing beside a picture changes it.

One loop for every family and sampler: from noise, from a picture on its way into noise, within a mask, along a
condition. diffusers' own pipelines count the steps of a start halfway by truncating, and inpaint models of 4 latent
channels alone; what they do from noise, this does too (`tests/core/test_sampling.py` compares).

Shapes: B pictures, C latent channels, h x w latent pixels.
"""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image, ImageOps
from torch.nn.functional import adaptive_max_pool2d

from stages.core.errors import StageError
from stages.core.models import Scale
from stages.core.schedulers import make_scheduler, nearest_start, sampler_of
from stages.core.texts import Reader, Texts, family_of_pipeline, plain_text

MOST_PIXELS = 2**20  # that pass through a VAE at once: it takes far more memory than the denoiser does


@dataclass(frozen=True)
class Start:
    """What a picture begins with instead of noise alone.

    level: how far into noise it goes, above 0 to 1. mask: mode L; what is white is drawn anew, the rest stays.
    """

    picture: Image.Image
    level: float
    mask: Image.Image | None = None


@dataclass(frozen=True)
class Drawing:
    """One picture to draw. seed: names the noise, as in other programs (torch's CPU generator). size: px.

    condition: what a ControlNet follows; control: how strongly.
    """

    prompt: str
    seed: int
    size: tuple[int, int]
    steps: int = 25
    guidance: float = 5.0
    negative: str = ""
    scheduler: str = "ddim"
    start: Start | None = None
    condition: Image.Image | None = None
    control: float = 1.0

    @property
    def together(self) -> tuple[Any, ...]:
        """Pictures of which this is equal can be drawn in one batch."""
        begins = (self.start.level, self.start.mask is not None) if self.start else (0.0, False)
        return (
            *(self.steps, self.guidance, self.scheduler, self.size, begins),
            *(self.condition is not None, self.control),
        )

    @property
    def order(self) -> tuple[Any, ...]:
        """Where it stands in its batch, whatever the list that it came in."""
        given = [self.condition, *((self.start.picture, self.start.mask) if self.start else ())]
        return self.prompt, self.negative, self.seed, [_digest(picture) for picture in given]


def side_of(pipeline: Any) -> int:
    """px: what the model was made for."""
    denoiser = getattr(pipeline, family_of_pipeline(pipeline).denoiser)
    return int(denoiser.config.sample_size * pipeline.vae_scale_factor)


def draw(pipeline: Any, drawings: Sequence[Drawing], batch_size: int, read: Reader = plain_text) -> list[Image.Image]:
    """One picture for each drawing, in order. Batches and the list's order save time and change nothing else.

    Every distinct text is read once. A pipeline's `controlnet` follows the conditions.
    Raises StageError if a sampler doesn't fit the model.
    """
    texts = Texts(pipeline, read)
    groups: dict[Any, list[int]] = {}
    for number, drawing in enumerate(drawings):
        key = (*drawing.together, texts.length(*_read(drawing)))
        groups.setdefault(key, []).append(number)
    pictures: dict[int, Image.Image] = {}
    for numbers in groups.values():
        numbers.sort(key=lambda number: drawings[number].order)
        for first in range(0, len(numbers), batch_size):
            batch = numbers[first : first + batch_size]
            drawn = Batch(pipeline, [drawings[number] for number in batch], texts).draw()
            pictures |= zip(batch, drawn, strict=True)
    return [pictures[number] for number in range(len(drawings))]


class Batch:
    """Pictures of equal settings on their way from noise."""

    def __init__(self, pipeline: Any, drawings: Sequence[Drawing], texts: Texts) -> None:
        self.pipeline, self.drawings = pipeline, drawings
        self.family = family_of_pipeline(pipeline)
        self.denoiser = getattr(pipeline, self.family.denoiser)
        self.device = pipeline.device
        if self.denoiser.config.in_channels != pipeline.vae.config.latent_channels:
            raise StageError("model", "reads more than noised latents, as inpainting models do", "use a plain one")
        one = drawings[0]
        self.width, self.height = one.size
        self.at_once = max(1, MOST_PIXELS // (self.width * self.height))
        # A distilled model is told the scale instead (Meng et al., arXiv 2210.03142).
        self.told = getattr(self.denoiser.config, "time_cond_proj_dim", None)
        self.guided = one.guidance > 1 and not self.told
        negatives = [drawing.negative for drawing in drawings] if self.guided else None
        frame = (self.height, self.width, 0, 0, self.height, self.width)
        self.text = texts.batch([drawing.prompt for drawing in drawings], negatives, texts.length(*_read(one)))
        rows = self.text.embeddings
        self.frames = torch.tensor([frame] * len(rows), device=self.device, dtype=rows.dtype)
        self.scheduler = make_scheduler(pipeline.scheduler, one.scheduler, one.steps, self.device)
        self.generators = [torch.Generator("cpu").manual_seed(drawing.seed) for drawing in drawings]
        config = pipeline.vae.config
        self.scale = Scale(config.scaling_factor, getattr(config, "shift_factor", None) or 0.0)
        self.further = self._further()

    @torch.no_grad()
    def draw(self) -> list[Image.Image]:
        """The pictures, mode RGB."""
        shape = (
            len(self.drawings),
            self.pipeline.vae.config.latent_channels,
            self.height // self.pipeline.vae_scale_factor,
            self.width // self.pipeline.vae_scale_factor,
        )
        noise = randn_tensor(shape, self.generators, self.device, self.text.embeddings.dtype)
        latents = self._solve(noise)
        pictures: list[Image.Image] = []
        for some in _pieces(self.scale.undo(latents), self.at_once):
            pixels = self.pipeline.vae.decode(some).sample
            pictures += self.pipeline.image_processor.postprocess(pixels, output_type="pil")
        return [_kept_outside(*pair) for pair in zip(pictures, self.drawings, strict=True)]

    def _solve(self, noise: torch.Tensor) -> torch.Tensor:
        """The reverse process, (B, C, h, w) to the same."""
        scheduler, one = self.scheduler, self.drawings[0]
        first, known, mask = 0, None, None
        if one.start is None:
            latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        else:
            if not sampler_of(self.pipeline.scheduler, one.scheduler).halfway:
                raise StageError("scheduler", f"{one.scheduler} can't begin with a picture", "use ddim or euler")
            first = nearest_start(scheduler, one.start.level)
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(first)
            known = self._encoded(noise)
            mask = self._mask(noise)
            latents = self._noised(known, noise, scheduler.timesteps[first])
        drawn = {"generator": self.generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
        for number, timestep in enumerate(scheduler.timesteps[first:], first + 1):
            answer = self._ask(latents, timestep)
            latents = scheduler.step(answer, timestep, latents, **drawn).prev_sample
            # Between the halves of a step of second order the level of noise is the sampler's own affair.
            if mask is not None and known is not None and number % scheduler.order == first % scheduler.order:
                ended = number == len(scheduler.timesteps)
                kept = known if ended else self._noised(known, noise, scheduler.timesteps[number])
                latents = torch.where(mask, latents, kept)
        return latents

    def _ask(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The denoiser's answer, with classifier-free guidance (Ho and Salimans, arXiv 2207.12598, eq. 6)."""
        seen = torch.cat([latents, latents]) if self.guided else latents
        if hasattr(self.scheduler, "scale_model_input"):
            seen = self.scheduler.scale_model_input(seen, timestep)
        timesteps_B = timestep.expand(len(seen))
        more = self.further(seen, timesteps_B)
        answer = self.family.answer(self.denoiser, seen, timesteps_B, self.text, self.frames, **more)
        if not self.guided:
            return answer
        away, toward = answer.chunk(2)
        return away + self.drawings[0].guidance * (toward - away)

    def _further(self) -> Callable[..., dict[str, Any]]:
        """What else the denoiser is told: a scale it was distilled for, what a ControlNet says of the conditions."""
        constant: dict[str, Any] = {}
        if self.told:
            scales = torch.tensor([self.drawings[0].guidance - 1] * len(self.drawings))
            constant["timestep_cond"] = self.pipeline.get_guidance_scale_embedding(scales, self.told).to(self.device)
        if self.drawings[0].condition is None:
            return lambda *_: constant
        network, control = self.pipeline.controlnet, self.drawings[0].control
        shown = [fitted(drawing.condition, drawing.size) for drawing in self.drawings if drawing.condition]
        pixels = self.pipeline.control_image_processor.preprocess(shown, height=self.height, width=self.width)
        condition = torch.cat([pixels, pixels] if self.guided else [pixels]).to(self.device, network.dtype)

        def say(seen: torch.Tensor, timesteps_B: torch.Tensor) -> dict[str, Any]:
            sized = {"text_embeds": self.text.pooled, "time_ids": self.frames} if self.family.sized else None
            down, middle = network(
                seen,
                timesteps_B,
                encoder_hidden_states=self.text.embeddings,
                controlnet_cond=condition,
                conditioning_scale=control,
                added_cond_kwargs=sized,
                return_dict=False,
            )
            return constant | {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

        return say

    def _encoded(self, noise: torch.Tensor) -> torch.Tensor:
        """Scaled latents (B, C, h, w) of the pictures to begin with, each read once: the mode, nothing is drawn."""
        pictures = [drawing.start.picture for drawing in self.drawings if drawing.start]
        distinct = {id(picture): picture for picture in pictures}
        shown = [fitted(picture, (self.width, self.height)) for picture in distinct.values()]
        pixels = self.pipeline.image_processor.preprocess(shown).to(self.device, noise.dtype)
        means = [self.pipeline.vae.encode(some).latent_dist.mode() for some in _pieces(pixels, self.at_once)]
        rows = [list(distinct).index(id(picture)) for picture in pictures]
        return self.scale.apply(torch.cat(means)[rows])

    def _mask(self, noise: torch.Tensor) -> torch.Tensor | None:
        """Which latents may change, (B, 1, h, w) bool: those below any pixel that does."""
        masks = [drawing.start.mask for drawing in self.drawings if drawing.start and drawing.start.mask]
        if not masks:
            return None
        shown = [fitted(mask, (self.width, self.height)) for mask in masks]
        pixels = torch.stack([torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8) for mask in shown])
        pixels = pixels.view(-1, 1, self.height, self.width)
        return adaptive_max_pool2d(pixels.float(), tuple(noise.shape[2:])).gt(0).to(self.device)

    def _noised(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        timesteps_B = timestep.reshape(1).expand(len(latents))
        if hasattr(self.scheduler, "scale_noise"):  # a flow
            noised: torch.Tensor = self.scheduler.scale_noise(latents, timesteps_B[:1], noise)
        else:
            noised = self.scheduler.add_noise(latents, noise, timesteps_B)
        return noised


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As large as `size`: resized, and cut around the middle where its shape is another."""
    return picture if picture.size == size else ImageOps.fit(picture, size, Image.Resampling.LANCZOS)


def _pieces(rows: torch.Tensor, most: int) -> list[torch.Tensor]:
    return [rows[first : first + most] for first in range(0, len(rows), most)]


def _kept_outside(drawn: Image.Image, drawing: Drawing) -> Image.Image:
    """Outside the mask the original's own pixels: the VAE wouldn't give them back as they were."""
    if drawing.start is None or drawing.start.mask is None:
        return drawn
    kept, mask = (fitted(picture, drawing.size) for picture in (drawing.start.picture, drawing.start.mask))
    return Image.composite(drawn, kept, mask)


def _read(drawing: Drawing) -> list[str]:
    """The texts that the denoiser reads."""
    return [drawing.prompt, drawing.negative] if drawing.guidance > 1 else [drawing.prompt]


def _digest(picture: Image.Image | None) -> str:
    return "" if picture is None else hashlib.sha256(picture.tobytes()).hexdigest()
