"""The diffusion objective: what the denoiser is asked, and how wrong it is.

Shapes: B pictures, C latent channels, H x W latent pixels, L tokens, D text width, T timesteps.
"""

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from stages.core.latents import Latents
from stages.core.noise import normal
from stages.core.sizes import by_size


def denoising_losses(
    unet: UNet2DConditionModel,
    schedule: DDPMScheduler,
    latents_BCHW: torch.Tensor,
    text_BLD: torch.Tensor,
    noise_BCHW: torch.Tensor,
    timesteps_B: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the denoiser's answer for each picture, (B,) float32.

    Latents are noised to z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (Ho et al.,
    arXiv 2006.11239, eq. 4). The answer is compared with eps, or with v = sqrt(abar_t)
    eps - sqrt(1 - abar_t) z_0 where the schedule's prediction_type is v_prediction
    (Salimans and Ho, arXiv 2202.00512, appendix D).
    """
    target: torch.Tensor
    noised: torch.Tensor = schedule.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
    if schedule.config.prediction_type == "v_prediction":
        target = schedule.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
    else:
        target = noise_BCHW
    noised = noised.contiguous(memory_format=torch.channels_last)
    answer: torch.Tensor = unet(noised, timesteps_B, encoder_hidden_states=text_BLD).sample
    return (answer.float() - target.float()).square().mean(dim=(1, 2, 3))


@torch.no_grad()
def validation_curve(
    unet: UNet2DConditionModel,
    schedule: DDPMScheduler,
    latents: Latents,
    scaling_factor: float,
    pictures: int,
    bins: int,
    seed: int,
    batch_size: int = 64,
) -> list[float]:
    """Mean loss over the same pictures and noise at the middle of each of `bins` equal parts of 0..T.

    One number over random timesteps hides what a model gains: its spread over
    timesteps is far larger than what training changes (hence fixed ones, apart).
    The first `pictures` by key, their first caption (the empty one where there is none); a batch is of one size.
    """
    device = next(unet.parameters()).device
    steps = schedule.config.num_train_timesteps
    sizes = latents.sizes[:pictures]
    batches = [rows[start : start + batch_size] for rows in by_size(sizes) for start in range(0, len(rows), batch_size)]
    curve = []
    unet.eval()
    for part in range(bins):
        timestep = int((part + 0.5) * steps / bins)
        total = 0.0
        for rows in batches:
            batch = latents.read(rows)
            noise = torch.stack(
                [normal(tuple(batch.mean.shape[1:]), seed, "validation", part, key) for key in batch.keys]
            )
            text = latents.text([captions[0] if captions else 0 for captions in batch.captions])
            losses = denoising_losses(
                unet,
                schedule,
                (batch.mean * scaling_factor).to(device),
                text.to(device),
                noise.to(device),
                torch.full((len(batch.keys),), timestep, device=device),
            )
            total += float(losses.cpu().double().sum())
        curve.append(total / len(sizes))
    return curve
