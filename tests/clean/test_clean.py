"""In = kept + rejected; who stays depends on the pictures, never on their order."""

import json
from collections import Counter
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stages.clean import duplicates
from stages.clean.captions import fault, repair, sift
from stages.clean.duplicates import choose_keepers, hyperplanes, pairs_within, word_bits
from stages.clean.params import Captions, CleanParams
from stages.clean.review import Say, read_review
from stages.clean.run import MANIFEST, Verdict
from stages.clean.run import clean as decide
from stages.core.errors import StageError
from stages.inspect.captions import measure_caption
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


def test_processes_find_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 3000, dtype=np.uint64)
    hashes = np.unique(np.concatenate([hashes, hashes[:500] ^ np.uint64(0b1011)]))
    alone = pairs_within(hashes, 6)
    assert len(alone[0]) >= 500
    monkeypatch.setattr(duplicates, "FEW", 0)
    monkeypatch.setenv("DARKROOM_WORKERS", "2")
    for one, other in zip(alone, pairs_within(hashes, 6), strict=True):
        np.testing.assert_array_equal(one, other)


SMALL = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 7)), min_size=1, max_size=25)


@given(SMALL, st.integers(0, 3), st.integers(0, 3))
def test_keepers(hashes: list[tuple[int, int]], radius: int, confirm: int) -> None:
    phash, dhash = (np.array(column, dtype=np.uint64) for column in zip(*hashes, strict=True))
    found = choose_keepers(phash, dhash, radius, confirm)
    stays = set(range(len(hashes))) - found.of.keys()
    for index, (keeper, distance) in found.of.items():
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
    hashes = {name: f"{random.integers(2**63):016x}" for name in ("phash", "dhash", "phash_mirrored", "dhash_mirrored")}
    measures = Measures("ok", "PNG", "RGB", "", 0.0, 100, 80, pixels=f"{number:064x}", hash_version="v")
    figures = {"sharpness": 50.0, "contrast": 0.2, "saturation": 0.3, "entropy": 5.0, "border": 0.1, "brightness": 0.5}
    made = {
        "shard": "a/0.parquet",
        "row": number,
        "key": f"{number:064x}",
        "captions": ["two words"],
        "captions_by": "source",
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
        "similarities": [],
        **asdict(measures),
        **hashes,
        **figures,
        **changes,
    }
    listed = made["captions"]
    assert isinstance(listed, list)
    return {**made, "measured_captions": [asdict(measure_caption(caption)) for caption in listed]}


def clean(params: CleanParams, measured: pd.DataFrame, review: dict[str, Say] | None = None) -> Verdict:
    return decide(params, measured, review or {})


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
        "captions": st.lists(
            st.sampled_from(["", "fine words", "x", " spaced  out ", "&amp;amp; caf\u00c3\u00a9"]), max_size=3
        ),
        "extra": st.sampled_from(["{}", '{"class": "wren", "unsafe": 0.2}', '{"class": "owl", "unsafe": 0.9}']),
        "role": st.sampled_from(["train", "train", "regularisation", "benchmark"]),
        "phash": st.sampled_from(["0" * 16, "0" * 15 + "3", "f" * 16]),
        "dhash": st.sampled_from(["0" * 16, "0" * 15 + "1"]),
        "phash_mirrored": st.sampled_from(["f" * 16, "0" * 16]),
        "dhash_mirrored": st.sampled_from(["0" * 16]),
        "group": st.sampled_from([None, "g", "h"]),
        "split": st.sampled_from([None, "train", "validation"]),
    },
)


KNOBS = st.fixed_dictionaries(
    {},
    optional={
        "filters": st.sampled_from([["unsafe < 0.5 or missing"], ["class ~ w* or missing", "entropy > 1"]]),
        "captions": st.sampled_from([{"max_repeats": 3}, {"languages": ["en"]}, {"min_words": 2}]),
        "duplicates": st.sampled_from([{"mirrored": True}, {"merge_captions": True}, {"radius": 0}]),
        "balance": st.sampled_from([{"class": 2}, {"caption": 3, "source": 5}]),
        "validation_count": st.integers(0, 4),
    },
)


