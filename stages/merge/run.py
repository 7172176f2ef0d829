"""merge: blend the denoisers of two models.

in    models/base, models/trained  two models of one family
out   models/merged/<recipe>       the first model with a blended UNet
"""

import json
import shutil
from pathlib import Path

import torch

from stages.core.errors import StageError
from stages.core.files import replacing
from stages.core.stage import run_stage
from stages.core.weights import load_unet_weights, save_unet_weights
from stages.merge.methods import weighted_sum
from stages.merge.params import MergeParams, Recipe


def main(params: MergeParams, recipe: str, base: Path, trained: Path, out: Path) -> None:
    """Check that the models fit, then blend tensor by tensor."""
    chosen = params.root[recipe]
    models = {"base": base, "trained": trained}
    a, b = models[chosen.a], models[chosen.b]
    weights_a, weights_b = load_unet_weights(a), load_unet_weights(b)
    check_fit(recipe, a, b, weights_a, weights_b)
    merged = {name: blend(chosen, weights_a[name], weights_b[name]) for name in sorted(weights_a)}
    with replacing(out) as folder:
        shutil.copytree(a, folder, dirs_exist_ok=True)
        save_unet_weights(merged, folder, {"recipe": chosen.model_dump()})
    print(f"{recipe}: {len(merged)} tensors, {chosen.method} of {chosen.a} and {chosen.b} at {chosen.ratio}")


def check_fit(
    recipe: str, a: Path, b: Path, weights_a: dict[str, torch.Tensor], weights_b: dict[str, torch.Tensor]
) -> None:
    """Refuse models that only seem to fit, before any tensor is touched."""
    for name in sorted(weights_a.keys() ^ weights_b.keys()):
        raise StageError(f"merge.{recipe}", f"{name} is in one model only", "merge models of one family")
    for name, tensor in weights_a.items():
        if tensor.shape != weights_b[name].shape:
            shapes = f"{tuple(tensor.shape)} and {tuple(weights_b[name].shape)}"
            raise StageError(f"merge.{recipe}", f"{name} has the shapes {shapes}", "merge models of one family")
    kinds = [json.loads((m / "scheduler" / "scheduler_config.json").read_text()).get("prediction_type") for m in (a, b)]
    if kinds[0] != kinds[1]:
        raise StageError(f"merge.{recipe}", f"prediction types {kinds[0]} and {kinds[1]}", "they can't be blended")


def blend(recipe: Recipe, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """In float32, rounded once to a's type; whole numbers are a's."""
    if not a.is_floating_point():
        return a
    return weighted_sum(a.float(), b.float(), recipe.ratio).to(a.dtype)


if __name__ == "__main__":
    run_stage(main)
