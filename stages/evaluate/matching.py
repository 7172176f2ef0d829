"""How samples fit their prompts, as a CLIP sees it. Vectors are of unit length: (N, D)."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.core.vision import Clip
from stages.evaluate.classical import Features
from stages.evaluate.extractors import BATCH, in_batches

Vector = NDArray[np.float64]


def seen(clip: Clip, pictures: Iterable[Image.Image]) -> Features:
    """The pictures' vectors."""
    return in_batches(lambda batch: np.asarray(clip.pictures(batch, BATCH).numpy()), pictures, 0)


def read(clip: Clip, texts: Sequence[str]) -> dict[str, Vector]:
    """Each text's vector."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, clip.texts(distinct).numpy(), strict=True)) if distinct else {}


def clip_scores(pictures: Features, prompts: Sequence[str], texts: Mapping[str, Vector]) -> Vector:
    """100 max(cosine, 0) of each picture and its own prompt (N,): Hessel et al., arXiv 2104.08718, without its 2.5."""
    own = np.array([texts[prompt] for prompt in prompts])
    return np.asarray(100 * np.clip((pictures * own).sum(axis=1), 0, None))


def retrieved(pictures: Features, prompts: Sequence[str], texts: Mapping[str, Vector]) -> Vector:
    """1 where of all prompts the picture's own fits best, else 0 (N,). By chance: 1 / number of prompts."""
    names = list(texts)
    best = (pictures @ np.array([texts[name] for name in names]).T).argmax(axis=1)
    return np.array([float(names[number] == prompt) for number, prompt in zip(best, prompts, strict=True)])


def likeness(pictures: Features, prompts: Sequence[str], real: Mapping[str, Features]) -> Vector:
    """Mean cosine of each picture and the real ones of that very caption (CLIP-I of Ruiz et al., arXiv 2208.12242).

    Of those pictures alone whose prompt is some real picture's caption.
    """
    return np.array(
        [float((real[prompt] @ mine).mean()) for mine, prompt in zip(pictures, prompts, strict=True) if prompt in real]
    )
