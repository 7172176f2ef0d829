"""Finished pictures: right size, right place, nothing lost."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from stages.clean.run import MANIFEST
from stages.core.errors import StageError
from stages.core.pairs import RAW, Pair, ShardWriter, shards_below, write_table
from stages.core.params import parse_section
from stages.preprocess.params import PreprocessParams
from stages.preprocess.run import main
from stages.preprocess.transform import Crop, Upright, fit_frame
from tests.pictures import drawing, encoded, rotated_by_exif, sixteen_bit, with_profile


def params(**values: object) -> PreprocessParams:
    return PreprocessParams.model_validate({"resolution": 32, **values})


def fit(image: Image.Image, **values: object) -> tuple[Image.Image, Crop] | None:
    return fit_frame(params(**values), Upright.whole(image), (32, 32))


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    image = drawing(1, (32, 32))
    for kind in ("center_crop", "pad", "bucket"):
        fitted = fit(image, fit=kind, bucket_step=8)
        assert fitted is not None
        assert fitted[0].tobytes() == image.tobytes()


def test_the_crop_is_the_middle_and_pads_are_background() -> None:
    image = Image.new("RGB", (96, 32), (255, 0, 0))
    image.paste((0, 0, 255), (32, 0, 64, 32))
    cropped = fit(image)
    assert cropped is not None
    assert cropped[0].getcolors() == [(32 * 32, (0, 0, 255))]
    assert (cropped[1].x, cropped[1].y) == (32, 0)
    padded = fit(image, fit="pad", background=[0, 255, 0])
    assert padded is not None
    assert padded[0].getpixel((16, 2)) == (0, 255, 0)
    assert padded[0].getpixel((16, 16)) == (0, 0, 255)
    assert padded[1].y < 0


def test_small_pictures_are_not_blown_up() -> None:
    assert fit(drawing(1, (16, 40)), max_upscale=2.0) is not None
    assert fit(drawing(1, (15, 40)), max_upscale=2.0) is None


def make(folder: Path, pictures: list[bytes], kept: list[int], validation: tuple[int, ...] = ()) -> None:
    """data/raw in several shards, and data/clean that keeps some."""
    writer = ShardWriter(folder / "raw" / "a", RAW)
    for number, data in enumerate(pictures):
        writer.add(Pair(f"{number:064x}", data, f"{number}.png", ["x"], "a").row(), 1)
        if number % 3 == 2:
            writer.close()
    writer.close()
    found = [
        {
            "key": row.key,
            "source": "a",
            "shard": path.relative_to(folder / "raw").as_posix(),
            "row": place,
            "captions": ["a left hand"],
            "split": "validation" if int(row.key, 16) in validation else "train",
            "role": "train",
            "repeats": 1,
        }
        for path in shards_below(folder / "raw")
        for place, row in enumerate(pd.read_parquet(path, columns=["key"]).itertuples())
    ]
    (folder / "clean").mkdir()
    chosen = [row for row in found if int(row["key"], 16) in kept]
    write_table(pa.Table.from_pylist(chosen, schema=MANIFEST), folder / "clean" / "manifest.parquet")


def preprocess(folder: Path, out: str = "out", **values: object) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the stage on what `make` made: its rows and its figures."""
    main(params(**values), *(folder / name for name in ("raw", "clean", "conditions", out, "m.json")))
    tables = [pq.read_table(path).to_pandas() for path in shards_below(folder / out)]
    return pd.concat(tables, ignore_index=True), json.loads((folder / "m.json").read_text())


def opened(row: Any) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


def drawings(*sizes: tuple[int, int]) -> list[bytes]:
    return [encoded(drawing(number, size)) for number, size in enumerate(sizes)]


def test_kept_is_rows_plus_too_small(in_folder: Path) -> None:
    make(in_folder, drawings((64, 64), (8, 8), (32, 48), (40, 40)), kept=[0, 1, 2])
    table, counts = preprocess(in_folder, flip="swap")
    assert sorted(zip((int(key, 16) for key in table["key"]), table["variant"], strict=True)) == [
        (0, 0),
        (0, 1),
        (2, 0),
        (2, 1),
    ]
    assert [list(captions) for captions in table["captions"]] == [["a left hand"], ["a right hand"]] * 2
    shown = {name: counts[name] for name in ("pictures", "rows", "too_small", "train", "validation")}
    assert shown == {"pictures": 3, "rows": 4, "too_small": 1, "train": 2, "validation": 0}
    assert opened(table.iloc[0]).size == (32, 32)
    assert "conditions" not in table


def test_nothing_large_enough_stops(in_folder: Path) -> None:
    make(in_folder, drawings((8, 8)), kept=[0])
    with pytest.raises(StageError, match="none of 1 pictures is large enough for 32 px"):
        preprocess(in_folder)
    assert not (in_folder / "out").exists()


def odd_formats(image: Image.Image) -> dict[str, tuple[bytes, Image.Image, int]]:
    """name -> (file, what a person sees, by how much a value may differ)."""
    grey = image.convert("L").convert("RGB")
    clear = image.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 24, 48))
    over = Image.new("RGB", image.size, (255, 0, 255))
    over.paste(image.crop((24, 0, 48, 48)), (24, 0))
    cmyk = image.convert("CMYK")
    few = image.quantize(64)
    return {
        "exif": (rotated_by_exif(image), image, 40),
        "cmyk": (encoded(cmyk, "TIFF"), cmyk.convert("RGB"), 0),
        "sixteen_bit": (sixteen_bit(image), grey, 0),
        "palette": (encoded(few), few.convert("RGB"), 0),
        "alpha": (encoded(clear), over, 0),
        "animated": (encoded(image, "WEBP", lossless=True, save_all=True, append_images=[over]), image, 0),
        "grey": (encoded(image.convert("L")), grey, 0),
        "profile": (with_profile(image), image, 2),
    }


