"""What one caption measures: its language, and what shows that it describes no picture."""

import re
from dataclasses import dataclass
from functools import cache

from ftfy.badness import is_bad
from py3langid.langid import MODEL_FILE, LanguageIdentifier

FLAGS = {
    "url": re.compile(r"https?://|\bwww\.\w", re.IGNORECASE),
    "html": re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE),
    "entity": re.compile(r"&(?:[a-z]{2,8}|#\d{1,6}|#x[0-9a-f]{1,5});", re.IGNORECASE),
    "email": re.compile(r"[\w.+-]+@[\w-]+\.[a-z]{2,}", re.IGNORECASE),
    "phone": re.compile(
        r"(?<![\w.])(?:\+|\(0|00?)\d(?:[ ()./-]{0,2}\d){7,13}(?!\w)|(?<!\w)\(?\d{3}\)?[ -]\d{3}[ -]\d{4}(?!\w)"
    ),
    "file_name": re.compile(
        r"\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|heic|svg|psd|cr2|nef)|(?:img|dscn?|dsc_?f|pxl|gopr|p\d)[ _-]?\d{3,}\w*",
        re.IGNORECASE,
    ),
}
WHOLE = {"file_name"}  # flags of the whole caption; the others of any part


@dataclass(frozen=True)
class CaptionMeasures:
    """language: ISO 639-1, None without letters. confidence: in it, 0 to 1. flags: names of FLAGS, and mojibake."""

    words: int
    characters: int
    language: str | None
    confidence: float
    flags: list[str]


def measure_caption(caption: str) -> CaptionMeasures:
    """Measure a caption as it came."""
    found = [
        flag
        for flag, wanted in FLAGS.items()
        if (wanted.fullmatch(caption.strip()) if flag in WHOLE else wanted.search(caption))
    ]
    language, confidence = _identifier().classify(caption) if any(map(str.isalpha, caption)) else (None, 0.0)
    return CaptionMeasures(
        words=len(caption.split()),
        characters=len(caption),
        language=language,
        confidence=round(float(confidence), 4),
        flags=[*found, *(["mojibake"] if is_bad(caption) else [])],
    )


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
