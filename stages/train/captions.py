"""Which of a picture's captions it is seen with."""

from collections.abc import Sequence

from stages.core.draws import seed_of, uniform
from stages.train.params import TrainParams


def choose_caption(params: TrainParams, captions: Sequence[int], sample: int, key: str) -> int:
    """One of the picture's captions, by number, or 0, the empty one."""
    if not captions or uniform(params.seed, "caption dropout", sample, key) < params.caption_dropout:
        return 0
    return captions[seed_of(params.seed, "caption", sample, key) % len(captions)]
