"""How many pictures pass through the VAE at once: by params and the model alone, never by the card at hand.

A row's last bits depend on the size of its batch (see `stages.encode.batches`), so a batch that shrank to fit a card
would make the bytes a matter of the machine.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from stages.core.errors import StageError
from stages.encode.params import EncodeParams

HELD = 5  # tensors of the encoder's first block, at full size, that are there at once [measured: decisions/batches.md]
FLOAT32 = 4  # bytes


def pictures_at_once(params: EncodeParams, vae: Mapping[str, Any], width: int, height: int) -> int:
    """encode.batch_size, or as many as fit encode.memory: a picture takes 5 x 4 bytes x first channels x pixels.

    vae: its config. With tiling, the pixels of one tile. One passes in any case.
    """
    if params.tiling:
        side = vae["sample_size"] if isinstance(vae["sample_size"], int) else vae["sample_size"][0]
        width, height = min(width, side), min(height, side)
    each = HELD * FLOAT32 * vae["block_out_channels"][0] * width * height
    return max(1, min(params.batch_size, int(params.memory * 2**30 / each)))


@contextmanager
def within_memory(params: EncodeParams, what: str) -> Iterator[None]:
    """Turn a full GPU into a StageError that says which knob to turn."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise StageError(
            "encode",
            f"{what} don't fit the GPU's memory",
            f"lower encode.memory ({params.memory:g} GiB) or encode.batch_size ({params.batch_size}), or set tiling",
        ) from None
