"""Which block of the UNet a tensor belongs to, in the layout that checkpoint mergers use, and the ratio it gets.

A Stable Diffusion 1 or 2 has 25 blocks: IN00 to IN11, M00, OUT00 to OUT11, as its original key names count them; XL has
19. The time embedding belongs to IN00, the last normalisation and convolution to the last OUT, all that is no UNet to
BASE.
"""

import re
from collections.abc import Iterable

from stages.core.errors import StageError
from stages.core.original_names import Family, link_names
from stages.merge.models import AVERAGED
from stages.merge.params import Recipe

BASE = "BASE"


def blocks_of(family: Family, names: Iterable[str]) -> dict[str, str]:
    """The block of each tensor, by its name in a folder."""
    given = list(names)
    keys = {name: link.key for link in link_names(family, given)[0] for name in link.names}
    last = max(
        (int(match[1]) for key in keys.values() if (match := re.search(r"\.output_blocks\.(\d+)\.", key))), default=0
    )
    blocks = {name: _block(keys.get(name, ""), last) if name.startswith("unet.") else BASE for name in given}
    # Averaged weights are named by the same keys without dots, and belong to the same blocks.
    averaged = {f"{AVERAGED}{key.removeprefix('model.').replace('.', '')}": blocks[name] for name, key in keys.items()}
    return {name: averaged.get(name, block) for name, block in blocks.items()}


def _block(key: str, last: int) -> str:
    """Of an original key."""
    if match := re.search(r"\.(input|output)_blocks\.(\d+)\.", key):
        return f"{'IN' if match[1] == 'input' else 'OUT'}{int(match[2]):02d}"
    if ".middle_block." in key:
        return "M00"
    return f"OUT{last:02d}" if ".diffusion_model.out." in key else "IN00"


def layout(blocks: Iterable[str]) -> list[str]:
    """The UNet's blocks in the order of a list of ratios: IN, M, OUT, each from 00 to its highest."""
    found = set(blocks) - {BASE, "M00"}
    count = {
        kind: max((int(block[len(kind) :]) for block in found if block.startswith(kind)), default=-1) + 1
        for kind in ("IN", "OUT")
    }
    return [f"IN{n:02d}" for n in range(count["IN"])] + ["M00"] + [f"OUT{n:02d}" for n in range(count["OUT"])]


def ratios(where: str, recipe: Recipe, blocks: dict[str, str]) -> dict[str, float]:
    """The ratio of each tensor: its block's, else its part's, else the recipe's.

    Raises StageError if the recipe names a block that the model hasn't, or lists too many or too few.
    """
    known = layout(blocks.values())
    given = recipe.blocks
    if isinstance(given, list):
        names = known if len(given) == len(known) else [BASE, *known]
        if len(given) != len(names):
            raise StageError(
                where,
                f"blocks has {len(given)} ratios",
                f"give {len(known)} for {known[0]} to {known[-1]}, or BASE first",
            )
        given = dict(zip(names, given, strict=True))
    for name in given:
        if name not in {*known, BASE}:
            raise StageError(where, f"the model has no block {name}", f"it has {', '.join(known)} and BASE")
    parts = {str(part): ratio for part, ratio in recipe.components.items()}
    return {name: given.get(block, parts.get(name.partition(".")[0], recipe.share)) for name, block in blocks.items()}


def _part(name: str) -> str:
    return "unet" if name.startswith(AVERAGED) else name.partition(".")[0]
