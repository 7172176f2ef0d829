"""What became of the data, laid out for the page: doors, examples, clusters, captions, credits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.core.draws import uniform
from stages.core.finished import finished_pictures
from stages.core.pairs import FAILURES, read_rows, shards_below
from stages.report.charts import Line, line_chart
from stages.report.params import ReportParams
from stages.report.pictures import Places, data_url, raw_pictures

RULES = {  # rule -> what it means, the knob behind it
    "decode": ("can't be decoded", ""),
    "min_side": ("too small", "clean.min_side"),
    "max_aspect": ("too long and narrow", "clean.max_aspect"),
    "min_entropy": ("nearly one colour", "clean.min_entropy"),
    "min_sharpness": ("blurred", "clean.min_sharpness"),
    "min_contrast": ("nearly one grey", "clean.min_contrast"),
    "max_border": ("mostly border", "clean.max_border"),
    "max_transparent": ("nearly all transparent", "clean.max_transparent"),
    "no_caption": ("no caption", "clean.captions"),
    "bad_caption": ("no good caption", "clean.captions"),
    "duplicate": ("looks like another picture", "clean.duplicates"),
    "decontaminate": ("looks like a benchmark picture", "clean.duplicates"),
    "benchmark": ("benchmark, never trained on", "collect.sources"),
    "balance": ("enough of its kind", "clean.balance"),
    "filter": ("fails a condition", "clean.filters"),
    "review": ("a person said so", "data/review.csv"),
}
CLUSTERS, MEMBERS = 6, 15  # groups of near-duplicates on the page, and pictures of each
THUMBNAIL = 96  # px


def funnel(
    collected: Mapping[str, Any], cleaned: Mapping[str, Any], finished: Mapping[str, Any]
) -> list[tuple[str, int, str]]:
    """(name, pictures, what happened to the others) from asked for to trained on."""
    found = sum(source["pictures"] for source in collected.values())
    failed = sum(source["failures"] for source in collected.values())
    lost = {"too small": finished["too_small"], "without a condition": finished.get("without_condition", 0)}
    said = "".join(f", {count:,} {why}" for why, count in lost.items() if count)
    return [
        ("asked for", found + failed, ""),
        ("collected", found, f"{failed:,} could not be used"),
        ("kept", cleaned["kept"], f"{cleaned['rejected']:,} rejected"),
        ("trained on", finished["train"], f"{finished['validation']:,} held out{said}"),
    ]


def caption_counts(collected: Mapping[str, Any], captioned: Mapping[str, int]) -> dict[str, int]:
    """How many pictures came without a caption of their own, and who gave them one."""
    fallback = sum(source["fallback_caption"] for source in collected.values())
    return {
        "missing": captioned["without_caption"] + fallback,
        "fallback": fallback,
        "model": captioned["captioned"],
        "none": captioned["without_caption"] - captioned["captioned"],
    }


def kept_examples(params: ReportParams, processed: Path) -> list[tuple[str, str]]:
    """(picture, caption) of some finished pictures, chosen by key."""
    paths = shards_below(processed)
    keys = [row["key"] for row in read_rows(paths, ["key", "variant"]) if row["variant"] == 0]
    chosen = sorted(keys, key=lambda key: uniform("report", key))[: params.kept_examples]
    found = thumbnails(processed, chosen)
    return [found[key] for key in sorted(chosen)]


def thumbnails(processed: Path, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(picture, caption) of finished pictures, by key."""
    found = finished_pictures(processed, set(keys))
    return {one.key: (data_url(one.picture, THUMBNAIL), one.captions[0] if one.captions else "") for one in found}


def captions_of(kept: pd.DataFrame, most: int = 10) -> dict[str, Any]:
    """How captions and words are spread: counts, the most frequent, and the long tail as a chart."""
    captions = kept["captions"].explode().dropna().astype(str)
    counts = captions.value_counts()
    words = captions.str.casefold().str.findall(r"\w+").explode().dropna().value_counts()
    lengths = captions.str.findall(r"\w+").str.len()
    tail = line_chart(
        "rank, most frequent first",
        "times",
        [Line("words", ranked(words), 1), Line("captions", ranked(counts), 0)],
        logarithmic=True,
    )
    return {
        "distinct": len(counts),
        "single": int((counts == 1).sum()),
        "first": _first(counts[counts > 1], most),
        "words": len(words),
        "words_once": int((words == 1).sum()),
        "words_first": _first(words, most),
        "median_words": int(lengths.median()) if len(lengths) else 0,
        "most_words": int(lengths.max()) if len(lengths) else 0,
        "tail": tail,
    }


