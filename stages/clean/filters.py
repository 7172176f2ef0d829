"""Conditions on what is known of a picture: `punsafe < 0.1`, `license ~ CC*`, `similarity >= 0.28 or missing`."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

CONDITION = re.compile(r"\s*([\w.-]+)\s*(<=|>=|==|!=|<|>|~)\s*(.+?)(\s+or\s+missing)?\s*")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "~": lambda value, pattern: fnmatchcase(str(value).lower(), str(pattern).lower()),
}


@dataclass(frozen=True)
class Filter:
    """One condition. bound: a number where it reads as one, except after ~."""

    text: str
    name: str
    sign: str
    bound: float | str
    or_missing: bool

    def passes(self, value: Any) -> bool:
        """Whether a picture with this value may stay; None and NaN are missing."""
        if value is None or value != value:
            return self.or_missing
        if isinstance(self.bound, float):
            number = _number(value)
            if number is None:
                return self.sign == "!="
            value = number
        else:
            value = str(value)
        return COMPARE[self.sign](value, self.bound)


def parse_filter(text: str) -> Filter:
    """Read one condition. Raises ValueError."""
    read = CONDITION.fullmatch(text)
    if not read:
        raise ValueError(f"has {text!r}, which is not NAME < NUMBER, NAME == WORD or NAME ~ PATTERN")
    name, sign, bound, or_missing = read.groups()
    number = None if sign == "~" else _number(bound)
    if number is None and sign in ("<", "<=", ">", ">="):
        raise ValueError(f"has {text!r}, which compares with no number")
    return Filter(text, name, sign, bound.strip("\"'") if number is None else number, bool(or_missing))


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
