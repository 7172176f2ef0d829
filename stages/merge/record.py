"""What a merged file says of itself: its recipe, what went in, and what that was made of.

The key `darkroom` holds all of it; `sd_merge_recipe` and `sd_merge_models` say it in the words of AUTOMATIC1111's web
UI (modules/extras.py), which other programs read too.
"""

import json
from itertools import count
from typing import Any

from stages.merge.params import Recipe
from stages.merge.prepare import Prepared, model_labels

INTERPOLATION = {"add_difference": "Add difference", "weighted_sum": "Weighted sum"}
Digests = dict[str, dict[str, str]]


def no_digests(ready: Prepared) -> Digests:
    """Different words of the digests' length: the true ones will take no more room."""
    numbers = count()
    return {place: {name: f"{next(numbers):064}" for name in named} for place, named in ready.inputs.items()}


def record(ready: Prepared, digests: Digests) -> dict[str, Any]:
    """Recipe, inputs with their sha256, and what the inputs themselves record, by place."""
    ancestors = {}
    for place, model in ready.models.items():
        told = {name: json.loads(metadata["darkroom"]) for name, metadata in model.metadata.items() if _ours(metadata)}
        if told:
            ancestors[place] = told
    return {"merge": {"recipe": ready.recipe.told(), "inputs": digests, "ancestors": ancestors}}


def _identity(files: dict[str, str]) -> str:
    """The one hash that stands for a model: its denoiser's, in a folder. A text encoder is shared by many."""
    return min(files.items(), key=lambda item: (not item[0].startswith(("unet/", "transformer/")), item[0]))[1]


def metadata_of(ready: Prepared, digests: Digests) -> dict[str, str]:
    """The metadata of every file that the merge writes."""
    labels = model_labels(ready.node)
    hashes = {label: _identity(digests[label]) for label in labels}
    recipe = ready.recipe
    webui: dict[str, Any] = {
        "type": "webui",
        "primary_model_hash": hashes[labels[0]],
        "secondary_model_hash": hashes[labels[1]] if len(labels) > 1 else None,
        "tertiary_model_hash": hashes[labels[2]] if len(labels) > 2 else None,
        "interp_method": INTERPOLATION.get(recipe.method, recipe.method),
        "multiplier": recipe.share,
        "save_as_half": recipe.dtype == "float16",
        "bake_in_vae": recipe.vae is not None,
    }
    models = {
        hashes[label]: {"name": label, "legacy_hash": None, "sd_merge_recipe": _webui_recipe(ready, label)}
        for label in labels
    }
    told = {
        "darkroom": record(ready, digests),
        "sd_merge_recipe": webui,
        "sd_merge_models": models,
    }
    words = {key: json.dumps(value, sort_keys=True) for key, value in told.items()}
    return words | {"format": "pt"}


def _webui_recipe(ready: Prepared, label: str) -> Any:
    """What an input says of itself in the same words."""
    for metadata in ready.models[label].metadata.values():
        if "sd_merge_recipe" in metadata:
            return _json(metadata["sd_merge_recipe"])
    return None


def _ours(metadata: dict[str, str]) -> bool:
    return isinstance(_json(metadata.get("darkroom", "")), dict)


def _json(text: str) -> Any:
    """Whatever an input's metadata hold; None for what is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def recipe_of(told: dict[str, Any]) -> Recipe:
    """The recipe that a record holds; knobs that its method doesn't read aren't in it."""
    return Recipe.model_validate(told["merge"]["recipe"])
