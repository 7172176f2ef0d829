"""Finished pictures: right size, right place, nothing lost."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from stages.clean.run import MANIFEST
from stages.core.errors import StageError
from stages.core.pairs import RAW, Pair, ShardWriter, shards_below, write_table
from stages.core.pictures import decode
from stages.preprocess.params import PreprocessParams
from stages.preprocess.run import main
from stages.preprocess.transform import fit_square, variants
from tests.pictures import drawing, encoded


def params(**values: object) -> PreprocessParams:
    return PreprocessParams.model_validate({"resolution": 32, **values})


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    image = drawing(1, (32, 32))
    for fit in ("center_crop", "pad"):
        fitted = fit_square(params(fit=fit), image)
        assert fitted is not None
        assert fitted[0].tobytes() == image.tobytes()


def test_the_crop_is_the_middle_and_pads_are_background() -> None:
    image = Image.new("RGB", (96, 32), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 32))
    cropped = fit_square(params(), image)
    assert cropped is not None
    assert cropped[0].getcolors() == [(32 * 32, (0, 0, 255))]
    assert (cropped[1].x, cropped[1].y) == (32, 0)
    padded = fit_square(params(fit="pad", background=[0, 255, 0]), image)
    assert padded is not None
    assert padded[0].getpixel((16, 2)) == (0, 255, 0)
    assert padded[0].getpixel((16, 16)) == (0, 0, 255)
    assert padded[1].y < 0


def test_small_pictures_are_not_blown_up() -> None:
    assert fit_square(params(max_upscale=2.0), drawing(1, (16, 40))) is not None
    assert fit_square(params(max_upscale=2.0), drawing(1, (15, 40))) is None


@pytest.mark.parametrize(
    ("captions", "count"), [(["a hand"], 2), (["a left hand"], 1), (["arrow, right."], 1), (["turned left-handed"], 1)]
)
def test_mirror_images_stay_true_to_captions(captions: list[str], count: int) -> None:
    image = drawing(2, (32, 32))
    shown = variants(params(flip=True), image, captions)
    assert len(shown) == count
    assert shown[0] is image
    if count == 2:
        assert np.array_equal(np.asarray(shown[1])[:, ::-1], np.asarray(image))
    assert variants(params(), image, captions) == [image]


def make(folder: Path, sizes: list[tuple[int, int]], kept: list[int]) -> None:
    writer = ShardWriter(folder / "raw" / "a", RAW)
    pairs = [Pair(f"{n:064x}", encoded(drawing(n, size)), f"{n}.png", ["x"], "a") for n, size in enumerate(sizes)]
    for pair in pairs:
        writer.add(pair.row(), 1)
    writer.close()
    found = [
        {
            "key": row.key,
            "source": "a",
            "shard": path.relative_to(folder / "raw").as_posix(),
            "row": place,
            "captions": ["x"],
        }
        for path in shards_below(folder / "raw")
        for place, row in enumerate(pd.read_parquet(path, columns=["key"]).itertuples())
    ]
    chosen = [{**row, "split": "train", "role": "train", "repeats": 1} for row in found if int(row["key"], 16) in kept]
    (folder / "clean").mkdir()
    write_table(pa.Table.from_pylist(chosen, schema=MANIFEST), folder / "clean" / "manifest.parquet")


def test_kept_is_rows_plus_too_small(in_folder: Path) -> None:
    make(in_folder, [(64, 64), (8, 8), (32, 48), (40, 40)], kept=[0, 1, 2])
    main(params(flip=True), in_folder / "raw", in_folder / "clean", in_folder / "out", in_folder / "m.json")
    table = pd.concat(pd.read_parquet(path) for path in shards_below(in_folder / "out"))
    assert sorted(zip((int(key, 16) for key in table["key"]), table["variant"], strict=True)) == [
        (0, 0),
        (0, 1),
        (2, 0),
        (2, 1),
    ]
    counts = json.loads((in_folder / "m.json").read_text())
    assert counts == {"pictures": 3, "rows": 4, "too_small": 1, "train": 2, "validation": 0}
    picture = decode(table["image"].iloc[0]["bytes"], (0, 0, 0), 10_000)
    assert picture.image is not None
    assert picture.image.size == (32, 32)


def test_nothing_large_enough_stops(in_folder: Path) -> None:
    make(in_folder, [(8, 8)], kept=[0])
    with pytest.raises(StageError, match="none of 1 pictures is large enough for 32 px"):
        main(params(), in_folder / "raw", in_folder / "clean", in_folder / "out", in_folder / "m.json")
    assert not (in_folder / "out").exists()
