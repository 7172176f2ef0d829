"""From a recipe to a tree of opened models: everything up to the first byte, for `merge` and for `verify_merge`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stages.core.errors import StageError
from stages.core.files import file_digest
from stages.core.original_names import PREFIXES, link_names
from stages.merge.graph import Node, first_place, leaves, lora_key, plant
from stages.merge.headers import Files
from stages.merge.loras import Loras, open_lora
from stages.merge.models import AVERAGED, Model, known_family, open_model
from stages.merge.params import TAKES, Recipe
from stages.merge.pickles import rewritten
from stages.merge.preflight import check_fit

LORA_FILE = "pytorch_lora_weights.safetensors"  # as diffusers names a LoRA in a folder


@dataclass(frozen=True)
class Roots:
    """Where places are. scratch: a folder for rewritten pickles, made when one is read."""

    base: Path
    trained: Path
    imported: Path
    scratch: Callable[[], Path]

    def path(self, place: str) -> Path:
        kind, _, name = place.partition(":")
        return {"base": self.base, "trained": self.trained}.get(kind, self.imported / name)


@dataclass(frozen=True)
class Prepared:
    """first: the model that what isn't merged is taken from. skeleton: a folder with its parts' configurations.

    inputs: every file that is read, by place and by its name there. said: what is different and no hindrance.
    """

    recipe: Recipe
    node: Node
    first: Model
    skeleton: Model
    models: dict[str, Model]
    loras: dict[str, Loras]
    files: Files
    inputs: dict[str, dict[str, Path]]
    said: list[str]


@contextmanager
def prepared(where: str, recipe: Recipe, roots: Roots) -> Iterator[Prepared]:
    """Open, check, and close again. Raises StageError before anything is written."""
    models, inputs = {}, dict[str, dict[str, Path]]()
    for place, allowed in dict(_model_places(recipe)).items():
        path = roots.path(place)
        if not path.exists():
            raise StageError(where, f"{place} ({path}) is missing", "put the model there")
        if path.suffix == ".ckpt":
            if not allowed:
                raise StageError(where, f"{place} is a pickle", "set allow_pickle_import if you trust where it is from")
            models[place] = open_model(place, rewritten(path, roots.scratch()))
            inputs[place] = {path.name: path}
            continue
        models[place] = model = open_model(place, path)
        inputs[place] = {
            file.relative_to(path if path.is_dir() else path.parent).as_posix(): file for file in model.files
        }
    first = _with_vae(recipe, models)
    if recipe.single_file:
        known_family(first)
    loras = {}
    for inner in _lora_recipes(recipe):
        loras[lora_key(inner)] = opened = _open_loras(inner, first, roots)
        inputs |= {file.label: {file.path.name: file.path} for file in opened.files}
    with Files() as files:
        node = plant(where, recipe, models, loras)
        files.open(path for model in models.values() for path in model.files)
        files.open(lora.path for each in loras.values() for lora in each.files)
        said = check_fit(where, node, files)
        skeleton = first if first.path.is_dir() else open_model("base", roots.base)
        _check_skeleton(where, first, skeleton)
        yield Prepared(recipe, node, first, skeleton, models, loras, files, inputs, said)


def _with_vae(recipe: Recipe, models: dict[str, Model]) -> Model:
    """The first model; if it comes without a VAE and the recipe bakes one in, with the places of that one."""
    place = first_place(recipe)
    first, vae = models[place], recipe.vae
    if vae is not None and "vae" not in first.parts and first.family in PREFIXES:
        baked = models[first_place(vae) if isinstance(vae, Recipe) else vae].tensors
        tensors = {name: where for name, where in baked.items() if name.startswith("vae.")}
        links = link_names(known_family(first), tensors)[0] if first.links else []
        models[place] = replace(first, tensors={**first.tensors, **tensors}, links=[*first.links, *links])
    return models[place]


def _model_places(recipe: Recipe) -> Iterator[tuple[str, bool]]:
    """Every model of the tree, and whether it may be a pickle."""
    for source in recipe.sources():
        if isinstance(source, Recipe):
            yield from _model_places(source)
        else:
            yield source, recipe.allow_pickle_import


def _lora_recipes(recipe: Recipe) -> Iterator[Recipe]:
    if "loras" in TAKES[recipe.method]:
        yield recipe
    for source in recipe.sources():
        if isinstance(source, Recipe):
            yield from _lora_recipes(source)


def _open_loras(recipe: Recipe, first: Model, roots: Roots) -> Loras:
    shapes = {name: place.shape for name, place in first.tensors.items()}
    opened = []
    for lora in recipe.loras:
        path = roots.path(lora.file)
        opened.append(
            open_lora(lora.file, path / LORA_FILE if path.is_dir() else path, lora.weight, known_family(first), shapes)
        )
    return Loras(tuple(opened))


def _check_skeleton(where: str, first: Model, skeleton: Model) -> None:
    """A single file has no configurations: the base model's have to be of the same shapes."""
    if first.family != skeleton.family:
        raise StageError(
            where,
            f"{first.label} is a {first.family}, {skeleton.label} a {skeleton.family}",
            "set base.model to a model of its kind: its configurations are needed",
        )
    for name, place in first.tensors.items():
        known = place if name.startswith(AVERAGED) else skeleton.tensors.get(name)
        if (known is None and not name.endswith("position_ids")) or (known and known.shape != place.shape):
            raise StageError(
                where,
                f"{first.label} has {name} of shape {place.shape}, {skeleton.label} doesn't",
                "set base.model to a model of its kind: its configurations are needed",
            )
    for name in skeleton.tensors:
        if name not in first.tensors and not name.endswith("position_ids"):
            raise StageError(where, f"{first.label} lacks {name}", "take a whole checkpoint as a, or set vae")


def digests(inputs: dict[str, dict[str, Path]]) -> dict[str, dict[str, str]]:
    """sha256 of every file, by place and name."""
    return {place: {name: file_digest(path) for name, path in named.items()} for place, named in inputs.items()}


def model_labels(node: Node) -> list[str]:
    """The places of a tree's models, each once, in its order."""
    return list(dict.fromkeys(leaf.model.label for leaf in leaves(node)))
