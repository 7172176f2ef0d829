"""clean: decide which pairs to keep.

in    data/inspected    a row a picture: what was measured
out   manifest.parquet  the kept pairs, their captions and split
      rejected.parquet  the others, a row a reason
      a picture that comes in leaves by exactly one of the two doors
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from stages.clean.captions import good_captions
from stages.clean.duplicates import choose_keepers
from stages.clean.params import CleanParams
from stages.clean.rules import Reason, reasons_against
from stages.core.draws import uniform
from stages.core.errors import StageError
from stages.core.files import replacing, write_json
from stages.core.pairs import SOURCES, shards_below, write_table
from stages.core.stage import run_stage

MANIFEST = pa.schema(
    [(name, pa.string()) for name in ("key", "source", "shard")]
    + [("row", pa.int64()), ("captions", pa.list_(pa.string())), ("repeats", pa.int64())]
    + [(name, pa.string()) for name in ("role", "group", "split", "license", "attribution", "captions_by")]
)
REJECTED = pa.schema(
    [(name, pa.string()) for name in ("key", "source", "shard")]
    + [("row", pa.int64())]
    + [(name, pa.string()) for name in ("rule", "value", "bound", "keeper")]
)


@dataclass(frozen=True)
class Verdict:
    """kept: a row a pair, columns of MANIFEST. rejected: a row a reason, columns of REJECTED. Both by key."""

    kept: pd.DataFrame
    rejected: pd.DataFrame


def main(params: CleanParams, inspected: Path, out: Path, metrics: Path) -> None:
    """Read the measurements, decide, write both doors and the counts."""
    measured = pd.concat([pd.read_parquet(path) for path in shards_below(inspected)], ignore_index=True)
    order = json.loads((inspected / SOURCES).read_text())
    measured["source_rank"] = measured["source"].map({name: rank for rank, name in enumerate(order)})
    verdict = clean(params, measured)
    with replacing(out) as folder:
        for table, schema, name in (
            (verdict.kept, MANIFEST, "manifest.parquet"),
            (verdict.rejected, REJECTED, "rejected.parquet"),
        ):
            write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False), folder / name)
    rules = Counter(verdict.rejected["rule"])
    splits = Counter(verdict.kept["split"])
    rejected = len(verdict.rejected.drop_duplicates(["source", "key"]))
    write_json(
        metrics,
        {
            "pictures": len(measured),
            "kept": len(verdict.kept),
            "rejected": rejected,
            "rejected_by": dict(rules),
            "train": splits["train"],
            "validation": splits["validation"],
        },
    )
    said = ", ".join(f"{count} {rule}" for rule, count in rules.most_common())
    print(f"{len(measured)} pictures: {len(verdict.kept)} kept, {rejected} rejected{f' ({said})' if said else ''}")


def clean(params: CleanParams, measured: pd.DataFrame) -> Verdict:
    """Send every picture through one of two doors. Of duplicates the best stays.

    Raises StageError if no picture is kept: training must not start on nothing.
    """
    measured = _best_first(params, measured)
    reasons: list[list[Reason]] = [reasons_against(params, row) for row in measured.to_dict("records")]
    passed = np.flatnonzero([not listed for listed in reasons])
    phash, dhash = (
        np.array([int(text, 16) for text in measured[name].iloc[passed]], dtype=np.uint64)
        for name in ("phash", "dhash")
    )
    limits = params.duplicates
    keys = measured["key"].to_numpy()
    for index, (keeper, distance) in choose_keepers(phash, dhash, limits.radius, limits.confirm_radius).items():
        reasons[passed[index]].append(
            Reason("duplicate", str(distance), f"more than {limits.radius}", keys[passed[keeper]])
        )
    stays = np.array([not listed for listed in reasons], dtype=bool)
    if not stays.any():
        first = next((listed[0] for listed in reasons if listed), None)
        said = f"the first reason was {first.rule} ({first.value}, bound {first.bound})" if first else "there were none"
        raise StageError("clean", f"none of {len(measured)} pictures kept", f"{said}: see the section clean")
    kept = measured[stays].copy()
    kept["captions"] = [good_captions(params.captions, list(captions)) for captions in kept["captions"]]
    kept["split"] = assign_splits(params, kept)
    rejected = [
        {**row, **asdict(reason)}
        for row, listed in zip(measured[["key", "source", "shard", "row"]].to_dict("records"), reasons, strict=True)
        for reason in listed
    ]
    return Verdict(
        kept[MANIFEST.names].sort_values("key", ignore_index=True),
        pd.DataFrame(rejected, columns=REJECTED.names).sort_values(["key", "source", "rule"], ignore_index=True),
    )


def _best_first(params: CleanParams, measured: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order in which duplicates give way: never the order they came in.

    Held out before trained on, so that a look-alike of a validation picture is
    not trained on; then pixels, caption, source as listed, key.
    """
    words = measured["captions"].map(lambda captions: max((len(c.split()) for c in captions), default=0))
    ranks = pd.DataFrame(
        {
            "split": measured["split"].ne("validation"),
            "pixels": -(measured["width"] * measured["height"]).fillna(0),
            "words": words if params.duplicates.prefer_caption == "shortest" else -words,
            "source": measured["source_rank"],
            "key": measured["key"],
        }
    )
    return measured.loc[ranks.sort_values(list(ranks.columns)).index].reset_index(drop=True)


def assign_splits(params: CleanParams, kept: pd.DataFrame) -> list[str]:
    """train or validation for each row: the source's word, else a draw by group.

    A group is held out as a whole: if one of its rows is, by its source's word
    or by the draw. A group's draw depends on the group alone, so new pictures
    move no old ones; where it picks none of several groups, the lowest draw is held out.
    """
    groups = kept["group"].fillna(kept["key"])
    told = set(groups[kept["split"].eq("validation")])
    draws = {group: uniform(params.seed, "validation", str(group)) for group in groups[kept["split"].isna()].unique()}
    drawn = {group for group, draw in draws.items() if draw < params.validation_share}
    if params.validation_share > 0 and not told | drawn and len(draws) > 1:
        drawn = {min(draws, key=lambda group: (draws[group], group))}
    return ["validation" if group in told | drawn else "train" for group in groups]


if __name__ == "__main__":
    run_stage(main)