@settings(max_examples=150, deadline=None)
@given(KNOBS, st.lists(ROWS, min_size=1, max_size=14), st.integers(0, 13), st.randoms(use_true_random=False))
def test_two_doors(knobs: dict[str, object], changes: list[dict[str, object]], said: int, random: object) -> None:
    params = CleanParams.model_validate(knobs)
    rows = [row(number, **changed) for number, changed in enumerate(changes)]
    review = {f"{said:064x}": Say("drop")}
    try:
        verdict = clean(params, table(*rows), review)
    except StageError as error:
        assume("none of" not in str(error))
        raise
    kept, rejected = set(verdict.kept["key"]), set(verdict.rejected["key"])
    assert kept | rejected == {str(r["key"]) for r in rows}
    assert not kept & rejected
    duplicates = verdict.rejected[verdict.rejected["rule"].isin(["duplicate", "decontaminate"])]
    assert duplicates["keeper"].notna().all()
    if not params.balance:
        benchmarks = {str(r["key"]) for r in rows if r["role"] == "benchmark"}
        assert set(duplicates["keeper"]) <= kept | benchmarks

    random.shuffle(rows)  # type: ignore[attr-defined]  # hypothesis hands in a random.Random
    shuffled = clean(params, table(*rows), review)
    assert records(verdict.kept) == records(shuffled.kept)
    assert records(verdict.rejected) == records(shuffled.rejected)

    told = {str(k.key): {"captions": list(k.captions), "split": k.split} for k in verdict.kept.itertuples()}
    again = [row(int(str(r["key"]), 16), **{**r, **told[str(r["key"])]}) for r in rows if r["key"] in told]
    assert records(clean(params, table(*again), review).kept) == records(verdict.kept)

    groups = verdict.kept.assign(group=verdict.kept["group"].fillna(verdict.kept["key"]))
    assert (groups.groupby("group")["split"].nunique() == 1).all()


def test_every_reason_is_given_with_value_and_bound() -> None:
    bad = row(1, width=20, height=4, entropy=0.01, captions=["x"])
    rejected = clean(CleanParams(), table(row(0), bad)).rejected
    assert dict(zip(rejected["rule"], rejected["value"], strict=True)) == {
        "bad_caption": "x: 1 characters",
        "max_aspect": "5.0",
        "min_entropy": "0.01",
        "min_side": "4",
    }
    assert dict(zip(rejected["rule"], rejected["bound"], strict=True))["min_side"] == "64"


def test_an_undecoded_picture_has_one_reason() -> None:
    rejected = clean(CleanParams(), table(row(0), row(1, code="bomb", width=0, height=0, phash=None))).rejected
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
    assert repair("caf\u00c3\u00a9 &amp;amp; bar") == "café & bar"
    bounds = Captions(min_words=2, max_words=3)
    came = ["one", "two words", "two words", "now four words here"]
    good, bad = sift(bounds, came, [asdict(measure_caption(caption)) for caption in came], [None] * 4, Counter(came))
    assert good == ["two words"]
    assert bad == {"one": "1 words", "now four words here": "4 words"}


@given(st.text(max_size=40))
def test_repair_repairs_once(text: str) -> None:
    assert repair(repair(text)) == repair(text)


@pytest.mark.parametrize(
    ("caption", "knobs", "wrong"),
    [
        ("a cat, see https://example.org/cat", {}, "url"),
        ("IMG_20230412.jpg", {}, "file_name"),
        ("DSC01234", {}, "file_name"),
        ("<b>a cat</b>", {}, "html"),
        ("call +49 30 1234567 now", {}, "phone"),
        ("mail me@example.org", {}, "email"),
        ("cats &amp; dogs", {}, ""),
        ("cats &amp; dogs", {"refuse": ["entity"]}, "entity"),
        ("schÃ¶ne Katze", {"refuse": ["mojibake"]}, "mojibake"),
        ("a red apple on the table in 2014", {}, ""),
        ("ein Foto von einem Hund im Park", {"languages": ["en"]}, "language de"),
        ("a photo of a small brown bird on a branch", {"languages": ["en"]}, ""),
        ("red apple", {"languages": ["de"]}, ""),
        ("seen often", {"max_repeats": 2}, "3 pictures have it"),
        ("another thing", {"min_similarity": 0.28}, "similarity 0.200"),
        ("the thing", {"min_similarity": 0.2}, ""),
    ],
)
def test_faults(caption: str, knobs: dict[str, object], wrong: str) -> None:
    assert fault(Captions.model_validate(knobs), repair(caption), asdict(measure_caption(caption)), 0.2, 3) == wrong


