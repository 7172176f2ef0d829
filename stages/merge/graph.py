"""A recipe as a tree whose leaves are models, and the value of a tensor at its root: some rows at a time.

Nothing is kept between two recipes of a tree, on disk or rounded: a recipe inside another one is computed where it is
needed, in float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from stages.core.errors import StageError
from stages.merge.blocks import blocks_of, ratios
from stages.merge.headers import Files, Place, count
from stages.merge.loras import Factors, Loras, applied, extracted
from stages.merge.methods import METHODS
from stages.merge.models import Model, known_family
from stages.merge.params import TAKES, Recipe

CHUNK = 131_072  # numbers at a time: in float32 what fits a core's own cache


@dataclass(frozen=True, eq=False)
class Leaf:
    """A model. first: whose tensors stand in for a part that this one hasn't."""

    model: Model
    first: Model

    def place(self, name: str) -> Place:
        return self.model.tensors.get(name) or self.first.tensors[name]


@dataclass(frozen=True, eq=False)
class Blend:
    """A method, and what it blends by role: a, b, c, models."""

    recipe: Recipe
    ratios: dict[str, float]
    inputs: dict[str, "Node"]
    models: list["Node"]
    vae: "Node | None"


@dataclass(frozen=True, eq=False)
class Adapted:
    """A model with LoRAs: given ones, or one that is extracted from b - a."""

    recipe: Recipe
    ratios: dict[str, float]
    a: "Node"
    b: "Node | None"
    loras: Loras
    vae: "Node | None"


Node = Leaf | Blend | Adapted


