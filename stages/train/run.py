"""train: one part of the model learns.

in    data/latents, data/processed, models/base  what to learn from; what to start from
out   models/trained  the base with the trained part in place of its own, a diffusers folder
      reports/train   curves and previews (dvclive)
      killed and run again, it ends with the same bytes as in one go
"""

import shutil
from pathlib import Path

import torch
from dvclive import Live

from stages.core.files import folder_digest, replacing
from stages.core.stage import run_stage
from stages.train.autoencoder import open_autoencoder
from stages.train.clip import open_clip
from stages.train.denoiser import open_denoiser
from stages.train.loop import Objective, run_loop
from stages.train.params import TrainParams
from stages.train.record import Record
from stages.train.state import State, fingerprint, load_state, state_folder


def main(params: TrainParams, latents: Path, processed: Path, base: Path, out: Path, live: Path) -> None:
    """Train, then write the base with what was trained in place of its own."""
    torch.use_deterministic_algorithms(True)
    objective = open_objective(params, latents, processed, base)
    made_of = fingerprint(params, objective.digest, folder_digest(base))
    with state_folder(made_of) as folder:
        with Live(str(live), dvcyaml=None, save_dvc_exp=False, report=None) as logger:
            state = load_state(folder) or State()
            weights = run_loop(params, objective, Record(logger, folder, state, params.log_every))
        dtype = getattr(torch, params.save_dtype)
        about = {"made_of": made_of, "method": params.method, "params": params.model_dump()}
        with replacing(out) as trained:
            objective.save({name: weight.to(dtype).cpu() for name, weight in weights.items()}, about, trained)
        shutil.rmtree(folder)
    curve = [value for _, name, value in state.curve if name == "validation/loss"]
    said = f"validation loss {curve[0]:.4f} -> {curve[-1]:.4f}" if curve else "no validation pictures"
    print(f"{params.steps} steps on {len(objective)} pictures, {said}")


def open_objective(params: TrainParams, latents: Path, processed: Path, base: Path) -> Objective:
    """The method's objective. Raises StageError if base and data don't fit each other."""
    match params.method:
        case "full":
            return open_denoiser(params, latents, base)
        case "vae":
            return open_autoencoder(params, processed, base)
        case "clip":
            return open_clip(params, processed, base)


if __name__ == "__main__":
    run_stage(main)