def test_filters_read_measures_and_carried_fields() -> None:
    rows = [row(n, extra=json.dumps(e)) for n, e in enumerate([{"punsafe": 0.05}, {"punsafe": "0.7"}, {}])]
    kept = clean(CleanParams(filters=["punsafe < 0.1", "brightness > 0.2"]), table(*rows)).kept
    assert kept["key"].tolist() == [f"{0:064x}"]
    kept = clean(CleanParams(filters=["punsafe < 0.1 or missing"]), table(*rows)).kept
    assert kept["key"].tolist() == [f"{0:064x}", f"{2:064x}"]
    rejected = clean(
        CleanParams(filters=["license ~ cc*"]), table(row(3, license="CC0"), row(4, license="MIT"))
    ).rejected
    assert rejected[["rule", "value"]].to_numpy().tolist() == [["filter license ~ cc*", "MIT"]]
    with pytest.raises(StageError, match="no picture has unsafe"):
        clean(CleanParams(filters=["unsafe < 0.1"]), table(*rows))


@pytest.mark.parametrize("text", ["punsafe", "punsafe < low", "< 3", "a b < 3"])
def test_odd_filters_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="filters"):
        CleanParams(filters=[text])


def test_mirrored_copies_by_choice() -> None:
    left, right = row(1), row(2)
    right |= {"phash": left["phash_mirrored"], "dhash": left["dhash_mirrored"]}
    assert len(clean(CleanParams(), table(left, right)).kept) == 2
    verdict = clean(CleanParams.model_validate({"duplicates": {"mirrored": True}}), table(left, right))
    assert verdict.rejected["keeper"].tolist() == verdict.kept["key"].tolist()


def test_captions_of_duplicates_can_be_merged() -> None:
    same = {"phash": "0" * 16, "dhash": "0" * 16}
    rows = [row(1, **same, width=200), row(2, **same, captions=["other words", "two words"])]
    assert clean(CleanParams(), table(*rows)).kept["captions"].tolist() == [["two words"]]
    merged = CleanParams.model_validate({"duplicates": {"merge_captions": True}})
    assert clean(merged, table(*rows)).kept["captions"].tolist() == [["two words", "other words"]]


def test_what_looks_like_a_benchmark_is_not_trained_on() -> None:
    same = {"phash": "0" * 16, "dhash": "0" * 16}
    rows = [row(1, **same, width=200), row(2, **same, role="benchmark", captions=[]), row(3)]
    rejected = clean(CleanParams(), table(*rows)).rejected
    assert rejected["rule"].tolist() == ["decontaminate", "benchmark"]
    assert rejected["keeper"].iloc[0] == f"{2:064x}"


def test_look_alikes_never_cross_the_split() -> None:
    # 1 looks like 2 and 2 like 3; 2 goes, 1 and 3 stay, and stay together. 4 shares a group with 3.
    hashes = [{"phash": f"{bits:016x}", "dhash": "0" * 16} for bits in (0, 0b111111, 0b111111111111)]
    for seed in range(30):
        rows = [row(n + 1, **h, width=200 - n) for n, h in enumerate(hashes)]
        rows[2]["group"] = "g"
        rows += [row(4, group="g"), *(row(n) for n in range(10, 20))]
        kept = clean(CleanParams(seed=seed, validation_share=0.3), table(*rows)).kept.set_index("key")["split"]
        assert f"{2:064x}" not in kept.index
        assert len({kept[f"{n:064x}"] for n in (1, 3, 4)}) == 1


def test_a_count_is_held_out() -> None:
    rows = [row(number, group=f"g{number // 2}") for number in range(40)]
    kept = clean(CleanParams(validation_count=7), table(*rows)).kept
    assert (kept["split"] == "validation").sum() == 8  # a group isn't split
    assert (clean(CleanParams(validation_count=0), table(*rows)).kept["split"] == "train").all()


@pytest.mark.parametrize("held_out", [{"validation_share": 0.5}, {"validation_count": 1}, {"validation_count": 9}])
def test_class_pictures_are_not_held_out(held_out: dict[str, Any]) -> None:
    rows = [row(number, role="train" if number < 3 else "regularisation") for number in range(30)]
    kept = clean(CleanParams.model_validate(held_out), table(*rows)).kept
    splits = kept.groupby("role")["split"].agg(set)
    assert splits["regularisation"] == {"train"}
    assert splits["train"] == {"train", "validation"}
    rows[20]["split"] = "validation"  # unless a source says so
    kept = clean(CleanParams.model_validate(held_out), table(*rows)).kept
    assert kept.set_index("key")["split"][f"{20:064x}"] == "validation"


