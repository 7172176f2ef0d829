"""Checkpoints in Stable Diffusion 1.5 layout through merge, plain copying, sd-mecha and mergekit, one after another.

python -m benchmarks.merge [METHOD] [--runs 3] [--small] [--peers sd-mecha,mergekit] [--folder DIR]

METHOD: weighted_sum, slerp, task_arithmetic, ties or all. The inputs are made on the spot: random weights in half
precision, 3.8 GB each with the averaged weights (--small: a tenth of the width), the second and the third near the
first. Takes 3.8 GB of disk an input and an output, in /tmp. Peers: `make peers`.
Seconds are of whole processes, imports included; memory is the most that was anonymous, files' pages left out.

JSON lines: each round's figures, how far tensors are apart in the first, then {"name", "ours", "peer", "ratio", "unit"}
of medians; ratio above 1: ours is better. `copying` reads both and writes one. The aims, of weighted_sum: at least 0.4
of copying's speed, at most 400 MB; three times as fast as sd-mecha at a tenth of its memory.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch

from stages.core.original_names import to_original
from stages.merge.diagnostics import Meter
from stages.merge.headers import Files, header_bytes, read_header
from stages.merge.params import Recipe
from stages.merge.prepare import Roots, digests, prepared
from stages.merge.record import metadata_of, no_digests
from stages.merge.writing import put, rewrite_metadata, single_targets, write_tensors

ROOT = Path(__file__).parents[1]
RATIO, DENSITY, PIECE = 0.3, 0.2, 1 << 20
RECIPES: dict[str, dict[str, Any]] = {
    "weighted_sum": {"a": "file:a.safetensors", "b": "file:b.safetensors", "ratio": RATIO},
    "slerp": {"method": "slerp", "a": "file:a.safetensors", "b": "file:b.safetensors", "ratio": RATIO},
    "task_arithmetic": {
        "method": "task_arithmetic",
        "a": "file:a.safetensors",
        "models": [{"model": "file:b.safetensors", "weight": RATIO}, {"model": "file:c.safetensors", "weight": RATIO}],
    },
    "ties": {
        "method": "ties",
        "a": "file:a.safetensors",
        "density": DENSITY,
        "models": [{"model": "file:b.safetensors"}, {"model": "file:c.safetensors"}],
    },
}
MECHA = """
import sys, torch, sd_mecha as m
from sd_mecha.extensions.builtin.merge_methods.linear import add_difference, subtract
folder, method, out, ratio, density = *sys.argv[1:4], *map(float, sys.argv[4:])
a, b, c = (m.model(f"{folder}/{name}.safetensors") for name in "abc")
recipe = {
    "weighted_sum": lambda: m.weighted_sum(a, b, alpha=ratio),
    "task_arithmetic": lambda: add_difference(
        add_difference(a, subtract(b, a), alpha=ratio), subtract(c, a), alpha=ratio),
    "ties": lambda: add_difference(
        a, m.ties_sum(subtract(b, a), subtract(c, a), k=density, vote_sgn=True), alpha=1.0),
}[method]()
m.merge(recipe, output=out, merge_dtype=torch.float32, output_dtype=torch.float16, merge_device="cpu",
        check_extra_keys=False, strict_mandatory_keys=False)
"""
COPYING = """
import sys
buffer = bytearray(1 << 20)
with open(sys.argv[3], "wb", buffering=0) as written:
    for name in "ba":
        with open(f"{sys.argv[1]}/{name}.safetensors", "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                if name == "a":
                    written.write(memoryview(buffer)[:got])
"""
MERGEKIT: dict[str, dict[str, Any]] = {
    "weighted_sum": {
        "merge_method": "linear",
        "models": [("a", {"weight": 1 - RATIO}), ("b", {"weight": RATIO})],
    },
    "slerp": {"merge_method": "slerp", "base": "a", "models": [("a", {}), ("b", {})], "parameters": {"t": RATIO}},
    "task_arithmetic": {
        "merge_method": "task_arithmetic",
        "base": "a",
        "models": [("b", {"weight": RATIO}), ("c", {"weight": RATIO})],
    },
    "ties": {
        "merge_method": "ties",
        "base": "a",
        "models": [("b", {"weight": 1.0, "density": DENSITY}), ("c", {"weight": 1.0, "density": DENSITY})],
    },
}


for recipe in RECIPES.values():
    recipe["dtype"] = "float16"


def shapes(small: bool) -> dict[str, torch.Tensor]:
    """Every tensor of Stable Diffusion 1.5 by its original key, without numbers; the UNet's once more as averaged."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    part, text = (10, 64) if small else (1, 768)
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=[320 // part, 640 // part, 1280 // part, 1280 // part],
            cross_attention_dim=text,
            attention_head_dim=8,
            norm_num_groups=32 // (4 if small else 1),
        )
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128 // (part + 6 * small), 256 // (part + 6 * small), 512 // (part + 6 * small)] * 1
            + [512 // (part + 6 * small)],
            layers_per_block=2,
            norm_num_groups=32 // (4 if small else 1),
        )
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=text,
                intermediate_size=4 * text,
                num_hidden_layers=12,
                num_attention_heads=text // 64,
            )
        )
    tensors = {
        f"{name}.{key}": tensor
        for name, module in (("unet", unet), ("vae", vae), ("text_encoder", encoder))
        for key, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    }
    original = to_original("sd1", tensors)
    averaged = {
        f"model_ema.{k[6:].replace('.', '')}": t for k, t in original.items() if k.startswith("model.diffusion")
    }
    return original | averaged


