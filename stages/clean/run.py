"""clean: decide which pairs to keep.

in    data/inspected    a row a picture: what was measured
      data/scores.parquet  what models say of pictures and captions, if any were asked
      data/review.csv   what a person says, which beats every rule
out   manifest.parquet  the kept pairs, their captions and split
      rejected.parquet  the others, a row a reason
      a picture that comes in leaves by exactly one of the two doors
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from stages.clean import captions as words
from stages.clean.duplicates import choose_keepers
from stages.clean.params import CleanParams
from stages.clean.review import Say, read_review
from stages.clean.rules import Reason, reasons_against, values_of
from stages.clean.splits import assign_splits, clusters_of
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
UNMENDABLE = ("decode", "no_caption", "bad_caption", "benchmark")  # by no verdict


@dataclass(frozen=True)
class Verdict:
    """kept: a row a pair, columns of MANIFEST. rejected: a row a reason, columns of REJECTED. Both by key.

    dropped: captions, not pictures, by what was wrong with them.
    """

    kept: pd.DataFrame
    rejected: pd.DataFrame
    dropped: Counter[str]


def main(
    params: CleanParams, inspected: Path, scores: Path, review: Path, out: Path, metrics: Path, plot: Path
) -> None:
    """Read the measurements, decide, write both doors and the counts."""
    measured = pd.concat([pd.read_parquet(path) for path in shards_below(inspected)], ignore_index=True)
    order = json.loads((inspected / SOURCES).read_text())
    measured["source_rank"] = measured["source"].map({name: rank for rank, name in enumerate(order)})
    measured = _with_scores(params, measured, pd.read_parquet(scores))
    verdict = clean(params, measured, read_review(review, measured["key"]))
    with replacing(out) as folder:
        for table, schema, name in (
            (verdict.kept, MANIFEST, "manifest.parquet"),
            (verdict.rejected, REJECTED, "rejected.parquet"),
        ):
            write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False), folder / name)
    rules, splits = Counter(verdict.rejected["rule"]), Counter(verdict.kept["split"])
    rejected = len(verdict.rejected.drop_duplicates(["source", "key"]))
    counts = {"pictures": len(measured), "kept": len(verdict.kept), "rejected": rejected, "rejected_by": dict(rules)}
    held = {"train": splits["train"], "validation": splits["validation"]}
    with replacing(plot) as temporary:
        pd.DataFrame(rules.most_common(), columns=["rule", "pictures"]).to_csv(temporary, index=False)
    write_json(metrics, {**counts, **held, "captions_dropped": dict(verdict.dropped)})
    said = ", ".join(f"{count} {rule}" for rule, count in rules.most_common())
    print(f"{len(measured)} pictures: {len(verdict.kept)} kept, {rejected} rejected{f' ({said})' if said else ''}")


def clean(params: CleanParams, measured: pd.DataFrame, review: Mapping[str, Say]) -> Verdict:
    """Send every picture through one of two doors. Of duplicates the best stays.

    Raises StageError if no picture is kept: training must not start on nothing.
    """
    says = [review.get(key, Say()) for key in measured["key"]]
    said = {name: [getattr(say, name) for say in says] for name in ("verdict", "caption", "note")}
    measured = _best_first(params, measured.assign(**said))
    reasons = reasons_against(params, measured)
    captions, dropped = _choose_captions(params, measured, reasons)
    clusters = _reject_duplicates(params, measured, captions, reasons)
    _obey(measured, reasons)
    _balance(params, measured, captions, reasons)
    stays = np.array([not listed for listed in reasons], dtype=bool)
    if not stays.any():
        first = next((listed[0] for listed in reasons if listed), None)
        why = f"the first reason was {first.rule} ({first.value}, bound {first.bound})" if first else "there were none"
        raise StageError("clean", f"none of {len(measured)} pictures kept", f"{why}: see the section clean")
    measured["captions"] = captions
    kept = measured[stays].copy()
    kept["split"] = assign_splits(params, kept, clusters[stays])
    rejected = [
        {**row, **asdict(reason)}
        for row, listed in zip(measured[["key", "source", "shard", "row"]].to_dict("records"), reasons, strict=True)
        for reason in listed
    ]
    return Verdict(
        kept[MANIFEST.names].sort_values("key", ignore_index=True),
        pd.DataFrame(rejected, columns=REJECTED.names).sort_values(["key", "source", "rule"], ignore_index=True),
        dropped,
    )


def _with_scores(params: CleanParams, measured: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The measures beside what models said; `similarity` is the best caption's. Raises StageError."""
    if "similarities" not in scores:
        if params.captions.min_similarity is not None:
            raise StageError("clean.captions.min_similarity", "nothing was scored", "set score.clip")
        scores = scores.assign(similarities=None)
    for name in scores.columns.difference(["source", "key"]):
        if name in measured:
            raise StageError(f"score.classifiers.{name}", "inspect has a measure of that name", "choose another")
    joined = measured.merge(scores, "left", ["source", "key"], validate="one_to_one")
    listed = [list(value) if isinstance(value, np.ndarray) else [] for value in joined["similarities"]]
    best = [max(values, default=None) for values in listed]
    return joined.assign(similarities=listed, similarity=pd.Series(best, dtype=float))


