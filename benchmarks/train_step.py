"""Pictures a second of the stage train: beside a bare loop, its ceiling, and diffusers' own training script.

    python -m benchmarks.train_step --diffusers PATH [--runs 3] [--only NAME]

PATH (or DIFFUSERS_SCRIPT) is examples/text_to_image/train_text_to_image.py of diffusers, v0.40.0 or near; without it
there is no third side. Three models:

    miniature        models/tiny-sd as in params.yaml: 64 px, batches of 32, Muon; ours and bare
    miniature adamw  the same with the script's optimiser
    quarter          Stable Diffusion 1.5 with every part a quarter as wide, random weights, params' defaults (AdamW),
                     256 px (latents of 32 x 32: a step at 512 px takes too long on two cores), batches of 4

One side after the other, two threads on two cores, several rounds. bare is the UNet's forward and backward pass,
clipping, the same optimiser and the moving average on one batch in memory. The script runs as shipped, with its
defaults but for what makes it do the same: batch size, rate, warm-up, moving average; its pictures are of the training
size already. Ours reads what encode has made once: that is no part of a step. The script wants torchvision, which there
isn't for every torch: `benchmarks.transforms` stands in for it. Its tracker, TensorBoard, isn't installed and so costs
it nothing. No side validates, draws previews or saves states while it is timed.

Pictures a second are over the steps after the first few, all that happens in between included; peak is the whole
program's memory. JSON lines: each round's figures with `others`, the cores that other programs had (above 0.1 a round
says little: threads wait for the one that lost its core); then {"name", "ours", "peer", "ratio", "unit"}, of medians;
ratio above 1: ours is better. The aims: 0.92 of bare, 1.8 times the script (the last line, of quarter), no more memory.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.reuse import lay
from stages.core.pairs import read_rows, shards_below
from stages.core.params import load_section
from stages.train.params import TrainParams

ROOT = Path(__file__).parents[1]
NEVER = 10**9
QUIET = {
    "validate_every": NEVER,
    "validation_pictures": 1,
    "validation_bins": 1,
    "preview_every": 0,
    "preview_prompts": [],
    "checkpoint_every": NEVER,
    "patience": 0,
}


@dataclass(frozen=True)
class Case:
    """side: px. first: steps that are not counted. peer: whether the script is run too."""

    params: TrainParams
    side: int
    pictures: int
    first: int
    steps: int
    peer: bool


def cases() -> dict[str, Case]:
    mini = load_section(ROOT / "params.yaml", TrainParams, "train").model_copy(update=QUIET)
    adamw = mini.model_copy(update={"optimizer": "adamw"})
    quarter = TrainParams(learning_rate=1e-5).model_copy(update=QUIET)
    return {
        "miniature": Case(mini, 64, 1024, 10, 60, peer=False),
        "miniature adamw": Case(adamw, 64, 1024, 10, 60, peer=True),
        "quarter": Case(quarter, 256, 64, 3, 23, peer=True),
    }


def save_quarter(folder: Path) -> None:
    """Stable Diffusion 1.5's parts, as many and as deep, a quarter as wide; a token a byte instead of a word.

    Heads of attention are as wide as its own, and a quarter as many.
    """
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from stages.base.random_model import character_tokenizer

    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[32, 64, 128, 128],
            layers_per_block=2,
            sample_size=256,
        ),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=192,
                intermediate_size=768,
                num_hidden_layers=12,
                num_attention_heads=3,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=32,
            block_out_channels=[80, 160, 320, 320],
            cross_attention_dim=192,
            attention_head_dim=2,  # the number of heads, by its old name
            norm_num_groups=16,
        ),
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def program(folder: Path, *words: str) -> str:
    """What a Python program says, run in the folder with two threads. Ends with its words if it fails."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DVC_ROOT": str(folder),
        "OMP_NUM_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }
    finished = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(f"{' '.join(words)}\n{finished.stdout}\n{finished.stderr}")
    return finished.stdout