def make(folder: Path, small: bool, precise: bool) -> None:
    """Files a, b and c, and a folder that gives the configurations."""
    kind = torch.float32 if precise else torch.float16
    made = {key: (kind, tuple(tensor.shape)) for key, tensor in shapes(small).items()}
    begin, starts = header_bytes(made, {"format": "pt"})
    paths = [folder / f"{name}.safetensors" for name in "abc"]
    for path in paths:
        path.write_bytes(begin)
    opened = [os.open(path, os.O_WRONLY) for path in paths]
    draws = torch.Generator().manual_seed(0)
    pool = torch.randn(16 * PIECE, generator=draws).mul_(0.05)

    def some(size: int) -> torch.Tensor:
        """Random numbers in a row, from a place in the pool that is drawn: a hundred times as fast as new ones."""
        start = int(torch.randint(15 * PIECE, (1,), generator=draws))
        return pool[start : start + size]

    for key, (_, shape) in sorted(made.items()):
        numbers, at = torch.Size(shape).numel(), starts[key]
        for done in range(0, numbers, PIECE):
            size = min(PIECE, numbers - done)
            first = some(size)
            for number, descriptor in enumerate(opened):
                put(descriptor, at, (first + 0.1 * some(size) if number else first).to(kind))
            at += kind.itemsize * size
    for descriptor in opened:
        os.close(descriptor)
    base_folder(folder, made)


def base_folder(folder: Path, made: dict[str, Any]) -> None:
    """models/base as the stage has it: here of its weights the headers count alone, so the files are sparse."""
    from stages.core.original_names import link_keys

    whole = {link.names[0]: made[link.key] for link in link_keys("sd1", made)[0]}
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    for part, file in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        index[part] = ["", ""]
        own = {n.removeprefix(f"{part}."): kind for n, kind in whole.items() if n.startswith(f"{part}.")}
        if part == "vae":
            own = {n: (t, s[:2] if "attentions.0.to_" in n else s) for n, (t, s) in own.items()}
        begin, starts = header_bytes(own, {})
        (folder / "base" / part).mkdir(parents=True)
        path = folder / "base" / part / f"{file}.safetensors"
        path.write_bytes(begin)
        os.truncate(path, max(starts[n] + t.itemsize * torch.Size(s).numel() for n, (t, s) in own.items()))
    for name, values in (
        ("model_index", index),
        ("scheduler/scheduler_config", {"prediction_type": "epsilon"}),
        ("vae/config", {}),
        ("text_encoder/config", {}),
    ):
        path = folder / "base" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))


def ours(folder: Path, method: str, out: Path) -> None:
    """As the stage writes a single file: with the inputs' digests, checks and diagnostics."""
    torch.set_num_threads(1)
    recipe = Recipe.model_validate(RECIPES[method])
    roots = Roots(folder / "base", folder, folder, lambda: folder)
    with prepared("merge.x", recipe, roots) as ready, ThreadPoolExecutor(1) as beside:
        hashing = beside.submit(digests, ready.inputs)
        meter, metadata = Meter(ready.node), metadata_of(ready, no_digests(ready))
        write_tensors(out, single_targets(ready.first, recipe.dtype), metadata, ready.files, ready.node, meter)
        rewrite_metadata(out, metadata_of(ready, hashing.result()))


def command(program: str, folder: Path, method: str, out: Path) -> list[str] | None:
    """What to run; None where a program hasn't the method."""
    if program == "sd-mecha":
        known = method in ("weighted_sum", "task_arithmetic", "ties")
        words = ["-c", MECHA, str(folder), method, str(out), str(RATIO), str(DENSITY)]
        return [str(ROOT / ".peers/sd-mecha/bin/python"), *words] if known else None
    if program == "mergekit":
        wanted = MERGEKIT[method]
        models = [{"model": f"{folder}/{n}.safetensors", "parameters": p} for n, p in wanted["models"]]
        config = {"merge_method": wanted["merge_method"], "models": models, "dtype": "float32", "out_dtype": "float16"}
        config |= {"parameters": wanted["parameters"]} if "parameters" in wanted else {}
        config |= {"base_model": f"{folder}/{wanted['base']}.safetensors"} if "base" in wanted else {}
        (folder / "mergekit.yml").write_text(json.dumps(config))
        out.mkdir()
        return [str(ROOT / ".peers/mergekit/bin/mergekit-pytorch"), str(folder / "mergekit.yml"), str(out)]
    if program == "copying":  # read both, write one: the least that a merge can do
        return [sys.executable, "-c", COPYING, str(folder), method, str(out)]
    return [sys.executable, "-m", "benchmarks.merge", "--run", str(folder), method, str(out)]


