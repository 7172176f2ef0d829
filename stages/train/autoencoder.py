"""method vae: the autoencoder learns to give pictures back through few numbers.

Shapes: B pictures of H x W px, C latent channels, h x w latent pixels.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image

from stages.core.errors import StageError
from stages.core.files import folder_digest
from stages.core.models import load_vae
from stages.core.noise import normal
from stages.core.pixels import Pixels, to_images
from stages.core.sheets import contact_sheet
from stages.core.sizes import by_size
from stages.core.weights import WEIGHTS, save_weights
from stages.train.params import TrainParams

SHOWN = 16  # pictures of a preview


@dataclass
class Autoencoder:
    """Squared and absolute error of pixels, absolute error of edges, and a little of the KL divergence.

    Squares find colours early; absolute errors, of pixels and of their differences to the next pixel, keep
    edges sharp where squares would rather blur (the gradient difference loss of Mathieu et al., arXiv
    1511.05440, eq. 6, with exponent 1). The divergence from N(0, 1), summed over a picture's latents (Kingma
    and Welling, arXiv 1312.6114, appendix B), only bounds the latents: its weight is about that of latent
    diffusion (Rombach et al., arXiv 2112.10752, appendix G).
    """

    params: TrainParams
    model: AutoencoderKL
    train: Pixels
    validation: Pixels
    digest: str
    base: Path

    splits = True
    frozen = ()

    def __len__(self) -> int:
        return len(self.train)

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        return self.train.groups

    @property
    def rates(self) -> Sequence[tuple[torch.nn.Module, float]]:
        return [(self.model, 1.0)]

    def prepare(self, samples: Sequence[int], rows: Sequence[int]) -> tuple[list[str], dict[str, torch.Tensor]]:
        """Pixels, and noise for a draw from each picture's posterior."""
        keys, pixels_B3HW = [self.train.keys[row] for row in rows], self.train.read(rows)
        factor = 2 ** (len(self.model.config.block_out_channels) - 1)
        shape = (self.model.config.latent_channels, *(edge // factor for edge in pixels_B3HW.shape[2:]))
        noise = [normal(shape, self.params.seed, "posterior", *name) for name in zip(samples, keys, strict=True)]
        return keys, {"pixels": pixels_B3HW, "noise": torch.stack(noise)}

    def losses(self, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        """The losses (B,) of these pictures, each through a draw from its own posterior."""
        pixels_B3HW = self._on_device(prepared["pixels"])
        posterior = self.model.encode(pixels_B3HW).latent_dist
        decoded_B3HW: torch.Tensor = self.model.decode(posterior.mean + posterior.std * prepared["noise"]).sample
        kl_B: torch.Tensor = posterior.kl()
        return difference(decoded_B3HW, pixels_B3HW) + self.params.kl_weight * kl_B

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss without the divergence, and PSNR in dB over all pixels, of held-out pictures."""
        losses: list[torch.Tensor] = []
        errors: list[torch.Tensor] = []
        for rows in parts(self.validation, self.params.validation_pictures):
            pixels_B3HW = self._on_device(self.validation.read(rows))
            decoded_B3HW = self.reconstruct(pixels_B3HW)
            losses.append(difference(decoded_B3HW, pixels_B3HW))
            errors.append((decoded_B3HW.clamp(-1, 1) - pixels_B3HW).square().mean(dim=(1, 2, 3)))
        if not losses:
            return {}
        return {"loss": float(torch.cat(losses).mean()), "psnr": 10 * math.log10(4 / float(torch.cat(errors).mean()))}

    @torch.no_grad()
    def preview(self) -> Image.Image | None:
        """Held-out pictures, each beside what comes back; training pictures where none is held out."""
        data = self.validation if len(self.validation) else self.train
        shown = next(rows for rows in data.groups if 0 in rows)[:SHOWN]  # a sheet holds pictures of one size
        pixels_B3HW = data.read(shown)
        decoded_B3HW = self.reconstruct(self._on_device(pixels_B3HW))
        pairs = zip(to_images(pixels_B3HW), to_images(decoded_B3HW), strict=True)
        labels = [label for row in shown for label in (*data.captions[row][:1], "back")[-2:]]
        return contact_sheet([image for pair in pairs for image in pair], labels, columns=8)

    def reconstruct(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        """Decode the middle of the posterior."""
        decoded: torch.Tensor = self.model.decode(self.model.encode(pixels_B3HW).latent_dist.mode()).sample
        return decoded

    def _on_device(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return pixels_B3HW.to(self.model.device, memory_format=torch.channels_last)

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """Write the base with these weights in place of its VAE's, and the scale that they give latents."""
        shutil.copytree(self.base, out, dirs_exist_ok=True)
        for path in (out / "vae").glob("*.safetensors*"):
            path.unlink()
        self.model.load_state_dict(weights, strict=False)  # of method vae's part decoder, the encoder isn't among them
        if self.params.vae_part == "whole":
            self.model.register_to_config(scaling_factor=self._scaling_factor())
        self.model.save_config(out / "vae")
        dtype = next(iter(weights.values())).dtype
        whole = {name: weight.to(dtype).cpu() for name, weight in self.model.state_dict().items()}
        save_weights(whole, out / "vae" / WEIGHTS, about)

    @torch.no_grad()
    def _scaling_factor(self, most: int = 1024) -> float:
        """What gives latents a deviation of 1 (Rombach et al., appendix G), on the first pictures by key."""
        modes = [
            self.model.encode(self._on_device(self.train.read(rows))).latent_dist.mode()
            for rows in parts(self.train, most)
        ]
        latents = torch.cat(modes) if len(self.groups) == 1 else torch.cat([mode.flatten() for mode in modes])
        return round(1 / float(latents.std()), 5)


def parts(data: Pixels, most: int, batch_size: int = 64) -> list[list[int]]:
    """The first `most` rows in batches of one size."""
    return [
        rows[start : start + batch_size]
        for rows in by_size(data.sizes[:most])
        for start in range(0, len(rows), batch_size)
    ]


def difference(decoded_B3HW: torch.Tensor, pixels_B3HW: torch.Tensor) -> torch.Tensor:
    """Squared error, a quarter of the absolute one, an eighth of that of the steps down and right; means, (B,)."""
    error = decoded_B3HW - pixels_B3HW
    parts = [error.square(), error.abs() / 4, error.diff(dim=2).abs() / 8, error.diff(dim=3).abs() / 8]
    return torch.stack([part.mean(dim=(1, 2, 3)) for part in parts]).sum(dim=0)


def open_autoencoder(params: TrainParams, processed: Path, base: Path) -> Autoencoder:
    """Open base and pictures; only what is to learn has gradients. Raises StageError if there are no pictures."""
    train = Pixels(processed, "train")
    if not len(train):
        raise StageError("train", "there are no training pictures", "lower clean.validation_share")
    model, validation = load_vae(base), Pixels(processed, "validation")
    for part in [model] if params.vae_part == "whole" else [model.post_quant_conv, model.decoder]:
        part.requires_grad_(True)
    return Autoencoder(params, model, train, validation, folder_digest(processed, "*.parquet"), base)
