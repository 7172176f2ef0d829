"""base: pin and open the model that everything starts from.

in    models/imported  diffusers folders that a person put there; or a hub
out   models/base      a Stable Diffusion 1.x or 2.x pipeline as a diffusers folder, safetensors only
"""

import json
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from stages.base.params import BaseParams
from stages.base.random_model import random_pipeline
from stages.core.errors import StageError
from stages.core.files import replacing
from stages.core.stage import run_stage

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def main(params: BaseParams, imported: Path, out: Path) -> None:
    """Bring the model to `out` and check that it is one the stages know."""
    local = params.folder(imported)
    kind, _, name = params.model.partition(":")
    with replacing(out) as folder:
        if kind == "random":
            random_pipeline(name, params.seed).save_pretrained(folder)
        else:
            copy_model(local or download(*name.split("@")), folder)
    print(f"{params.model}: {sum(path.stat().st_size for path in out.rglob('*')) / 1e6:.1f} MB")


def download(name: str, revision: str) -> Path:
    """Fetch a pinned snapshot: the parts this project uses, safetensors only. Raises StageError."""
    patterns = ["model_index.json"] + [
        f"{part}/{end}" for part in PARTS for end in ("*.json", "*.txt", "*.safetensors")
    ]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise StageError(
            "base.model",
            f"{name} at {revision} can't be fetched ({reason})",
            "check the name, the commit and the network",
        ) from None


def copy_model(source: Path, out: Path) -> None:
    """Copy the parts of a diffusers folder; never a pickle. Raises StageError if it is no such model."""
    index = source / "model_index.json"
    if not index.is_file():
        raise StageError(str(source), "is no diffusers folder: it has no model_index.json", "convert the model first")
    kind = json.loads(index.read_text()).get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise StageError(str(index), f"is a {kind}", "use a StableDiffusionPipeline (Stable Diffusion 1.x or 2.x)")
    parts = {
        name: value for name, value in json.loads(index.read_text()).items() if name.startswith("_") or name in PARTS
    }
    (out / "model_index.json").write_text(json.dumps(parts, indent=2, sort_keys=True) + "\n")
    for part in PARTS:
        if not (source / part).is_dir():
            raise StageError(str(source), f"has no part {part}", "complete the folder")
        files = [
            path
            for path in sorted((source / part).iterdir())
            if path.suffix in (".json", ".txt")
            or (path.suffix == ".safetensors" and _is_whole_precision(path, source / part))
        ]
        if part in ("unet", "vae", "text_encoder") and not any(path.suffix == ".safetensors" for path in files):
            raise StageError(str(source / part), "has no safetensors weights", "convert them: pickles are not opened")
        (out / part).mkdir()
        for path in files:
            shutil.copyfile(path, out / part / _plain_name(path))


def _is_whole_precision(path: Path, folder: Path) -> bool:
    """Whether a weight file is the one that loads by default: variants (`.fp16.`) stay behind if it is there."""
    return _plain_name(path) == path.name or not (folder / _plain_name(path)).exists()


def _plain_name(path: Path) -> str:
    """`model.fp16.safetensors` is `model.safetensors`."""
    return path.name.replace(".fp16.", ".") if path.suffix == ".safetensors" else path.name


if __name__ == "__main__":
    run_stage(main)
