"""train: fine-tune the denoiser on the latents.

in    data/latents, models/base  what to learn from; what to start from
out   models/trained             the base with a new UNet, a diffusers folder
      reports/train              curves and previews (dvclive)
      killed and run again, it ends with the same bytes as in one go
"""

import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from dvclive import Live
from PIL import Image

from stages.core.errors import StageError
from stages.core.files import folder_digest, replacing
from stages.core.latents import Latents, latents_digest
from stages.core.models import load_pipeline, load_schedule, load_unet, load_vae
from stages.core.sampling import Drawing, contact_sheet, draw, set_scheduler
from stages.core.stage import run_stage
from stages.core.weights import save_unet_weights
from stages.train.loop import Data, run_loop
from stages.train.params import TrainParams
from stages.train.record import Draw, Record
from stages.train.state import State, fingerprint, load_state, state_folder


def main(params: TrainParams, latents: Path, base: Path, out: Path, live: Path) -> None:
    """Train, then write the base with the trained UNet in place of its own."""
    torch.use_deterministic_algorithms(True)
    unet, schedule = load_unet(base), load_schedule(base)
    data = Data(Latents(latents, "train"), Latents(latents, "validation"), load_vae(base).config.scaling_factor)
    check_fit(data, unet)
    made_of = fingerprint(params, latents_digest(latents), folder_digest(base))
    with state_folder(made_of) as folder:
        with Live(str(live), dvcyaml=None, save_dvc_exp=False, report=None) as logger:
            state = load_state(folder) or State()
            side = data.train.read([0]).mean.shape[-1]
            record = Record(logger, folder, state, params.log_every, preview_drawer(params, base, side))
            weights = run_loop(params, data, unet, schedule, record)
        with replacing(out) as trained:
            save_trained(params, weights, base, trained, made_of)
        shutil.rmtree(folder)
    curve = [value for _, name, value in state.curve if name == "validation/loss"]
    said = f"validation loss {curve[0]:.4f} -> {curve[-1]:.4f}" if curve else "no validation pictures"
    print(f"{params.steps} steps on {len(data.train)} pictures, {said}")


def check_fit(data: Data, unet: UNet2DConditionModel) -> None:
    """Refuse latents that the base can't learn from, before any work."""
    if not len(data.train):
        raise StageError("train", "there are no training pictures", "lower clean.validation_share")
    batch = data.train.read([0])
    channels, width = batch.mean.shape[1], data.train.text([0]).shape[2]
    if (channels, width) != (unet.config.in_channels, unet.config.cross_attention_dim):
        raise StageError(
            "train",
            f"latents of {channels} channels and text of width {width} don't fit a UNet of "
            f"{unet.config.in_channels} and {unet.config.cross_attention_dim}",
            "run encode with this base",
        )


def preview_drawer(params: TrainParams, base: Path, latent_side: int) -> Draw:
    """A function from a UNet to a sheet of the preview prompts, drawn with the base's other parts."""
    pipeline = load_pipeline(base)
    set_scheduler(pipeline, "ddim")
    side = latent_side * pipeline.vae_scale_factor
    drawings = [Drawing(prompt, seed) for seed, prompt in enumerate(params.preview_prompts)]

    def draw_sheet(unet: UNet2DConditionModel) -> Image.Image:
        pipeline.unet = unet
        pipeline.to(unet.device)
        pictures = draw(pipeline, drawings, params.preview_steps, params.preview_guidance, "", side, 8)
        return contact_sheet(pictures, params.preview_prompts, columns=4)

    return draw_sheet


def save_trained(params: TrainParams, weights: dict[str, torch.Tensor], base: Path, out: Path, made_of: str) -> None:
    """Copy the base, then its UNet's weights anew, with a word on where they come from."""
    shutil.copytree(base, out, dirs_exist_ok=True)
    for path in (out / "unet").glob("*.safetensors*"):  # a large base has several, and an index of them
        path.unlink()
    dtype = getattr(torch, params.save_dtype)
    about = {"made_of": made_of, "method": params.method, "params": params.model_dump()}
    save_unet_weights({name: weight.to(dtype).cpu() for name, weight in weights.items()}, out, about)


if __name__ == "__main__":
    run_stage(main)
