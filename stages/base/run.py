"""base: pin and open the model that everything starts from.

in    models/imported  diffusers folders that a person put there; or a hub
      models/tiny-sd   the model that comes with the project
out   models/base      a Stable Diffusion pipeline (1, 2, XL or 3) as a diffusers folder, safetensors only
"""

import json
import re
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from stages.base.params import BaseParams
from stages.base.random_families import build
from stages.core.errors import StageError
from stages.core.families.family import parts_of
from stages.core.families.known import FAMILIES, family_of
from stages.core.files import replacing, write_json
from stages.core.stage import run_stage

WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
CONFIG = ("force_zeros_for_empty_prompt",)  # of model_index.json, beside the parts


def main(params: BaseParams, imported: Path, shipped: Path, out: Path) -> None:
    """Bring the model to `out` and check that it is one the stages know."""
    place = params.place(imported)
    with replacing(out) as folder:
        if params.model == shipped.name:
            copy_model(shipped, folder)
        elif place is None:
            build(params.model.partition(":")[2], params.seed).save_pretrained(folder)
        else:
            name, commit = place
            copy_model(download(name, commit) if commit else Path(name), folder)
    print(f"{params.model}: {sum(path.stat().st_size for path in out.rglob('*')) / 1e6:.1f} MB")


def download(name: str, revision: str) -> Path:
    """Fetch a pinned snapshot: the parts this project uses, safetensors only. Raises StageError."""
    parts = sorted({part for family in FAMILIES.values() for part in parts_of(family)})
    wanted = ["model_index.json"]
    wanted += [f"{part}/{end}" for part in parts for end in ("*.json", "*.txt", "*.model", "*.safetensors")]
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=wanted, ignore_patterns=["*.non_ema.*", "*.fp16.*"]
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StageError(
            "base.model",
            f"{name} at {revision} can't be fetched ({str(error).splitlines()[0]})",
            "check the name, the commit and the network",
        ) from None


def copy_model(source: Path, out: Path) -> None:
    """Copy the parts of a diffusers folder; never a pickle. Raises StageError if it is no such model."""
    family = family_of(source)
    parts = [part for part in parts_of(family) if part not in family.optional or (source / part).is_dir()]
    entries = json.loads((source / "model_index.json").read_text(encoding="utf-8"))
    kept = {name: entry for name, entry in entries.items() if name.startswith("_") or name in (*parts, *CONFIG)}
    write_json(out / "model_index.json", kept | {name: [None, None] for name in family.optional if name not in parts})
    for part in parts:
        if not (source / part).is_dir():
            raise StageError(str(source), f"has no part {part}", "complete the folder")
        (out / part).mkdir()
        for name, path in files_of(source / part).items():
            shutil.copyfile(path, out / part / name)
        weights = part in (family.denoiser, "vae", *family.encoders)
        if weights and not list((out / part).glob("*.safetensors")):
            raise StageError(str(source / part), "has no safetensors weights", "convert them: pickles are not opened")
    if (source / "clip").is_dir():  # both towers of the text encoder's CLIP, where the model was made here
        (out / "clip").mkdir()
        for name, path in files_of(source / "clip").items():
            shutil.copyfile(path, out / "clip" / name)


def files_of(part: Path) -> dict[str, Path]:
    """The files of one part by the name that loads by default: `model.fp16.safetensors` only where no other is."""
    found = {}
    for path in sorted(part.iterdir(), key=lambda path: (".fp16." not in path.name, path.name)):
        name = path.name.replace(".fp16.", ".")
        if WEIGHTS.fullmatch(name) or (
            path.suffix in (".json", ".txt", ".model") and "safetensors" not in name and "bin" not in name
        ):
            found[name] = path
    return found


if __name__ == "__main__":
    run_stage(main)
