"""Left and right in captions, which a mirror image swaps."""

import re

# As whole words: not in "bright" or "leftover"; in "left-handed", "left_hand" and "counter-clockwise".
SIDES = re.compile(
    r"(?<![^\W\d_])(?:(left|right)(wards?|most|hand(?:ed)?)?|((?:counter|anti)-?)?(clockwise))(?![^\W\d_])",
    re.IGNORECASE,
)


def names_sides(caption: str) -> bool:
    """Whether a caption may be untrue of the mirror image."""
    return bool(SIDES.search(caption))


def swap_sides(caption: str) -> str:
    """The caption of the mirror image: left for right, clockwise for counterclockwise, in the same case.

    Words alone are looked at, not what they mean: "all right" becomes "all left".
    """
    return SIDES.sub(_other, caption)


def _other(match: re.Match[str]) -> str:
    side, ending, counter, clockwise = match.groups()
    if side:
        return _as("right" if side.lower() == "left" else "left", side) + (ending or "")
    return _as("clockwise", match[0]) if counter else _as("counterclockwise", clockwise)


def _as(word: str, model: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
