"""What must not be forgotten: pictures of the class, a person's own or drawn by the base.

Prior preservation: Ruiz et al., arXiv 2208.12242, section 3.3. Drawn ones are latents at once: a folder like
data/latents, kept beside the states of trainings, made once for the same base, prompt and number.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import torch
from safetensors.torch import save_file

from stages.core.engine import progress
from stages.core.families.family import Text
from stages.core.families.live import embed
from stages.core.files import file_digest, replacing, scratch
from stages.core.latents import CAPTIONS, INDEX, Latents
from stages.core.models import best_device
from stages.core.noise import normal
from stages.core.pairs import write_table
from stages.core.solver import Solver
from stages.train.learner import Opened


def open_priors(opened: Opened, latents: Path, base_digest: str) -> Latents | None:
    """Pictures of `role: regularisation`; where there are none, the base draws some; None if no prompt says of what."""
    own = Latents(latents, "train", ["regularisation"])
    if len(own):
        return own
    if not opened.params.prior.prompt:
        return None
    prior, side = opened.params.prior, opened.train.sizes[0]
    about = {"base": base_digest, "size": side, "seed": opened.params.seed, **prior.model_dump(exclude={"weight"})}
    made_of = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    folder = scratch("priors") / made_of
    if not folder.is_dir():
        with replacing(folder) as temporary:
            draw_priors(opened, temporary)
    return Latents(folder, "train")


@torch.no_grad()
def draw_priors(opened: Opened, out: Path) -> None:
    """Have the base draw its class, each from noise of its own number, as latents with no deviation."""
    prior, denoiser, device = opened.params.prior, opened.denoiser, best_device()
    solver, network = Solver(opened.base, prior.steps), denoiser.network.to(device).eval()
    text, away = embed(denoiser.family, opened.encoders(), [prior.prompt]), opened.train.text([0])
    width, height = opened.train.sizes[0]
    shape = tuple(opened.train.read([0]).mean.shape[1:])
    drawn = []
    with progress() as bar:
        task = bar.add_task("class pictures", total=prior.pictures)
        for start in range(0, prior.pictures, opened.params.batch_size):
            numbers = range(start, min(start + opened.params.batch_size, prior.pictures))
            noise = torch.stack([normal(shape, opened.params.seed, "class picture", number) for number in numbers])
            frames = torch.tensor([[height, width, 0, 0, height, width]] * len(numbers), dtype=torch.float32)
            told, from_it = (_repeat(one, len(numbers)).to(device) for one in (text, away))
            latents = solver.solve(denoiser, noise.to(device), told, from_it, frames.to(device), prior.guidance)
            drawn.append(denoiser.scale.undo(latents).cpu())
            bar.advance(task, len(numbers))
    network.to("cpu")
    means = torch.cat(drawn)
    for name in ("pictures", "text"):
        (out / name).mkdir()
    path = out / "pictures" / "00000.safetensors"
    save_file({"mean": means, "std": torch.zeros_like(means)}, path)
    both = {"embeddings": torch.cat([away.embeddings, text.embeddings])}
    if text.pooled is not None and away.pooled is not None:
        both["pooled"] = torch.cat([away.pooled, text.pooled])
    save_file(both, out / "text" / "00000.safetensors")
    frame = {"width": width, "height": height, "original_width": width, "original_height": height}
    rows = [
        {
            "key": f"class{number:06d}",
            "variant": 0,
            "split": "train",
            "role": "regularisation",
            "repeats": 1,
            "shard": "pictures/00000.safetensors",
            "row": number,
            "shard_sha256": file_digest(path),
            "captions": [1],
            **frame,
            "crop_x": 0,
            "crop_y": 0,
        }
        for number in range(prior.pictures)
    ]
    write_table(pa.Table.from_pylist(rows, schema=INDEX), out / "index.parquet")
    digest = file_digest(out / "text" / "00000.safetensors")
    captions = pd.DataFrame({"caption": ["", prior.prompt], "shard_sha256": digest})
    write_table(pa.Table.from_pandas(captions, schema=CAPTIONS, preserve_index=False), out / "captions.parquet")


def _repeat(text: Text, times: int) -> Text:
    pooled = None if text.pooled is None else text.pooled.expand(times, -1)
    return Text(text.embeddings.expand(times, -1, -1), pooled)
