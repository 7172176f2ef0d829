"""Everything that can be known before the first byte: whether models fit, and how they differ where they do."""

import math
from collections.abc import Iterator

from stages.core.errors import StageError
from stages.merge.graph import Adapted, Leaf, Node, Task, leaves, value
from stages.merge.headers import Files, Place, count
from stages.merge.models import VAE, Model
from stages.merge.params import DIFFERENCES

DESCENDS = 0.5  # least cosine between a model and its ancestor; between unrelated ones it is about 0
SAMPLED = 8  # tensors, the largest, that the cosine is measured on
DENOISERS = ("unet.", "transformer.")


def check_fit(where: str, node: Node, files: Files) -> list[str]:
    """Refuse models that only seem to fit; say what else is different.

    Raises StageError, which names the key, for another family, missing, further or differently shaped tensors, another
    prediction type, another scale of latents, and differences from what is no ancestor.
    """
    found = list(leaves(node))
    first, said = found[0].first, []
    for model in {leaf.model.label: leaf.model for leaf in found}.values():
        if model is not first:
            said += _check_pair(where, first, model)
        said += [f"{model.label} has {number} {what}, which no merge reads" for what, number in _rest(model).items()]
    for name, place in first.tensors.items():
        if name.endswith(".weight") and place.dtype.itemsize == 1:
            said.append(f"{first.label} stores {name} and others in 8 bits")
            break
    for descendant, ancestor, names in _differences(node):
        _check_ancestor(where, descendant, ancestor, names, first, files)
    return said


def _check_pair(where: str, first: Model, other: Model) -> list[str]:
    both = f"{first.label} and {other.label}"
    if other.family not in (first.family, VAE):
        raise StageError(where, f"{both} are {first.family} and {other.family}", "merge models of one family")
    said = []
    parts = first.parts & other.parts
    for part in sorted(first.parts ^ other.parts) if other.family != VAE else []:
        owner, stranger = (first, other) if part in first.parts else (other, first)
        said.append(
            f"{stranger.label} has no {part}: {owner.label + chr(39) + 's stays' if owner is first else 'left out'}"
        )
    for name in sorted(first.tensors.keys() ^ other.tensors.keys()):
        owner = first if name in first.tensors else other
        if name.partition(".")[0] in parts and name.endswith("position_ids"):
            said.append(f"{name} is in {owner.label} only: whole numbers are not merged")
        elif name.partition(".")[0] in parts:
            raise StageError(where, f"{name} is in {owner.label} only of {both}", "merge models of one family")
    for name in sorted(first.tensors.keys() & other.tensors.keys()):
        _check_tensors(where, both, name, first.tensors[name], other.tensors[name])
    for what, ours, theirs in (
        ("prediction type", first.prediction, other.prediction),
        ("scale of latents", first.scaling, other.scaling),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise StageError(where, f"{both} have the {what} {ours} and {theirs}", "they can't be blended")
    if other.prediction is None and other.family != VAE:
        said.append(f"{other.label} doesn't say its prediction type: taken for {first.prediction or 'that of all'}")
    return said


def _check_tensors(where: str, both: str, name: str, ours: Place, theirs: Place) -> None:
    if ours.shape != theirs.shape:
        raise StageError(
            where, f"{name} has the shapes {ours.shape} and {theirs.shape} in {both}", "merge models of one family"
        )
    if ours.floating != theirs.floating:
        raise StageError(
            where, f"{name} has the types {ours.dtype} and {theirs.dtype} in {both}", "they can't be blended"
        )


def _rest(model: Model) -> dict[str, int]:
    """What a single file holds beside a model, in words, with the number of tensors."""
    counts: dict[str, int] = {}
    for key in model.rest:
        start = key.partition(".")[0]
        what = f"tensors of {start} that no folder has"
        counts[what] = counts.get(what, 0) + 1
    return counts


def _differences(node: Node) -> Iterator[tuple[Node, Node, str]]:
    """Whatever is subtracted somewhere in the tree: descendant, ancestor, and what to call the two."""
    if isinstance(node, Leaf):
        return
    if isinstance(node, Adapted):
        if node.b is not None:
            yield node.b, node.a, "b and a"
        below = [node.a, node.b]
    else:
        for role, ancestor in DIFFERENCES.get(node.recipe.method, ()):
            for descendant in node.models if role == "models" else [node.inputs[role]]:
                yield descendant, node.inputs[ancestor], f"{role} and {ancestor}"
        below = [*node.inputs.values(), *node.models]
    for each in (*below, node.vae):
        if each is not None:
            yield from _differences(each)


def _check_ancestor(where: str, descendant: Node, ancestor: Node, names: str, first: Model, files: Files) -> None:
    """The cosine between the first rows of the denoiser's largest tensors. Raises StageError if they are unrelated."""
    denoiser = sorted(
        (name for name, place in first.tensors.items() if name.startswith(DENOISERS) and len(place.shape) > 1),
        key=lambda name: (-count(first.tensors[name].shape), name),
    )
    dot = left = right = 0.0
    for name in denoiser[:SAMPLED]:
        task = Task(name, first.tensors[name].shape)
        ours, theirs = (value(files, node, task, *task.chunks[0]).flatten().double() for node in (descendant, ancestor))
        dot += float(ours @ theirs)
        left += float(ours @ ours)
        right += float(theirs @ theirs)
    norms = math.sqrt(left * right)
    cosine = dot / norms if norms else 0.0
    if denoiser and cosine < DESCENDS:
        raise StageError(
            where,
            f"{names} have no common ancestor: the cosine of {denoiser[0]} and others is {cosine:.3f}",
            "take differences from the model that was trained on",
        )
