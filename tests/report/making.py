"""A small world of everything that the page is made of. Its texts try to be more than texts."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save_file

from stages.core.pairs import FAILURE, FAILURES, RAW, Pair, ShardWriter, write_table
from stages.report.params import ReportParams
from stages.report.run import main
from tests.pictures import drawing, encoded

EVIL = "</script><script>window.broken = true</script><img src=x onerror='window.broken = true'>"
PICTURES, MODELS, PROMPTS = 12, ("base", "trained", "half"), ("a red square", EVIL)
PARAMS = {"steps": 4, "batch_size": 2, "accumulation": 1, "optimizer": "adamw", "learning_rate": 1e-4, "seed": 0}


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def make_data(root: Path) -> list[str]:
    """raw, clean and processed; gives the keys of what is trained on."""
    pairs = [
        Pair(f"{n:08x}" + "0" * 56, encoded(drawing(n)), f"{n}.png", [EVIL if n == 1 else f"drawing {n}"], "mine",
             license="CC0", attribution=f"person {n % 2} {EVIL}")
        for n in range(1, PICTURES + 1)
    ]  # fmt: skip
    writer = ShardWriter(root / "raw" / "mine", RAW)
    for pair in pairs:
        writer.add(pair.row(), len(pair.data))
    writer.close()
    write_table(
        pa.Table.from_pylist([{"source": "mine", "path": EVIL, "code": "no_name"}], FAILURE), root / "raw" / FAILURES
    )
    kept, left = pairs[:8], pairs[8:]
    rows = [
        {"key": p.key, "source": p.source, "shard": "mine/00000.parquet", "row": n, "captions": p.captions,
         "license": p.license, "attribution": p.attribution, "split": "train" if n else "validation"}
        for n, p in enumerate(pairs)
    ]  # fmt: skip
    (root / "clean").mkdir()
    pd.DataFrame(rows[: len(kept)]).to_parquet(root / "clean" / "manifest.parquet")
    doubles = [
        {"key": p.key, "source": p.source, "shard": "mine/00000.parquet", "row": len(kept) + n, "rule": "duplicate",
         "value": f"{n} bits", "bound": "more than 6 bits", "keeper": kept[0].key}
        for n, p in enumerate(left)
    ]  # fmt: skip
    pd.DataFrame(doubles).to_parquet(root / "clean" / "rejected.parquet")
    finished = [
        {
            "key": p.key,
            "variant": 0,
            "image": {"bytes": p.data, "path": p.path},
            "captions": p.captions,
            "split": "train",
        }
        for p in kept
    ]
    (root / "processed" / "mine").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(finished), root / "processed" / "mine" / "00000.parquet")
    return [pair.key for pair in kept]


def make_models(root: Path) -> None:
    for name in MODELS:
        path = {"half": root / "merged"}.get(name, root) / name / "unet" / "diffusion_pytorch_model.safetensors"
        path.parent.mkdir(parents=True)
        about: dict[str, Any] = {"method": "full", "params": PARAMS, "parents": {"base": "ab" * 32}}
        if name == "half":
            about = {
                "merge": {"recipe": {"method": "weighted_sum", "ratio": 0.5}, "inputs": {"base": {}, "trained": {}}}
            }
            told = {
                "relative_delta": 0.01,
                "lost_to_rounding": 0.02,
                "relative_delta_by_block": {"IN00": 0.1, "M00": 0.2},
            }
            write_json(path.parents[1] / "merge.json", {**about, **told, "said": []})
        said = {} if name == "base" else {"darkroom": json.dumps(about)}
        save_file({"x": np.zeros(1, np.float32)}, path, metadata=said)


def make_samples(root: Path, keys: list[str]) -> dict[str, Any]:
    """What each model drew, and what lies nearest to it."""
    near: dict[str, Any] = {}
    for model in MODELS:
        listed = []
        for number, prompt in enumerate(PROMPTS):
            for seed in (0, 1):
                name = f"{number:03d}-{seed}.png"
                (root / "samples" / model).mkdir(parents=True, exist_ok=True)
                drawing(number * 2 + seed).resize((64, 64)).save(root / "samples" / model / name)
                listed.append(
                    {"file": name, "prompt": prompt, "seed": seed, "steps": 2, "guidance": 5.0, "scheduler": "ddim",
                     "negative": "", "width": 64, "height": 64, "mode": "text"}
                )  # fmt: skip
        write_json(root / "samples" / model / "samples.json", {"weights_sha256": "cd" * 32, "pictures": listed})
        near[model] = [
            {"file": row["file"], "too_close": n == 0,
             "near": [{"key": key, "distance": 0.1 * (n + 1), "hash_bits": 20} for key in keys[n : n + 3]]}
            for n, row in enumerate(listed)
        ]  # fmt: skip
    return near


def make_figures(root: Path, near: dict[str, Any]) -> None:
    def some(value: float, spread: float | None = 0.1) -> dict[str, float | None]:
        return {
            "value": value,
            "low": None if spread is None else value - spread,
            "high": None if spread is None else value + spread,
        }

    figures = {
        "base": {"validation_loss": some(0.8), "kid": some(5.0), "too_close": some(0.05)},
        "trained": {"validation_loss": some(0.5), "kid": some(5.1), "too_close": some(0.4)},
        "half": {"validation_loss": some(0.6, None)},
    }
    evaluation = root / "evaluation"
    write_json(
        evaluation / "figures.json",
        {
            "extractor": {"name": "classical"},
            "text": {},
            "held_out": {"kid": 0.1, "too_close": 0.05},
            "models": figures,
        },
    )
    write_json(evaluation / "nearest.json", {"threshold": 0.15, "models": near})
    pd.DataFrame([{"model": m, "bin": b, "loss": 0.1 * b} for m in MODELS for b in range(3)]).to_csv(
        evaluation / "validation.csv", index=False
    )
    pd.DataFrame(
        [{"recipe": f"r{r}", "method": "weighted_sum", "ratio": r, "loss": 0.5 + r / 10} for r in (0.0, 0.5, 1.0)]
    ).to_csv(evaluation / "merges.csv", index=False)


def make_training(root: Path) -> None:
    for kind in ("train", "validation"):
        path = root / "train" / "plots" / "metrics" / kind / "loss.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("step\tloss\n0\t1.0\n2\t0.7\n4\t0.6\n")
    (root / "train" / "previews").mkdir()
    for step in (0, 2, 4):
        drawing(step).resize((128, 64)).save(root / "train" / "previews" / f"{step:07d}.png")


def make_world(root: Path) -> dict[str, Path]:
    """Everything; gives main's paths."""
    keys = make_data(root)
    make_models(root)
    make_figures(root, make_samples(root, keys))
    make_training(root)
    (root / "grids").mkdir()
    drawing(1).resize((200, 150)).save(root / "grids" / "mine.png")
    grid = {"file": "mine.png", "x": {"name": "guidance", "values": [1]}, "y": {"name": "steps", "values": [2]},
            "prompt": EVIL, "seed": 0, "model": "trained"}  # fmt: skip
    write_json(root / "grids" / "grids.json", {"mine": grid})
    write_json(root / "collected.json", {"mine": {"pictures": PICTURES, "failures": 1, "fallback_caption": 0}})
    write_json(root / "captioned.json", {"without_caption": 0, "captioned": 0})
    write_json(root / "cleaned.json", {"kept": 8, "rejected": 4})
    write_json(
        root / "preprocessed.json",
        {"train": 7, "validation": 1, "rows": 8, "too_small": 0, "mean": [0.5] * 3, "std": [0.2] * 3, "lacking": [],
         "buckets": {"64x64": 6, "96x48": 2}},
    )  # fmt: skip
    write_json(root / "encoded.json", {"vae_psnr": 25.0})
    paths = ("raw", "clean", "processed", "base", "trained", "merged", "train", "samples", "grids", "evaluation")
    files = ("collected", "captioned", "cleaned", "preprocessed", "encoded")
    return {
        **{name: root / name for name in paths},
        **{name: root / f"{name}.json" for name in files},
        "out": root / "index.html",
    }


def make_page(root: Path, **params: Any) -> Path:
    """The page of it."""
    paths = make_world(root)
    main(ReportParams(**params), **paths)
    return paths["out"]


def size_of(picture: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(picture)).size