def _best_first(params: CleanParams, measured: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order in which duplicates give way: never the order they came in.

    Benchmarks first, which nothing that is trained on may resemble; what a person wants; held out before trained on,
    so that a look-alike of a validation picture is not trained on; then pixels, caption, source as listed, key.
    """
    lengths = measured["captions"].map(lambda captions: max((len(c.split()) for c in captions), default=0))
    ranks = pd.DataFrame(
        {
            "benchmark": measured["role"].ne("benchmark"),
            "wanted": measured["verdict"].ne("keep"),
            "split": measured["split"].ne("validation"),
            "pixels": -(measured["width"] * measured["height"]),
            "words": lengths if params.duplicates.prefer_caption == "shortest" else -lengths,
            "source": measured["source_rank"],
            "key": measured["key"],
        }
    )
    return measured.loc[ranks.sort_values(list(ranks.columns)).index].reset_index(drop=True)


def _choose_captions(
    params: CleanParams, measured: pd.DataFrame, reasons: list[list[Reason]]
) -> tuple[list[list[str]], Counter[str]]:
    """The repaired captions that are good; a picture without any has a reason more. Also counts what was dropped."""
    repaired = [[words.repair(caption) for caption in captions] for captions in measured["captions"]]
    repeats = Counter(caption for captions in repaired for caption in set(captions))
    chosen: list[list[str]] = []
    dropped: Counter[str] = Counter()
    columns = zip(
        repaired, measured["measured_captions"], measured["similarities"], measured["caption"], reasons, strict=True
    )
    for came, of_captions, similar, said, listed in columns:
        known = similar or [None] * len(came)
        good, bad = words.sift(params.captions, came, of_captions, known, repeats)
        dropped.update(wrong.strip("-.0123456789 ") for wrong in bad.values())
        chosen.append([said] if said else good)
        if not chosen[-1]:
            told = " | ".join(f"{caption}: {wrong}" for caption, wrong in bad.items())[:200]
            listed.append(Reason("bad_caption" if came else "no_caption", told, words.said(params.captions)))
    return chosen, dropped


def _reject_duplicates(
    params: CleanParams, measured: pd.DataFrame, captions: list[list[str]], reasons: list[list[Reason]]
) -> np.ndarray:
    """Add a reason to every duplicate of a better picture; give back labels of clusters of look-alikes, (N,)."""
    limits, keys, benchmark = params.duplicates, measured["key"].to_numpy(), measured["role"].eq("benchmark").to_numpy()
    passes = np.array([not listed for listed in reasons]) | benchmark | measured["verdict"].eq("keep").to_numpy()
    compared = np.flatnonzero(passes & measured["phash"].notna() & measured["verdict"].ne("drop"))
    phash, dhash, *mirrored = (
        np.array([int(text, 16) for text in measured[name].iloc[compared]], dtype=np.uint64)
        for name in ("phash", "dhash", *(("phash_mirrored", "dhash_mirrored") if limits.mirrored else ()))
    )
    found = choose_keepers(
        phash, dhash, limits.radius, limits.confirm_radius, (mirrored[0], mirrored[1]) if mirrored else None
    )
    pixels = measured["pixels"].to_numpy()
    for index, (better, distance) in sorted(found.of.items()):
        row, keeper = compared[index], compared[better]
        value = "same pixels" if pixels[row] == pixels[keeper] else f"{distance} bits"
        rule = "decontaminate" if benchmark[keeper] else "duplicate"
        reasons[row].append(Reason(rule, value, f"more than {limits.radius} bits", keys[keeper]))
        if limits.merge_captions and rule == "duplicate":
            captions[keeper] = list(dict.fromkeys(captions[keeper] + captions[row]))
    for row in np.flatnonzero(benchmark):
        reasons[row] = [Reason("benchmark", measured["source"].iloc[row], "never trained on")]
    return clusters_of(len(measured), compared[found.pairs])


def _obey(measured: pd.DataFrame, reasons: list[list[Reason]]) -> None:
    """What a person says comes last and counts alone. Raises StageError for a wish that can't be met."""
    for row in np.flatnonzero(measured["verdict"].ne("")):
        key, verdict, note = measured[["key", "verdict", "note"]].iloc[row]
        if verdict == "drop":
            reasons[row] = [Reason("review", "drop", note)]
            continue
        for reason in reasons[row]:
            if reason.rule in UNMENDABLE:
                mend = "write its caption there" if "caption" in reason.rule else "take that line out"
                raise StageError("data/review.csv", f"{key[:12]} can't be kept ({reason.rule})", mend)
        reasons[row] = []


def _balance(
    params: CleanParams, measured: pd.DataFrame, captions: list[list[str]], reasons: list[list[Reason]]
) -> None:
    """At most so many of each value; which ones stay is drawn by key, and what a person wants stays."""
    wanted = measured["verdict"].eq("keep").to_numpy()
    for name, most in params.balance.items():
        values = [texts[0] if texts else None for texts in captions] if name == "caption" else values_of(measured, name)
        rows_of: dict[str, list[int]] = {}
        for row, value in enumerate(values):
            if not reasons[row] and value is not None:
                rows_of.setdefault(str(value), []).append(row)
        for value, rows in rows_of.items():
            draws = {row: (not wanted[row], uniform(params.seed, "balance", measured["key"].iloc[row])) for row in rows}
            for row in sorted(rows, key=draws.__getitem__)[most:]:
                if not wanted[row]:
                    reasons[row].append(Reason("balance", f"{name} {value}: {len(rows)}", f"{most}"))


if __name__ == "__main__":
    run_stage(main)
