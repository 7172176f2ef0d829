"""Whether a merged model is what it says it is.

python -m stages.tools.verify_merge MODEL [--tensors N] [--base DIR] [--trained DIR] [--imported DIR]

MODEL is a folder below models/merged or one of its safetensors files. The inputs that the file records are looked up
where the project has them, their sha256 compared, and N tensors of each file (0: all) computed again, bit for bit.
Which ones is drawn from the file's own digest. Exits with 1 if one differs.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch

from stages.core.draws import seed_of
from stages.core.errors import StageError
from stages.core.files import file_digest, scratch
from stages.merge.graph import Adapted, Task, factors_of
from stages.merge.headers import Files, Header, Place, read_header
from stages.merge.prepare import LORA_FILE, Prepared, Roots, digests, prepared
from stages.merge.record import recipe_of
from stages.merge.writing import Target, folder_targets, merged_rows, single_targets

SHOWN = 20


def main(model: Path, roots: Roots, tensors: int) -> list[str]:
    """Every fault, in words; prints what was compared. Raises StageError if there is nothing to compare."""
    torch.set_num_threads(1)
    paths = sorted(model.rglob("*.safetensors")) if model.is_dir() else [model]
    headers = {path: header for path in paths if "darkroom" in (header := read_header(path)).metadata}
    records = {path: json.loads(header.metadata["darkroom"]) for path, header in headers.items()}
    merged = {path: told for path, told in records.items() if "merge" in told}
    if not merged:
        raise StageError(str(model), "records no merge", "give a folder below models/merged")
    told = next(iter(merged.values()))
    faults = [f"{path}: records another merge than its neighbours" for path in merged if merged[path] != told]
    with prepared(str(model), recipe_of(told), roots) as ready:
        for place, named in digests(ready.inputs).items():
            for name, digest in named.items():
                if told["merge"]["inputs"].get(place, {}).get(name) != digest:
                    faults.append(f"{place}: {name} is not the file that was merged")
        for path in merged:
            faults += compare(path, headers[path], ready, tensors)
    return faults


def compare(path: Path, header: Header, ready: Prepared, number: int) -> Iterator[str]:
    """What is wrong in one file."""
    digest = file_digest(path)
    with Files() as files:
        files.open([path])
        if path.name == LORA_FILE:
            checks = {key: module for key in header.tensors if (module := key.rpartition(".lora_")[0])}
        else:
            targets = {target.key: target for target in targets_of(path, ready)}
            for key in sorted(targets.keys() ^ header.tensors.keys()):
                yield f"{path}: {key} is {'missing' if key in targets else 'too much'}"
            checks = dict.fromkeys(targets.keys() & header.tensors.keys(), "")
        chosen = sorted(checks, key=lambda key: seed_of("verify", digest, key))[: number or None]
        same = 0
        for key in chosen:
            expected = adapter_rows(ready, key, checks[key]) if checks[key] else target_rows(ready, targets[key])
            if equal(files, header.tensors[key], expected):
                same += 1
            else:
                yield f"{path}: {key} is not what the recipe gives"
        print(f"{path}: {same} of {len(chosen)} tensors computed again are the same, of {len(header.tensors)}")


def targets_of(path: Path, ready: Prepared) -> list[Target]:
    """What the file would be written from."""
    if path.parent.name in ready.first.parts:
        return folder_targets(path.parent.name, ready.first, ready.skeleton, ready.recipe.dtype)
    return single_targets(ready.first, ready.recipe.dtype)


def target_rows(ready: Prepared, target: Target) -> Iterator[torch.Tensor]:
    """A tensor as the merge would write it."""
    if target.copied:
        for chunk in Task(target.key, target.copied.shape).chunks:
            yield ready.files.rows(target.copied, *chunk)
        return
    for name, shape in zip(target.names, target.shapes, strict=True):
        for rows in merged_rows(ready.files, ready.node, Task(name, shape), target.dtype, whole=target.transposed):
            yield rows.T.contiguous() if target.transposed else rows


def adapter_rows(ready: Prepared, key: str, module: str) -> Iterator[torch.Tensor]:
    """A matrix of the LoRA as the merge would write it."""
    name = f"{module}.weight"
    if isinstance(ready.node, Adapted) and name in ready.first.tensors:
        factors = factors_of(ready.files, ready.node, Task(name, ready.first.tensors[name].shape))
        if factors is not None:
            yield factors.down if ".lora_A." in key else factors.up


def equal(files: Files, place: Place, expected: Iterable[torch.Tensor]) -> bool:
    """Bit for bit, whatever the tensors' shapes."""
    whole = files.rows(place, 0, (place.shape or (1,))[0]).reshape(-1).view(torch.uint8)
    parts = [rows.reshape(-1).contiguous().view(torch.uint8) for rows in expected]
    return bool(parts) and torch.equal(whole, torch.cat(parts))


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tensors", type=int, default=16)
    for name in ("base", "trained", "imported"):
        parser.add_argument(f"--{name}", type=Path, default=Path("models", name))
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    try:
        found = main(
            given.model, Roots(given.base, given.trained, given.imported, partial(scratch, "merge")), given.tensors
        )
    except StageError as error:
        sys.exit(f"error: {error}")
    for fault in found[:SHOWN]:
        print(f"error: {fault}", file=sys.stderr)
    if len(found) > SHOWN:
        print(f"error: and {len(found) - SHOWN} more", file=sys.stderr)
    sys.exit(1 if found else 0)
