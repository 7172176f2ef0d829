"""Repair captions, then drop those that say too little or too much."""

import unicodedata

from stages.clean.params import Captions


def repair(caption: str) -> str:
    """Unicode NFC, control characters out, runs of white space to one space."""
    composed = unicodedata.normalize("NFC", caption)
    printable = "".join(c if c.isspace() or unicodedata.category(c)[0] != "C" else "" for c in composed)
    return " ".join(printable.split())


def good_captions(params: Captions, captions: list[str]) -> list[str]:
    """The repaired captions within bounds, each once, in their order."""
    repaired = dict.fromkeys(repair(caption) for caption in captions)
    return [
        caption
        for caption in repaired
        if params.min_words <= len(caption.split()) <= params.max_words
        and params.min_characters <= len(caption) <= params.max_characters
    ]
