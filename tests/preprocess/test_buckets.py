"""Buckets: every shape finds one that shows nearly all of it."""

from hypothesis import given
from hypothesis import strategies as st

from stages.preprocess.buckets import AREA, bucket_table, kept_share, nearest_bucket
from stages.preprocess.params import PreprocessParams
from stages.preprocess.transform import frames, least_side

TABLE = bucket_table(512, 64, 4.0)
EDGE = st.integers(64, 8000)


@given(EDGE, st.floats(0.25, 4))
def test_at_most_a_tenth_is_cropped(height: int, aspect: float) -> None:
    size = (min(max(round(height * aspect), -(-height // 4)), 4 * height), height)
    assert kept_share(nearest_bucket(TABLE, size), size) >= 0.9


@given(st.sampled_from([8, 32, 64]), st.integers(1, 16), st.floats(1, 4))
def test_sides_areas_and_aspects_keep_to_their_bounds(step: int, steps: int, aspect: float) -> None:
    side = step * steps
    table = bucket_table(side, step, aspect)
    assert (side, side) in table
    for width, height in table:
        assert width % step == height % step == 0
        assert abs(width * height - side**2) <= AREA * side**2
        assert max(width, height) <= aspect * min(width, height)
        assert (height, width) in table


@given(EDGE, EDGE)
def test_no_bucket_shows_more_and_buckets_are_their_own(width: int, height: int) -> None:
    best = kept_share(nearest_bucket(TABLE, (width, height)), (width, height))
    assert all(kept_share(bucket, (width, height)) <= best for bucket in TABLE)
    assert nearest_bucket([*reversed(TABLE)], (width, height)) in TABLE
    for bucket in TABLE:
        assert nearest_bucket(TABLE, bucket) == bucket


@given(EDGE, EDGE, st.sampled_from(["center_crop", "bucket"]))
def test_no_jpeg_is_reduced_below_twice_what_is_made_of_it(width: int, height: int, fit: str) -> None:
    """The shorter side after resizing is at most half of what the decoder may reduce it to."""
    table = frames(PreprocessParams.model_validate({"fit": fit}))
    across, down = nearest_bucket(table, (width, height))
    shorter = min(width, height) * max(across / width, down / height)
    assert 2 * shorter <= least_side(table) + 1e-6
    assert least_side(frames(PreprocessParams())) == 1024
