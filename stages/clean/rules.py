"""The rules a picture has to pass, each with the value measured and the bound."""

from dataclasses import dataclass
from typing import Any

from stages.clean.captions import good_captions
from stages.clean.params import CleanParams


@dataclass(frozen=True)
class Reason:
    """Why a picture is rejected: the rule, what was measured, the bound; for a duplicate, which one stays."""

    rule: str
    value: str
    bound: str
    keeper: str | None = None


def reasons_against(params: CleanParams, row: dict[str, Any]) -> list[Reason]:
    """Every rule that one row of data/inspected breaks; duplicates are not a matter of one row."""
    if row["code"] not in ("ok", "animated"):
        return [Reason("decode", row["code"], "ok")]
    short, long = sorted((row["width"], row["height"]))
    bounds = (
        ("min_side", short, short >= params.min_side, params.min_side),
        ("max_aspect", round(long / short, 3), long / short <= params.max_aspect, params.max_aspect),
        ("min_entropy", row["entropy"], row["entropy"] >= params.min_entropy, params.min_entropy),
        ("min_sharpness", row["sharpness"], row["sharpness"] >= params.min_sharpness, params.min_sharpness),
        (
            "max_transparent",
            round(row["transparent"], 4),
            row["transparent"] <= params.max_transparent,
            params.max_transparent,
        ),
    )
    reasons = [Reason(rule, str(value), str(bound)) for rule, value, passed, bound in bounds if not passed]
    if not good_captions(params.captions, list(row["captions"])):
        rule = "bad_caption" if len(row["captions"]) else "no_caption"
        reasons.append(Reason(rule, " | ".join(row["captions"])[:200], params.captions.said()))
    return reasons
