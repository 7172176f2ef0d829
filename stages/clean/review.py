"""A person's say: data/review.csv, in git, beats every rule.

key,verdict,caption,note     key: of the picture, or 8 and more of its first digits (the tables below data/clean
                             and the report have it); verdict: keep, drop or nothing; caption: in place of all
                             others, or nothing; note: for people
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import StageError

COLUMNS = ["key", "verdict", "caption", "note"]
SHORTEST = 8


@dataclass(frozen=True)
class Say:
    """What a person says of one picture; empty strings say nothing."""

    verdict: str = ""
    caption: str = ""
    note: str = ""


def read_review(path: Path, keys: Iterable[str]) -> dict[str, Say]:
    """By full key. Raises StageError that names the lines whose key no picture has, or several, and odd verdicts."""
    by_start: dict[str, list[str]] = {}
    for key in set(keys):
        by_start.setdefault(key[:SHORTEST], []).append(key)
    says: dict[str, Say] = {}
    wrong: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames != COLUMNS:
            raise StageError(str(path), f"its first line isn't {','.join(COLUMNS)}", "put that line back")
        for row in rows:
            start, verdict = (row["key"] or "").strip().lower(), (row["verdict"] or "").strip().lower()
            meant = [key for key in by_start.get(start[:SHORTEST], []) if key.startswith(start)]
            if verdict not in ("keep", "drop", ""):
                wrong.append(f"line {rows.line_num}: the verdict {verdict} is neither keep nor drop")
            elif len(start) < SHORTEST or len(meant) != 1:
                wrong.append(f"line {rows.line_num}: {len(meant) or 'no'} pictures have the key {start or '(empty)'}")
            elif meant[0] in says:
                wrong.append(f"line {rows.line_num}: {start} is there twice")
            else:
                says[meant[0]] = Say(verdict, (row["caption"] or "").strip(), (row["note"] or "").strip())
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise StageError(str(path), "; ".join(wrong[:5]) + more, "mend or remove those lines")
    return says