def ranked(counts: "pd.Series[int]", most: int = 200) -> list[tuple[float, float]]:
    """(rank, count) of sorted counts, 1 the first; of many only some, evenly spread over the logarithm of the rank."""
    values = sorted((int(count) for count in counts), reverse=True)
    ranks = {max(1, round(len(values) ** (part / (most - 1)))) for part in range(most)} if values else set()
    return [(float(rank), float(values[rank - 1])) for rank in sorted(ranks)]


def _first(counts: "pd.Series[int]", most: int) -> list[tuple[str, int]]:
    return sorted(((str(name), int(count)) for name, count in counts.items()), key=lambda pair: (-pair[1], pair[0]))[
        :most
    ]


def rejected_examples(params: ReportParams, raw: Path, rejected: pd.DataFrame, keepers: Places) -> list[dict[str, Any]]:
    """For each rule how many pictures broke it, and some of them; a duplicate beside the one that stays."""
    rules, wanted = [], set()
    for rule, rows in sorted(rejected.groupby("rule"), key=lambda item: (-len(item[1]), item[0])):
        chosen = telling(rows.to_dict("records"), params.rejected_examples)
        rules.append((str(rule), len(rows), chosen))
        wanted |= {(row["shard"], row["row"]) for row in chosen}
        wanted |= {keepers[row["keeper"]] for row in chosen if row["keeper"]}
    pictures = raw_pictures(raw, wanted, THUMBNAIL)
    return [
        {
            "means": RULES[rule.partition(" ")[0]][0],
            "knob": RULES[rule.partition(" ")[0]][1],
            "count": count,
            "bound": chosen[0]["bound"] if chosen and rule != "review" else "",
            "measured": bool(chosen) and _number(chosen[0]["value"]) is not None,
            "paired": any(row["keeper"] for row in chosen),
            "examples": [
                {
                    "picture": pictures.get((row["shard"], row["row"])),
                    "keeper": pictures.get(keepers[row["keeper"]]) if row["keeper"] else None,
                    "value": row["value"],
                }
                for row in chosen
            ],
        }
        for rule, count, chosen in rules
    ]


def clusters(raw: Path, rejected: pd.DataFrame, keepers: Places) -> list[dict[str, Any]]:
    """The largest groups of near-duplicates: the picture that stays, and those that it stands for."""
    doubles = rejected[(rejected["rule"] == "duplicate") & (rejected["keeper"] != "")]
    sizes = doubles["keeper"].value_counts()
    largest = [key for key, _ in _first(sizes[sizes > 1], CLUSTERS)]
    members = {
        key: sorted(doubles[doubles["keeper"] == key].to_dict("records"), key=lambda row: row["key"]) for key in largest
    }
    shown = {key: [(row["shard"], row["row"]) for row in rows[:MEMBERS]] for key, rows in members.items()}
    pictures = raw_pictures(
        raw, {*(keepers[key] for key in largest), *(place for places in shown.values() for place in places)}, 64
    )
    return [
        {
            "keeper": pictures.get(keepers[key]),
            "count": len(members[key]),
            "pictures": [pictures[place] for place in shown[key] if place in pictures],
        }
        for key in largest
    ]


def telling(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Of pictures that one rule rejects those that tell most: where it measures, the worst and the nearly good.

    The nearly good come first. Else they are drawn by key.
    """
    if len(rows) > most and all(
        _number(row["value"]) is not None and _number(row["bound"]) is not None for row in rows
    ):
        off = {row["key"]: abs(float(row["value"]) - float(row["bound"])) for row in rows}
        order = sorted(rows, key=lambda row: (off[row["key"]], row["key"]))
        return order[: most - most // 2] + order[len(order) - most // 2 :]
    return sorted(rows, key=lambda row: uniform("report", row["key"]))[:most]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def failure_rows(raw: Path) -> list[tuple[str, str, int, str]]:
    """(source, code, how many, the first of them) of what could not be collected."""
    failures = pd.read_parquet(raw / FAILURES)
    return [
        (source, code, len(rows), rows["path"].iloc[0]) for (source, code), rows in failures.groupby(["source", "code"])
    ]


def credit_rows(kept: pd.DataFrame) -> list[tuple[str, str, str, int]]:
    """(source, licence, attribution, pictures) of what is kept."""
    shown = kept[["source", "license", "attribution"]].fillna("not said")
    return [(*name, len(rows)) for name, rows in shown.groupby(["source", "license", "attribution"])]