def timed(words: list[str]) -> dict[str, float]:
    """Seconds, and the most anonymous memory in MB."""
    os.sync()
    started = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT) as process:
        said: list[bytes] = []
        assert process.stderr
        reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)  # type: ignore[arg-type]  # it is a pipe
        reader.start()
        most = peak_of(process)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(b"".join(said[-20:]).decode())
    return {"seconds": round(seconds, 2), "anonymous_mb": round(most / 1024)}


def peak_of(process: subprocess.Popen[Any]) -> int:
    """kB that belong to no file, the most until the process ends."""
    most = 0
    while process.poll() is None:
        most = max(most, anonymous(process.pid))
        time.sleep(0.01)
    return most


def anonymous(pid: int) -> int:
    """kB of a process's memory that belong to no file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def differences(one: Path, other: Path) -> Iterator[tuple[int, int, int]]:
    """For each tensor of both: its numbers, those further apart than one step of half precision, the most steps."""
    found = sorted(other.glob("*.safetensors")) if other.is_dir() else [other]
    places = {key: place for path in found for key, place in read_header(path).tensors.items()}
    with Files() as files:
        files.open([one, *found])
        for key, ours in read_header(one).tensors.items():
            if key in places:
                a, b = (ordered(files.rows(place, 0, place.shape[0])) for place in (ours, places[key]))
                steps = (a - b.reshape(a.shape)).abs()
                yield steps.numel(), int((steps > 1).sum()), int(steps.max())


def ordered(values: torch.Tensor) -> torch.Tensor:
    """Half precision as whole numbers that follow each other as the values do."""
    bits = values.view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def tell(**figures: Any) -> None:
    """One line."""
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", nargs="?", default="weighted_sum", choices=[*RECIPES, "all"])
    parser.add_argument("--small", action="store_true")
    parser.add_argument(
        "--precise", action="store_true", help="inputs in single precision: no two magnitudes are equal"
    )
    parser.add_argument("--peers", default="sd-mecha,mergekit")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to keep the inputs, and to find them again")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        if not (folder / "base" / "text_encoder" / "config.json").exists():
            folder.mkdir(exist_ok=True)
            make(folder, given.small, given.precise)
        tell(name="an input", megabytes=round((folder / "a.safetensors").stat().st_size / 1e6))
        for method in RECIPES if given.method == "all" else [given.method]:
            compare(folder, method, [peer for peer in given.peers.split(",") if peer], given.runs)
    finally:
        if not given.folder:
            shutil.rmtree(folder)


def compare(folder: Path, method: str, peers: list[str], runs: int) -> None:
    """Every program, one after another, on the same files, several times."""
    figures: dict[str, list[dict[str, float]]] = {}
    result = folder / "ours.safetensors"
    for number in range(runs):
        for program in ("copying", "ours", *peers):
            out = result if program == "ours" else folder / f"{program}.out"
            words = command(program, folder, method, out)
            if words:
                figures.setdefault(program, []).append(timed(words))
                tell(method=method, program=program, **figures[program][-1])
                if program in peers and not number:
                    tell(method=method, against=program, **apart(result, out))
            if out.is_dir():
                shutil.rmtree(out)
            elif program != "ours":
                out.unlink(missing_ok=True)
        result.unlink()
    middle = {
        program: {name: median(one[name] for one in found) for name in found[0]} for program, found in figures.items()
    }
    for peer in middle:
        for name, unit in (("anonymous_mb", "MB"), ("seconds", "s")):
            if peer != "ours" and (peer, name) != ("copying", "anonymous_mb"):
                ours, theirs = middle["ours"][name], middle[peer][name]
                named = f"merge, {method}, {peer}{', memory' if unit == 'MB' else ''}"
                tell(name=named, ours=ours, peer=theirs, ratio=round(theirs / ours, 2), unit=unit)


def apart(one: Path, other: Path) -> dict[str, int]:
    """How far the tensors of two results are from each other."""
    rows = list(differences(one, other))
    return {
        "tensors": len(rows),
        "numbers": sum(row[0] for row in rows),
        "beyond_one_step": sum(row[1] for row in rows),
        "most_steps": max(row[2] for row in rows),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        ours(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    else:
        main()