def test_balance() -> None:
    rows = [
        row(n, extra=json.dumps({"class": "wren" if n < 8 else "owl"}), captions=[f"bird number {n}"])
        for n in range(10)
    ]
    verdict = clean(CleanParams(balance={"class": 3}), table(*rows))
    assert len(verdict.kept) == 5
    assert set(verdict.rejected["value"]) == {"class wren: 8"}
    wanted = {str(verdict.rejected["key"].iloc[0]): Say("keep")}
    again = clean(CleanParams(balance={"class": 3}), table(*rows), wanted)
    assert set(wanted) < set(again.kept["key"])
    assert len(again.kept) == 5


def test_a_person_beats_every_rule(tmp_path: Path) -> None:
    same = {"phash": "0" * 16, "dhash": "0" * 16}
    keys = {name: sha256(name.encode()).hexdigest() for name in ("small", "better", "worse", "fine", "wordless")}
    rows = [
        row(1, key=keys["small"], width=8),
        row(2, key=keys["better"], width=500, **same),
        row(3, key=keys["worse"], **same),
        row(4, key=keys["fine"]),
        row(5, key=keys["wordless"], captions=[]),
    ]
    path = tmp_path / "review.csv"
    lines = [
        "key,verdict,caption,note",
        f"{keys['small'][:8]},keep,,the only one",
        f"{keys['better']},drop,,",
        f"{keys['fine'][:10]},,a person's words,",
        f"{keys['wordless']},keep,now it has some,",
    ]
    path.write_text("\n".join(lines))
    verdict = clean(CleanParams(), table(*rows), read_review(path, keys.values()))
    kept = dict(zip(verdict.kept["key"], verdict.kept["captions"], strict=True))
    assert set(kept) == {keys[name] for name in ("small", "worse", "fine", "wordless")}
    assert kept[keys["fine"]] == ["a person's words"]
    assert verdict.rejected["rule"].tolist() == ["review"]
    with pytest.raises(StageError, match=r"can't be kept \(decode\)"):
        clean(CleanParams(), table(row(1), row(2, code="truncated", phash=None)), {f"{2:064x}": Say("keep")})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("abcdef0123,keep,,", "no pictures have the key abcdef0123"),
        ("0000000000,keep,,", "2 pictures have the key"),
        (f"{1:064x},perhaps,,", "neither keep nor drop"),
        (f"{1:064x},drop,,\n{1:064x},keep,,", "is there twice"),
        (",drop,,", r"\(empty\)"),
    ],
)
def test_odd_reviews_are_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "review.csv"
    path.write_text(f"key,verdict,caption,note\n{line}\n")
    with pytest.raises(StageError, match=said):
        read_review(path, [f"{1:064x}", f"{2:064x}"])
    path.write_text("key,verdict\n")
    with pytest.raises(StageError, match="first line"):
        read_review(path, [])


def test_the_manifest_is_what_later_stages_read() -> None:
    assert clean(CleanParams(), table(row(0))).kept.columns.tolist() == MANIFEST.names


@pytest.mark.parametrize(
    ("radius", "order", "count"), [(2, 3, 3), (4, 3, 12), (6, 3, 39), (8, 3, 120), (4, 2, 30), (6, 2, 126)]
)
def test_any_few_bits_leave_a_hyperplane_untouched(radius: int, order: int, count: int) -> None:
    masks = np.array(hyperplanes(radius, order))
    assert len(masks) == count
    sizes = np.bitwise_count(masks)
    assert sizes.sum() == count // order * 64
    assert sizes.min() >= 64 / order * 0.6
    random = np.random.default_rng(radius)
    for _ in range(2000):
        flipped = np.uint64(sum(1 << int(bit) for bit in random.choice(64, radius, replace=False)))
        assert ((masks & flipped) == 0).any()


@given(st.integers(0, 2**32 - 1))
def test_a_word_has_room_for_all_its_parts(count: int) -> None:
    agreement, sketch, number = word_bits(count)
    assert agreement + sketch + number == 64
    assert min(agreement, sketch) >= 1
    assert count < 2**number
