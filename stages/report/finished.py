"""What preprocess and encode made of the kept pictures, laid out for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REASONS = {  # why a condition can't be used -> in words
    "missing": "no file of that name",
    "two_files": "two files of that name",
    "unreadable": "can't be read",
    "other_shape": "of another shape than its picture",
}
FATES = {  # of what Boomerang made -> in words
    "kept": "kept",
    "unchanged": "hardly changed, dropped",
    "drifted": "drifted too far, dropped",
}
LONGEST = 96  # px on the page


@dataclass(frozen=True)
class Bucket:
    """A size, px, how many pictures have it, the share of the fullest, and its shape on the page, px."""

    width: int
    height: int
    pictures: int
    share: float
    across: float
    down: float


@dataclass(frozen=True)
class Channel:
    """Mean and deviation of a colour, 0 to 1, and where one deviation about the mean begins and ends, per cent."""

    name: str
    mean: float
    std: float
    start: float
    stop: float


@dataclass(frozen=True)
class Part:
    """So many of a whole, per cent of it, and what they are."""

    name: str
    count: int
    share: float


def buckets(finished: Mapping[str, Any]) -> list[Bucket]:
    """From narrow to wide, drawn to one scale; none where all pictures are squares."""
    counts = {tuple(map(int, size.split("x"))): count for size, count in finished.get("buckets", {}).items()}
    longest = max((max(size) for size in counts), default=1)
    return [
        Bucket(
            width,
            height,
            count,
            count / max(counts.values()),
            round(LONGEST * width / longest, 1),
            round(LONGEST * height / longest, 1),
        )
        for (width, height), count in sorted(counts.items(), key=lambda item: (item[0][0] / item[0][1], item[0]))
    ]


def channels(finished: Mapping[str, Any]) -> list[Channel]:
    """Red, green and blue of the training pictures; none if there is no such picture."""
    return [
        Channel(name, mean, std, round(100 * max(0.0, mean - std), 1), round(100 * min(1.0, mean + std), 1))
        for name, mean, std in zip(("red", "green", "blue"), finished["mean"], finished["std"], strict=False)
    ]


def rows_made(finished: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """(what, how many, what else there is to know) of the rows that are trained and measured on."""
    whole, drawn = finished["train"] + finished["validation"], finished.get("variants", 0)
    mirrored = finished["rows"] - whole - drawn
    small = finished.get("variants_too_small", 0)
    return [
        ("as they are", whole, f"{finished['validation']:,} of them held out"),
        *([("mirror images", mirrored, "preprocess.flip")] if mirrored else []),
        *(
            [("drawn variants", drawn, f"{small:,} more would have grown too much" if small else "preprocess.augment")]
            if drawn or small
            else []
        ),
    ]


def left_out(finished: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """(why, how many, what to look at) of kept pictures that no row was made of; one may lack several conditions."""
    small = finished["too_small"]
    found = [("too small", small, "preprocess.max_upscale")] if small else []
    return found + [
        (f"{row['condition']}, {REASONS[row['reason']]}", row["pictures"], f"first {row['first']}")
        for row in sorted(finished.get("lacking", []), key=lambda row: (-row["pictures"], row["condition"]))
    ]


def boomerang(encoded: Mapping[str, Any]) -> Sequence[Part]:
    """What became of the pictures that Boomerang made; nothing where it made none."""
    counts = encoded.get("boomerang") or {}
    made = counts.get("made", 0)
    return (
        [Part(said, counts[name], round(100 * counts[name] / made, 1)) for name, said in FATES.items()] if made else []
    )