def lay_case(folder: Path, name: str, case: Case) -> None:
    """Pictures as each side reads them: data/latents (one is held out, as encode wants), files with metadata.jsonl."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / "params.yaml").write_text("encode:\n  range: 1000000000.0\n")
    (folder / "train.json").write_text(case.params.model_copy(update={"steps": case.steps}).model_dump_json())
    if name == "quarter":
        save_quarter(folder / "base")
    else:
        shutil.copytree(ROOT / "models" / "tiny-sd", folder / "base")
    trained = [number for number in range(2 * case.pictures) if number % 20][: case.pictures]
    lay(folder, [0, *trained], case.side)
    program(
        folder,
        *("-m", "stages.encode.run", "--processed", "processed", "--base", "base"),
        *("--out", "latents", "--metrics", "encode.json"),
    )
    (folder / "pictures").mkdir()
    with (folder / "pictures" / "metadata.jsonl").open("w") as metadata:
        for row in read_rows(shards_below(folder / "processed"), ["key", "image", "captions", "split"]):
            if row["split"] != "train":
                continue
            (folder / "pictures" / f"{row['key']}.png").write_bytes(row["image"]["bytes"])
            metadata.write(json.dumps({"file_name": f"{row['key']}.png", "text": row["captions"][0]}) + "\n")


def busy() -> float:
    """Seconds of this machine's cores that went to other programs than this one and those that it has run."""
    all_cores, mine = psutil.cpu_times(), psutil.Process().cpu_times()
    idle = all_cores.idle + getattr(all_cores, "iowait", 0.0)
    return sum(all_cores[:8]) - idle - sum(mine[:4])


def run_side(folder: Path, case: Case, side: str, script: Path | None) -> dict[str, Any]:
    """Pictures a second, the peak of memory in MB, and how many cores others had meanwhile."""
    for name in ("out", "live", ".dvc/tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    start = ("-m", "benchmarks.train_sides", side)
    before, began = busy(), time.monotonic()
    if side == "theirs":
        options = {
            "pretrained_model_name_or_path": "base",
            "train_data_dir": "pictures",
            "cache_dir": "cache",
            "output_dir": "out",
            "resolution": case.side,
            "train_batch_size": case.params.batch_size,
            "max_train_steps": case.steps,
            "learning_rate": case.params.learning_rate,
            "lr_scheduler": case.params.schedule,
            "lr_warmup_steps": case.params.warmup_steps,
            "adam_weight_decay": case.params.weight_decay,
            "max_grad_norm": case.params.max_grad_norm,
            "mixed_precision": case.params.precision,
            "checkpointing_steps": NEVER,
            "seed": case.params.seed,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        said = program(folder, *start, str(script), *words, "--use_ema")
    else:
        said = program(folder, *start, str(folder))
    measured = json.loads(said.splitlines()[-1])
    others = (busy() - before) / (time.monotonic() - began)
    times = measured["times"]
    assert len(times) == case.steps, "a step was not seen"
    seconds = times[-1] - times[case.first - 1]
    rate = (case.steps - case.first) * case.params.batch_size / seconds
    return {"rate": rate, "peak": measured["peak"] / 1e6, "others": others}


def line(name: str, ours: float, peer: float, ratio: float, unit: str) -> None:
    told = {"name": name, "ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(ratio, 3), "unit": unit}
    print(json.dumps(told), flush=True)


def measure(name: str, case: Case, script: Path | None, runs: int) -> None:
    """One side after the other, so many rounds, then their medians."""
    sides = ["ours", "bare", *(["theirs"] if case.peer and script else [])]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "case"
        lay_case(folder, name, case)
        took: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(runs):
            for side in sides:
                took[side].append(run_side(folder, case, side, script))
            told = {side: round(took[side][-1]["rate"], 2) for side in sides}
            others = round(max(took[side][-1]["others"] for side in sides), 2)
            print(
                json.dumps({"name": f"train, {name}, a round", **told, "unit": "pictures/s", "others": others}),
                flush=True,
            )
    rates = {side: median(run["rate"] for run in took[side]) for side in sides}
    line(f"train, {name}, bare loop", rates["ours"], rates["bare"], rates["ours"] / rates["bare"], "pictures/s")
    if "theirs" not in took:
        return
    mine, their = (median(run["peak"] for run in took[side]) for side in ("ours", "theirs"))
    line(f"train, {name}, diffusers, peak memory", mine, their, their / mine, "MB")
    line(f"train, {name}, diffusers", rates["ours"], rates["theirs"], rates["ours"] / rates["theirs"], "pictures/s")


def main() -> None:
    parser = argparse.ArgumentParser(description="See the top of this file.")
    parser.add_argument("--diffusers", type=Path, default=os.environ.get("DIFFUSERS_SCRIPT"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=cases())
    asked = parser.parse_args()
    script = asked.diffusers and Path(asked.diffusers).resolve()
    for name, case in cases().items():
        if asked.only in (None, name):
            measure(name, case, script, asked.runs)


if __name__ == "__main__":
    main()
