"""In = kept + rejected; who stays depends on the pictures, never on their order."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.clean.captions import good_captions, repair
from stages.clean.duplicates import choose_keepers, pairs_within
from stages.clean.params import Captions, CleanParams
from stages.clean.run import MANIFEST, clean
from stages.core.errors import StageError
from stages.inspect.measures import Measures

HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=30)


def brute_force(hashes: list[int], radius: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= radius
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8), HASHES, st.lists(st.tuples(st.integers(0, 29), st.lists(st.integers(0, 63), max_size=9))))
def test_pairs_are_exactly_those_of_brute_force(
    radius: int, hashes: list[int], flips: list[tuple[int, list[int]]]
) -> None:
    for index, bits in flips:  # neighbours at every small distance, which chance would never give
        if index < len(hashes):
            hashes.append(hashes[index] ^ sum(1 << bit for bit in set(bits)))
    hashes = sorted(set(hashes))
    left, right, distance = pairs_within(np.array(hashes, dtype=np.uint64), radius)
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == brute_force(hashes, radius)
    assert [(hashes[i] ^ hashes[j]).bit_count() for i, j in zip(left, right, strict=True)] == distance.tolist()


SMALL = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 7)), min_size=1, max_size=25)


@given(SMALL, st.integers(0, 3), st.integers(0, 3))
def test_keepers(hashes: list[tuple[int, int]], radius: int, confirm: int) -> None:
    phash, dhash = (np.array(column, dtype=np.uint64) for column in zip(*hashes, strict=True))
    found = choose_keepers(phash, dhash, radius, confirm)
    stays = set(range(len(hashes))) - found.keys()
    for index, (keeper, distance) in found.items():
        assert keeper in stays
        assert keeper < index
        apart = [(hashes[index][k] ^ hashes[keeper][k]).bit_count() for k in (0, 1)]
        assert apart[0] == distance <= radius
        assert apart[1] <= confirm
    for i in stays:
        for j in stays - {i}:
            near = (hashes[i][0] ^ hashes[j][0]).bit_count() <= radius and (
                hashes[i][1] ^ hashes[j][1]
            ).bit_count() <= confirm
            assert not near


def row(number: int, **changes: object) -> dict[str, object]:
    """One measured picture that passes every rule and looks like no other."""
    random = np.random.default_rng(number)
    measures = Measures(
        "ok", "PNG", "RGB", 0.0, 100, 80,
        f"{random.integers(2**63):016x}", f"{random.integers(2**63):016x}", "v", 50.0, 0.5, 0.2, 5.0,
    )  # fmt: skip
    return {
        "shard": "a/0.parquet",
        "row": number,
        "key": f"{number:064x}",
        "captions": ["two words"],
        "source": "a",
        "role": "train",
        "repeats": 1,
        "url": None,
        "license": None,
        "attribution": None,
        "group": None,
        "split": None,
        "extra": "{}",
        "source_rank": 0,
        **asdict(measures),
        **changes,
    }


def table(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def records(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as plain values; pandas has several ways to say None."""
    plain: list[dict[str, object]] = rows.astype(object).where(rows.notna(), None).to_dict("records")
    return plain


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "code": st.sampled_from(["ok", "animated", "truncated"]),
        "width": st.integers(10, 300),
        "entropy": st.floats(0, 8),
        "captions": st.lists(st.sampled_from(["", "fine words", "x", " spaced  out "]), max_size=3),
        "phash": st.sampled_from(["0" * 16, "0" * 15 + "3", "f" * 16]),
        "dhash": st.sampled_from(["0" * 16, "0" * 15 + "1"]),
        "group": st.sampled_from([None, "g", "h"]),
        "split": st.sampled_from([None, "train", "validation"]),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=14), st.randoms(use_true_random=False))
