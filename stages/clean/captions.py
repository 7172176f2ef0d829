"""Repair captions, then drop those that say too little, too much or nothing of the picture."""

import html
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ftfy

from stages.clean.params import Captions

ROUNDS = 5  # texts that were garbled several times are mended layer by layer


def repair(caption: str) -> str:
    """Mojibake and HTML entities undone, Unicode NFC, control characters out, white space to one space.

    A repaired caption stays as it is when it is repaired again.
    """
    for _ in range(ROUNDS):
        before = caption
        mended = caption if caption.isascii() else ftfy.fix_text(caption)
        composed = unicodedata.normalize("NFC", html.unescape(mended) if "&" in mended else mended)
        if not composed.isprintable():
            composed = "".join(c if c.isspace() or unicodedata.category(c)[0] != "C" else "" for c in composed)
        caption = " ".join(composed.split())
        if caption == before:
            break
    return caption


def sift(
    params: Captions,
    repaired: Sequence[str],
    measured: Sequence[Mapping[str, Any]],
    similarities: Sequence[float | None],
    repeats: Counter[str],
) -> tuple[list[str], dict[str, str]]:
    """The captions that are good, each once, in their order; and the others with what is wrong with each.

    measured: what inspect says of each. similarities: of picture and caption, None where not known.
    repeats: how many pictures have a caption.
    """
    good: dict[str, None] = {}
    bad: dict[str, str] = {}
    for caption, measures, similarity in zip(repaired, measured, similarities, strict=True):
        if wrong := fault(params, caption, measures, similarity, repeats[caption]):
            bad[caption] = wrong
        else:
            good[caption] = None
    return list(good), {caption: wrong for caption, wrong in bad.items() if caption not in good}


def fault(params: Captions, caption: str, measures: Mapping[str, Any], similarity: float | None, repeats: int) -> str:
    """The first rule that a repaired caption breaks; empty if none."""
    words = len(caption.split())
    if not params.min_words <= words <= params.max_words:
        return f"{words} words"
    if not params.min_characters <= len(caption) <= params.max_characters:
        return f"{len(caption)} characters"
    for flag in params.refuse:
        if flag in measures["flags"]:
            return flag
    if (
        params.languages
        and measures["language"] not in (None, *params.languages)
        and measures["confidence"] >= params.language_confidence
    ):
        return f"language {measures['language']}"
    if params.min_similarity is not None and similarity is not None and similarity < params.min_similarity:
        return f"similarity {similarity:.3f}"
    if params.max_repeats is not None and repeats > params.max_repeats:
        return f"{repeats} pictures have it"
    return ""


def said(params: Captions) -> str:
    """The bounds in words."""
    bounds = [
        f"{params.min_words} to {params.max_words} words",
        f"{params.min_characters} to {params.max_characters} characters",
    ]
    bounds += [f"no {', '.join(params.refuse)}"] if params.refuse else []
    bounds += [f"language {' or '.join(params.languages)}"] if params.languages else []
    bounds += [f"similarity from {params.min_similarity}"] if params.min_similarity is not None else []
    bounds += [f"at most {params.max_repeats} pictures"] if params.max_repeats is not None else []
    return ", ".join(bounds)
