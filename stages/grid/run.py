"""grid: what two settings do, on a sheet each.

in    the models
out   data/grids  <name>.png, and grids.json that says what they show
"""

from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from stages.core.families.known import family_of, load_pipeline
from stages.core.files import replacing, write_json
from stages.core.gpus import leased
from stages.core.models import best_device
from stages.core.prompts import read_prompt
from stages.core.sampling import Drawing, draw, side_of
from stages.core.settings import width_and_height
from stages.core.sheets import table_sheet
from stages.core.stage import run_stage
from stages.grid.params import Axis, Grid, GridParams
from stages.grid.weights import Weights

BATCH = 8
Cell = dict[str, Any]


def main(params: GridParams, base: Path, trained: Path, merged: Path, out: Path) -> None:
    """Draw every grid of the section."""
    places = {"base": base, "trained": trained}
    told = {}
    with replacing(out) as folder:
        for name, grid in params.root.items():
            sheet = draw_grid(grid, base, places.get(grid.model, merged / grid.model))
            sheet.save(folder / f"{name}.png")
            axes = {axis: getattr(grid, axis).model_dump() for axis in ("x", "y")}
            told[name] = {"file": f"{name}.png", **axes, "prompt": grid.prompt, "seed": grid.seed, "model": grid.model}
        write_json(folder / "grids.json", told)
    print(f"{len(told)} grids")


def draw_grid(grid: Grid, base: Path, model: Path) -> Image.Image:
    """One sheet: the values of x across, of y down.

    Raises StageError if the model has no LoRA whose strength could be set, or isn't like the base.
    """
    pipeline, names = load_pipeline(model).to(best_device()), {grid.x.name, grid.y.name}
    weights = Weights(pipeline, family_of(model), model, base if "ratio" in names else None, "strength" in names)
    cells: list[Cell] = [{grid.x.name: x, grid.y.name: y} for y in grid.y.values for x in grid.x.values]
    size = width_and_height(grid.size, side_of(pipeline))
    pictures: dict[int, Image.Image] = {}
    in_turn = sorted(range(len(cells)), key=lambda number: (*mixture(cells[number]), number))
    for (ratio, strength), group in groupby(in_turn, key=lambda number: mixture(cells[number])):
        numbers = list(group)
        weights.set(ratio, strength)
        drawings = [drawing_of(grid, cells[number], size) for number in numbers]
        pictures |= zip(numbers, draw(pipeline, drawings, BATCH, read_prompt), strict=True)
    columns = len(grid.x.values)
    rows = [[pictures[row * columns + column] for column in range(columns)] for row in range(len(grid.y.values))]
    across, down = ([label_of(axis, value) for value in axis.values] for axis in (grid.x, grid.y))
    return table_sheet(rows, across, down, title_of(grid))


def mixture(cell: Cell) -> tuple[float, float]:
    """Ratio and strength of a cell, 1 where they are no axis."""
    return float(cell.get("ratio", 1)), float(cell.get("strength", 1))


def drawing_of(grid: Grid, cell: Cell, size: tuple[int, int]) -> Drawing:
    """A cell's picture: the grid's settings, but for those that are axes."""
    settings = {name: cell.get(name, getattr(grid, name)) for name in ("steps", "guidance", "scheduler")}
    return Drawing(grid.prompt, grid.seed, size, negative=grid.negative, **settings)


def label_of(axis: Axis, value: float | str) -> str:
    """A scheduler's name says itself what it is."""
    return str(value) if axis.name == "scheduler" else f"{axis.name} {value}"


def title_of(grid: Grid) -> str:
    """What all of its pictures have in common."""
    said = {"steps": f"{grid.steps} steps", "guidance": f"guidance {grid.guidance:g}", "scheduler": grid.scheduler}
    fixed = [words for name, words in said.items() if name not in (grid.x.name, grid.y.name)]
    return ", ".join([f"{grid.model}: {grid.prompt}", f"seed {grid.seed}", *fixed])


if __name__ == "__main__":
    run_stage(main, lambda params, **_: leased(1 if params.root else 0))
