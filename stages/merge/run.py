"""merge: make a model of several.

in    models/base, models/trained, models/imported  diffusers folders, single files, LoRAs
out   models/merged/<recipe>  a diffusers folder; what no recipe touches is the first model's
      merge.json              the recipe, its inputs, and what it did to the weights
      pytorch_lora_weights.safetensors  of recipes that make a LoRA; single_file.safetensors where asked
"""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stages.core.files import replacing, scratch, write_json
from stages.core.stage import run_stage
from stages.merge.adapters import write_adapter
from stages.merge.blocks import blocks_of
from stages.merge.diagnostics import Meter
from stages.merge.graph import Adapted
from stages.merge.models import WEIGHTS, known_family, weight_files
from stages.merge.params import MergeParams
from stages.merge.prepare import LORA_FILE, Prepared, Roots, digests, prepared
from stages.merge.record import Digests, metadata_of, no_digests, record
from stages.merge.writing import folder_targets, rewrite_metadata, single_targets, write_tensors

SINGLE_FILE = "single_file.safetensors"
DENOISERS_AND_VAE = ("unet", "transformer", "vae")


def main(params: MergeParams, recipe: str, base: Path, trained: Path, imported: Path, out: Path) -> None:
    """Open and check, then write tensor by tensor."""
    torch.set_num_threads(1)  # threads share tensors out, not numbers: sums are always in one order
    chosen = params.root[recipe]
    with prepared(f"merge.{recipe}", chosen, Roots(base, trained, imported, partial(scratch, "merge"))) as ready:
        for line in ready.said:
            print(f"{recipe}: {line}")
        with replacing(out) as folder, ThreadPoolExecutor(1) as beside:
            hashing = beside.submit(digests, ready.inputs)  # of what the merge reads at the same time
            told = write_model(ready, folder, hashing)
            write_json(folder / "merge.json", told)
    print(f"{recipe}: {chosen.method}, {len(ready.first.tensors)} tensors, {told['relative_delta']:.3%} from the first")


def write_model(ready: Prepared, folder: Path, hashing: Future[Digests]) -> dict[str, Any]:
    """All files of the merged model; what merge.json says."""
    metadata, first, node = metadata_of(ready, no_digests(ready)), ready.first, ready.node
    copy_rest(ready.skeleton.path, folder, first.parts)
    if isinstance(node, Adapted):
        node = write_adapter(folder / LORA_FILE, node, first, ready.files, metadata)
    meter = Meter(ready.node)
    for part in sorted(first.parts & ready.skeleton.parts):
        path = folder / part / f"{WEIGHTS[part not in DENOISERS_AND_VAE]}.safetensors"
        targets = folder_targets(part, first, ready.skeleton, ready.recipe.dtype)
        write_tensors(path, targets, metadata, ready.files, node, meter)
    if ready.recipe.single_file:
        write_tensors(
            folder / SINGLE_FILE, single_targets(first, ready.recipe.dtype), metadata, ready.files, node, meter=None
        )
    found = hashing.result()
    for path in written_files(folder, first.parts):
        rewrite_metadata(path, metadata_of(ready, found))
    blocks = (
        blocks_of(known_family(first), first.tensors) if first.family != "sd3" else dict.fromkeys(first.tensors, "all")
    )
    return record(ready, found) | {"said": ready.said} | meter.told(blocks)


def written_files(folder: Path, parts: set[str]) -> list[Path]:
    """The merged weights below a folder."""
    single = [path for path in (folder / SINGLE_FILE, folder / LORA_FILE) if path.is_file()]
    return single + [path for part in sorted(parts) for path in weight_files(folder / part)]


def copy_rest(source: Path, folder: Path, merged: set[str]) -> None:
    """Configurations, tokenizers, and parts that aren't merged."""
    shutil.copyfile(source / "model_index.json", folder / "model_index.json")
    for path in sorted(source.glob("*/*")):
        kept = path.suffix in (".json", ".txt", ".model") and ".index." not in path.name
        if kept or (path.suffix == ".safetensors" and path.parent.name not in merged):
            (folder / path.parent.name).mkdir(exist_ok=True)
            shutil.copyfile(path, folder / path.parent.name / path.name)


if __name__ == "__main__":
    run_stage(main)