def test_odd_formats_look_as_a_person_sees_them(in_folder: Path) -> None:
    """Taller than wide, so that a picture that lies on its side would be cropped elsewhere."""
    made = odd_formats(drawing(3, (48, 48)).resize((48, 48)))
    tall = {name: (data, seen, off) for name, (data, seen, off) in made.items()}
    make(in_folder, [data for data, _, _ in tall.values()], kept=[*range(len(tall))])
    table, _ = preprocess(in_folder, background=[255, 0, 255])
    for (name, (_, seen, off)), row in zip(tall.items(), table.sort_values("key").to_dict("records"), strict=True):
        wanted = fit(seen)
        assert wanted is not None
        difference = np.abs(np.asarray(opened(row), int) - np.asarray(wanted[0], int))
        assert np.percentile(difference, 99) <= off, name
        assert (row["original_width"], row["original_height"]) == seen.size, name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_comes_before_size_also_where_a_jpeg_is_reduced(in_folder: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = drawing(4, (600, 400))
    make(in_folder, [encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0)], kept=[0])
    table, _ = preprocess(in_folder, fit="bucket", bucket_step=8)
    row, lies = table.iloc[0], orientation > 4
    assert (row["original_width"], row["original_height"]) == ((400, 600) if lies else (600, 400))
    assert (row["width"], row["height"]) == ((24, 40) if lies else (40, 24))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(stored, "JPEG", exif=exif, quality=95))))
    wanted = fit_frame(params(), Upright.whole(upright), (row["width"], row["height"]))
    assert wanted is not None
    assert np.abs(np.asarray(opened(row), int) - np.asarray(wanted[0], int)).mean() < 3


ALL = {"flip": "swap", "conditions": ["canny", "palette"], "fit": "bucket", "bucket_step": 8}
DRAWN = {"variants": 3, "rotate": 10.0, "crop": 0.1, "jitter": 0.1}


def test_bytes_know_nothing_of_workers_order_and_neighbours(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [(96, 64), (64, 96), (100, 100), (64, 64), (90, 128), (128, 70), (80, 80)]
    make(in_folder, drawings(*sizes), kept=[*range(7)], validation=(1,))
    monkeypatch.setenv("DARKROOM_WORKERS", "1")
    alone, figures = preprocess(in_folder, "one", **ALL, augment=DRAWN)
    manifest = in_folder / "clean" / "manifest.parquet"
    turned = pq.read_table(manifest).to_pylist()[::-1]
    write_table(pa.Table.from_pylist(turned, schema=MANIFEST), manifest)
    monkeypatch.setenv("DARKROOM_WORKERS", "2")
    _, again = preprocess(in_folder, "two", **ALL, augment=DRAWN)
    assert figures == again
    for path in shards_below(in_folder / "one"):
        assert path.read_bytes() == (in_folder / "two" / path.relative_to(in_folder / "one")).read_bytes()
    write_table(pa.Table.from_pylist(turned[2:3], schema=MANIFEST), manifest)
    few, _ = preprocess(in_folder, "three", **ALL, augment=DRAWN)
    same = alone[alone["key"] == turned[2]["key"]]
    assert [row["bytes"] for row in few["image"]] == [row["bytes"] for row in same["image"]]


def test_variants_are_of_training_pictures_and_share_key_and_split(in_folder: Path) -> None:
    make(in_folder, drawings((96, 96), (96, 96), (16, 16)), kept=[0, 1, 2], validation=(1,))
    table, figures = preprocess(in_folder, flip=True, augment=DRAWN)
    numbers = table.groupby("key")["variant"].agg(list).tolist()
    assert numbers[:2] == [[0, 2, 3, 4], [0]]  # no mirror image: the caption says left
    assert table.groupby("key")["split"].nunique().eq(1).all()
    # What grows to the limit as it is has no room for a crop or a turn.
    assert numbers[2][0] == 0
    assert figures["variants_too_small"] == 4 - len(numbers[2])


def test_mean_and_deviation_are_those_of_the_training_pixels(in_folder: Path) -> None:
    make(in_folder, drawings((96, 64), (64, 96), (64, 64), (80, 64)), kept=[0, 1, 2, 3], validation=(3,))
    table, figures = preprocess(in_folder, flip="swap", fit="bucket", bucket_step=8)
    shown = [opened(row) for row in table.to_dict("records") if row["split"] == "train"]
    pixels = np.concatenate([np.asarray(image).reshape(-1, 3) for image in shown]) / 255
    assert np.allclose(figures["mean"], pixels.mean(0), rtol=0, atol=6e-7)
    assert np.allclose(figures["std"], pixels.std(0), rtol=0, atol=6e-7)
    assert figures["buckets"] == {"24x40": 1, "32x32": 2, "40x24": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augment": {"variants": 2}}, "preprocess.augment.variants is 2, but .*alike"),
        ({"fit": "bucket", "resolution": 72}, "preprocess.bucket_step is 64, but .*multiple"),
        ({"conditions": ["canny", "canny"]}, "preprocess.conditions is .* once"),
        ({"flip": "both"}, "preprocess.flip"),
    ],
)
def test_params_that_cannot_work_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(StageError, match=message):
        parse_section(PreprocessParams, "preprocess", values)
