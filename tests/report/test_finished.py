"""What was made of the pictures is told whole: parts add up, shapes are drawn to shape."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stages.preprocess.conditions import REASONS
from stages.report import finished
from stages.report.params import ReportParams
from stages.report.run import main
from tests.report.making import make_world, write_json

SIDE = st.integers(1, 64).map(lambda steps: 64 * steps)
SIZES = st.dictionaries(st.tuples(SIDE, SIDE), st.integers(1, 10**6), min_size=1)
MADE: dict[str, Any] = {
    "rows": 463,
    "train": 112,
    "validation": 19,
    "too_small": 3,
    "variants": 201,
    "variants_too_small": 23,
    "without_condition": 13,
    "lacking": [{"condition": "folder:<b>", "reason": "missing", "pictures": 13, "first": "mine/<i>.png"}],
    "mean": [0.2, 0.5, 0.9],
    "std": [0.3, 0.3, 0.3],
    "buckets": {"24x48": 8, "32x32": 67, "48x24": 56},
}


@given(SIZES)
def test_buckets_keep_their_shapes_and_counts(sizes: dict[tuple[int, int], int]) -> None:
    drawn = finished.buckets({"buckets": {f"{width}x{height}": count for (width, height), count in sizes.items()}})
    assert {(one.width, one.height): one.pictures for one in drawn} == sizes
    scale = max(max(one.across, one.down) for one in drawn) / max(map(max, sizes))
    assert all(
        abs(one.across - scale * one.width) <= 0.1 and abs(one.down - scale * one.height) <= 0.1 for one in drawn
    )
    aspects = [one.width / one.height for one in drawn]
    assert aspects == sorted(aspects)
    assert max(one.share for one in drawn) == 1


def test_squares_alone_need_no_buckets() -> None:
    assert finished.buckets({}) == []


def test_rows_add_up() -> None:
    rows = finished.rows_made(MADE)
    assert sum(count for _, count, _ in rows) == MADE["rows"]
    assert [name for name, _, _ in rows] == ["as they are", "mirror images", "drawn variants"]
    plain = {"rows": 5, "train": 4, "validation": 1}
    assert [count for _, count, _ in finished.rows_made(plain)] == [5]


def test_what_is_left_out_has_its_reason() -> None:
    assert [(name, count) for name, count, _ in finished.left_out(MADE)] == [
        ("too small", 3),
        ("folder:<b>, no file of that name", 13),
    ]
    assert finished.left_out({"too_small": 0}) == []
    assert set(finished.REASONS) == set(REASONS)


def test_one_deviation_ends_where_colours_end() -> None:
    assert [(one.start, one.stop) for one in finished.channels(MADE)] == [(0, 50), (20, 80), (60, 100)]
    assert finished.channels({"mean": [], "std": []}) == []


@given(st.tuples(*[st.integers(0, 1000)] * 3))
def test_boomerang_is_shown_where_it_made_any(counts: tuple[int, int, int]) -> None:
    kept, unchanged, drifted = counts
    parts = finished.boomerang(
        {"boomerang": {"made": sum(counts), "kept": kept, "unchanged": unchanged, "drifted": drifted}}
    )
    assert sum(part.count for part in parts) == sum(counts)
    assert not parts or abs(sum(part.share for part in parts) - 100) < 0.2
    assert not finished.boomerang({"vae_psnr": 30})


def test_the_page_shows_what_there_is_and_escapes_it(tmp_path: Path) -> None:
    paths = make_world(tmp_path)
    lacking = {"lacking": [{"condition": "folder:<b>", "reason": "missing", "pictures": 13, "first": "a"}]}
    write_json(paths["preprocessed"], {**MADE, **lacking})
    write_json(paths["encoded"], {"vae_psnr": 30, "boomerang": {"made": 40, "kept": 29, "unchanged": 4, "drifted": 7}})
    main(ReportParams(), **paths)
    shown = paths["out"].read_text()
    for text in ("19 held out, 3 too small, 13 without a condition", "48 × 24", "0.900", "29 kept", "4 hardly changed"):
        assert text in shown
    assert "folder:&lt;b&gt;" in shown