def test_two_doors(changes: list[dict[str, object]], random: object) -> None:
    rows = [row(number, **changed) for number, changed in enumerate(changes)]
    try:
        verdict = clean(CleanParams(), table(*rows))
    except StageError as error:
        assume("none of" not in str(error))
        raise
    kept, rejected = set(verdict.kept["key"]), set(verdict.rejected["key"])
    assert kept | rejected == {str(r["key"]) for r in rows}
    assert not kept & rejected
    assert set(verdict.rejected["keeper"].dropna()) <= kept

    random.shuffle(rows)  # type: ignore[attr-defined]  # hypothesis hands in a random.Random
    shuffled = clean(CleanParams(), table(*rows))
    assert records(verdict.kept) == records(shuffled.kept)
    assert records(verdict.rejected) == records(shuffled.rejected)

    by_key = {r["key"]: r for r in rows}
    again = [{**by_key[k.key], "captions": k.captions, "split": k.split} for k in verdict.kept.itertuples()]
    assert records(clean(CleanParams(), table(*again)).kept) == records(verdict.kept)

    groups = verdict.kept.assign(group=verdict.kept["group"].fillna(verdict.kept["key"]))
    assert (groups.groupby("group")["split"].nunique() == 1).all()


def test_every_reason_is_given_with_value_and_bound() -> None:
    bad = row(1, width=20, height=4, entropy=0.01, captions=["x"])
    rejected = clean(CleanParams(), table(row(0), bad)).rejected
    assert dict(zip(rejected["rule"], rejected["value"], strict=True)) == {
        "bad_caption": "x",
        "max_aspect": "5.0",
        "min_entropy": "0.01",
        "min_side": "4",
    }
    assert dict(zip(rejected["rule"], rejected["bound"], strict=True))["min_side"] == "64"


def test_an_undecoded_picture_has_one_reason() -> None:
    rejected = clean(CleanParams(), table(row(0), row(1, code="bomb", width=None, height=None, phash=None))).rejected
    assert rejected[["rule", "value"]].to_numpy().tolist() == [["decode", "bomb"]]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"split": "validation", "width": 90}, {"width": 200}),
        ({"width": 200}, {"captions": ["many more words here"]}),
        ({"captions": ["many more words here"]}, {"source_rank": 0}),
        ({"source_rank": 0, "key": "f" * 64}, {"source_rank": 1, "key": "0" * 64}),
        ({"key": "0" * 64}, {"key": "f" * 64}),
    ],
)
def test_of_duplicates_the_better_stays(better: dict[str, object], worse: dict[str, object]) -> None:
    same = {"phash": "0" * 16, "dhash": "0" * 16}
    verdict = clean(CleanParams(), table(row(1, **same, **worse), row(2, **same, **better)))
    wanted = better.get("key", f"{2:064x}")
    assert verdict.kept["key"].tolist() == [wanted]
    assert verdict.rejected["keeper"].tolist() == [wanted]


def test_nothing_kept_stops() -> None:
    with pytest.raises(StageError, match=r"none of 2 pictures kept; the first reason was min_side \(8, bound 64\)"):
        clean(CleanParams(), table(row(0, width=8), row(1, width=8)))


def test_new_pictures_move_no_old_ones_across_the_split() -> None:
    rows = [row(number) for number in range(200)]
    few, all_ = (clean(CleanParams(validation_share=0.2), table(*rows[:n])).kept for n in (120, 200))
    assert all_[all_["key"].isin(few["key"])].reset_index(drop=True).equals(few)
    assert 20 <= (all_["split"] == "validation").sum() <= 60


def test_something_is_held_out_of_a_few_pictures() -> None:
    kept = clean(CleanParams(validation_share=0.001), table(*(row(number) for number in range(5)))).kept
    assert (kept["split"] == "validation").sum() == 1


def test_captions_are_repaired_then_judged() -> None:
    assert repair("  cafe\u0301 \n\u200b noir\x00 ") == "café noir"
    bounds = Captions(min_words=2, max_words=3)
    assert good_captions(bounds, ["one", "two  words", "two words", "now four words here"]) == ["two words"]


def test_the_manifest_is_what_later_stages_read() -> None:
    assert clean(CleanParams(), table(row(0))).kept.columns.tolist() == MANIFEST.names