@dataclass
class Task:
    """One tensor on its way: what was measured of it, by node."""

    name: str
    shape: tuple[int, ...]
    known: dict[int, Any] = field(default_factory=dict)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """First row and the row after the last of each chunk."""
        shape = self.shape or (1,)
        step = max(1, CHUNK // max(1, count(shape[1:])))
        return [(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]


def plant(where: str, recipe: Recipe, models: dict[str, Model], loras: dict[str, Loras]) -> Node:
    """The tree of a recipe. models: opened, by place. loras: opened, by the places that a recipe's list names.

    Raises StageError where a recipe asks for what the models haven't.
    """
    first = models[first_place(recipe)]
    blocks = {} if first.family == "sd3" else blocks_of(known_family(first), first.tensors)
    if not blocks:
        if recipe.blocks:
            raise StageError(where, f"a {first.family} has no blocks", "give components instead")
        blocks = dict.fromkeys(first.tensors, "BASE")

    def node(source: str | Recipe) -> Node:
        return Leaf(models[source], first) if isinstance(source, str) else tree(source)

    def tree(recipe: Recipe) -> Node:
        takes = TAKES[recipe.method]
        vae = None if recipe.vae is None else node(recipe.vae)
        by_name = ratios(where, recipe, blocks)
        if recipe.method in ("lora", "extract_lora"):
            tuned = node(recipe.b) if recipe.method == "extract_lora" else None
            chosen = loras[lora_key(recipe)] if recipe.method == "lora" else Loras(())
            return Adapted(recipe, by_name, node(recipe.a), tuned, chosen, vae)
        inputs: dict[str, Node] = {role: node(getattr(recipe, role)) for role in ("a", "b", "c") if role in takes}
        return Blend(recipe, by_name, inputs, [node(each.model) for each in recipe.models], vae)

    return tree(recipe)


def first_place(recipe: Recipe) -> str:
    """The model that the result takes everything from that isn't merged."""
    source = recipe.models[0].model if recipe.method == "average" else recipe.a
    return first_place(source) if isinstance(source, Recipe) else source


def lora_key(recipe: Recipe) -> str:
    """What stands for a recipe's list of LoRAs."""
    return "|".join(f"{lora.file}*{lora.weight}" for lora in recipe.loras)


def value(files: Files, node: Node, task: Task, start: int, stop: int) -> torch.Tensor:
    """Rows of the task's tensor at this node, (stop - start, ...) float32."""
    match node:
        case Leaf():
            return files.rows(node.place(task.name), start, stop).float()
        case _ if node.vae is not None and task.name.startswith("vae."):
            return value(files, node.vae, task, start, stop)
        case _ if (start, stop) not in task.chunks:
            return _assembled(files, node, task, start, stop)
        case Blend():
            return _blended(files, node, task, start, stop)
        case Adapted():
            below = value(files, node.a, task, start, stop)
            factors = factors_of(files, node, task)
            return below if factors is None else applied(below, factors, start, stop)


def _assembled(files: Files, node: Node, task: Task, start: int, stop: int) -> torch.Tensor:
    """Rows that are no chunk, cut from chunks: what is drawn for a number must not depend on who asks for it."""
    parts = [
        value(files, node, task, first, last)[max(start - first, 0) : stop - first]
        for first, last in task.chunks
        if first < stop and start < last
    ]
    return torch.cat(parts)


def _blended(files: Files, node: Blend, task: Task, start: int, stop: int) -> torch.Tensor:
    recipe, chosen = node.recipe, METHODS[node.recipe.method]
    rows = (task.shape or (1,))[0]
    before, after = min(chosen.halo, start), min(chosen.halo, rows - stop)
    knobs = _knobs(node, task, start)
    if chosen.measure:
        if id(node) not in task.known:
            given = {"density": recipe.density} if recipe.method == "ties" else {}
            task.known[id(node)] = chosen.measure(_chunks(files, node, task), **given)
        knobs["measured"] = task.known[id(node)]
    operands = _operands(files, node, task, start - before, stop + after)
    return chosen.function(**operands, **knobs)[before : before + stop - start]


def _operands(files: Files, node: Blend, task: Task, start: int, stop: int) -> dict[str, Any]:
    operands: dict[str, Any] = {role: value(files, below, task, start, stop) for role, below in node.inputs.items()}
    if node.models:
        operands["models"] = [value(files, below, task, start, stop) for below in node.models]
    return operands


def _chunks(files: Files, node: Blend, task: Task) -> Callable[[], Iterator[dict[str, Any]]]:
    return lambda: (_operands(files, node, task, start, stop) for start, stop in task.chunks)


def _knobs(node: Blend, task: Task, start: int) -> dict[str, Any]:
    """What the method reads beside tensors. draws: what a random number is for."""
    recipe, takes = node.recipe, TAKES[node.recipe.method]
    knobs: dict[str, Any] = {"ratio": node.ratios[task.name]}
    if "models" in takes:
        knobs["weights"] = [each.weight for each in recipe.models]
    for knob in ("ratio_c", "density", "epsilon"):
        if knob in takes and recipe.method != "ties":
            knobs[knob] = getattr(recipe, knob)
    if "seed" in takes:
        knobs["draws"] = (recipe.seed, recipe.method, task.name, start)
    return knobs


def factors_of(files: Files, node: Adapted, task: Task) -> Factors | None:
    """The low-rank update of one tensor, None where there is none; worked out once a task."""
    if id(node) not in task.known:
        ratio, rank = node.ratios[task.name], node.recipe.rank
        if node.b is None:
            found = node.loras.factors(files, task.name, ratio, rank)
        elif is_extracted(task):
            rows = [
                (value(files, node.b, task, *chunk) - value(files, node.a, task, *chunk)).flatten(1)
                for chunk in task.chunks
            ]
            found = extracted(torch.cat(rows), ratio, rank)
        else:
            found = None
        task.known[id(node)] = found
    known: Factors | None = task.known[id(node)]
    return known


def is_extracted(task: Task) -> bool:
    """A LoRA holds what linear layers and convolutions learned, not embeddings, biases or normalisations."""
    return (
        task.name.endswith(".weight")
        and len(task.shape) > 1
        and "embeddings." not in task.name
        and not task.name.startswith("vae.")
    )


def leaves(node: Node) -> Iterator[Leaf]:
    """Every model of the tree."""
    if isinstance(node, Leaf):
        yield node
        return
    below = [node.a, node.b] if isinstance(node, Adapted) else [*node.inputs.values(), *node.models]
    for each in (*below, node.vae):
        if each is not None:
            yield from leaves(each)
