"""train: one part of the model learns.

in    data/latents, data/processed, models/base  what to learn from; what to start from
      compute/<name>.yaml                        on how many processes, as accelerate has it
out   models/trained  the base changed by what was learned, a diffusers folder; adapters and words beside it
      reports/train   curves and previews (dvclive)
      killed and run again, it ends with the same bytes as in one go
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from accelerate.utils import gather_object
from dvclive import Live

from stages.core.errors import StageError
from stages.core.files import folder_digest, replacing
from stages.core.gpus import leased
from stages.core.stage import run_stage
from stages.train.autoencoder import open_autoencoder
from stages.train.clip import open_clip
from stages.train.diffusion import open_diffusion
from stages.train.launch import gpus_wanted, launch, layout_of, open_accelerator
from stages.train.loop import Objective, run_loop
from stages.train.params import TrainParams
from stages.train.record import Record
from stages.train.sharding import announced
from stages.train.state import State, fingerprint, go_on, load_state, state_folder


@contextmanager
def settled() -> Iterator[None]:
    """Sums in one order, for the same bytes on every run, and numbers below 1e-38 as 0, until it is left.

    A CPU is slow with those, and attention to captions makes many: a step of tiny-sd takes a sixth longer. Threads of
    torch's pool do as the thread that started them: enter before the first sum.
    """
    torch.use_deterministic_algorithms(True)
    # Else every new tensor is filled before an operator writes all of it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # the stubs don't know it
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@settled()
def main(params: TrainParams, compute: Path, latents: Path, processed: Path, base: Path, out: Path, live: Path) -> None:
    """Train, then write the base with what was learned."""
    params.verify()
    if launch(compute):
        return
    accelerator = open_accelerator(params, compute)
    with accelerator.main_process_first(), accelerator.local_main_process_first():  # class pictures are drawn once
        objective = open_objective(params, latents, processed, base)
    if accelerator.num_processes > 1 and not objective.splits:
        raise StageError("train.compute", f"method {params.method} can't be shared by processes", "use one")
    parent = folder_digest(base)
    made_of = fingerprint(params, objective.digest, parent)
    if len(set(gather_object([made_of]))) > 1:
        what = "machines differ in data, base, params, code or libraries"
        raise StageError("train", what, "give all of them the same project")
    with ExitStack() as stack:
        folder = stack.enter_context(state_folder(made_of, held=accelerator.is_main_process))
        accelerator.wait_for_everyone()
        found = (load_state(folder) if accelerator.is_main_process else None) or State()
        state = State(**announced(vars(found)))
        go_on(params, state, layout_of(accelerator), folder)
        with ExitStack() as logging:
            logger = None
            if accelerator.is_main_process:
                logger = logging.enter_context(Live(str(live), dvcyaml=None, save_dvc_exp=False, report=None))
            weights = run_loop(params, objective, Record(params, logger, folder, state), accelerator)
        if not accelerator.is_main_process:
            return
        dtype = getattr(torch, params.save_dtype)
        about = {
            "method": params.method,
            "params": params.model_dump(),
            "data_sha256": objective.digest,
            "parents": {"base": parent},
            "made_of": made_of,  # of all these, the code and the libraries
            "processes": state.layouts,
        }
        with replacing(out) as trained:
            objective.save({name: weight.to(dtype).cpu() for name, weight in weights.items()}, about, trained)
        shutil.rmtree(folder)
    curve = [value for _, name, value in state.curve if name == "validation/loss"]
    said = f"validation loss {curve[0]:.4f} -> {curve[-1]:.4f}" if curve else "no validation pictures"
    print(f"{state.step} steps on {len(objective)} pictures, {said}")


def open_objective(params: TrainParams, latents: Path, processed: Path, base: Path) -> Objective:
    """The method's objective. Raises StageError if base and data don't fit each other."""
    match params.method:
        case "vae":
            return open_autoencoder(params, processed, base)
        case "clip":
            return open_clip(params, processed, base)
        case _:
            return open_diffusion(params, latents, base)


if __name__ == "__main__":
    run_stage(main, lambda compute, **_: leased(gpus_wanted(compute)))
