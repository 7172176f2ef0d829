"""The rules that a picture has to pass by itself, each with the value measured and the bound."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.clean.filters import parse_filter
from stages.clean.params import CleanParams
from stages.core.errors import StageError


@dataclass(frozen=True)
class Reason:
    """Why a picture is rejected: the rule, what was measured, the bound; for a duplicate, which one stays."""

    rule: str
    value: str
    bound: str
    keeper: str | None = None


def reasons_against(params: CleanParams, measured: pd.DataFrame) -> list[list[Reason]]:
    """For each row of data/inspected every rule that it breaks by itself, captions aside.

    Raises StageError for a filter on what no picture has.
    """
    reasons: list[list[Reason]] = [[] for _ in range(len(measured))]

    def reject(broken: NDArray[np.bool_], rule: str, values: Sequence[Any] | pd.Series, bound: object) -> None:
        values = values if isinstance(values, pd.Series) else pd.Series(values)
        for row in np.flatnonzero(broken):
            reasons[row].append(Reason(rule, str(values.iloc[row]), str(bound)))

    decoded = measured["code"].isin(params.codes).to_numpy()
    reject(~decoded, "decode", measured["code"], ", ".join(params.codes))
    width, height = measured["width"].to_numpy(float), measured["height"].to_numpy(float)
    aspect = np.maximum(width, height) / np.maximum(np.minimum(width, height), 1)
    for rule, values, beyond, bound in (
        ("min_side", np.minimum(width, height).astype(int), np.less, params.min_side),
        ("max_aspect", aspect.round(3), np.greater, params.max_aspect),
        ("min_entropy", measured["entropy"].to_numpy(), np.less, params.min_entropy),
        ("min_sharpness", measured["sharpness"].to_numpy(), np.less, params.min_sharpness),
        ("min_contrast", measured["contrast"].to_numpy(), np.less, params.min_contrast),
        ("max_border", measured["border"].to_numpy(), np.greater, params.max_border),
        ("max_transparent", measured["transparent"].to_numpy().round(4), np.greater, params.max_transparent),
    ):
        reject(decoded & beyond(values, bound), rule, pd.Series(values), bound)
    for text in params.filters:
        condition = parse_filter(text)
        known = values_of(measured, condition.name)
        if not condition.or_missing and all(value is None or value != value for value in known):
            raise StageError("clean.filters", f"{text}: no picture has {condition.name}", f"use {_names(measured)}")
        broken = ~np.array([condition.passes(value) for value in known], dtype=bool)
        reject(decoded & broken, f"filter {text}", pd.Series(known, dtype=object), text)
    return reasons


def values_of(measured: pd.DataFrame, name: str) -> list[Any]:
    """A column of data/inspected, or a field that the source carries along; None where a row lacks it."""
    if name in measured.columns:
        return list(measured[name])
    return [json.loads(extra).get(name) for extra in measured["extra"]]


def _names(measured: pd.DataFrame) -> str:
    carried = {name for extra in measured["extra"].unique() for name in json.loads(extra)}
    return ", ".join(sorted({*measured.columns, *carried}))
