"""Finished pictures: right size, right place, nothing lost."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from stages.clean.run import MANIFEST
from stages.core.errors import StageError
from stages.core.pairs import shards_below, write_table
from stages.core.params import parse_section
from stages.core.pictures import whole
from stages.preprocess.params import PreprocessParams
from stages.preprocess.transform import Crop, Upright, fit_frame, open_picture
from tests.pictures import (
    drawing,
    encoded,
    rotated_by_exif,
    sixteen_bit,
    sixteen_bit_colours,
    with_other_profile,
    with_profile,
)
from tests.preprocess.making import drawings, make, opened, preprocess


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
    few_over = few.convert("RGB")
    few_over.paste((255, 0, 255), mask=few.point([255, *[0] * 255], "L"))
    return {
        "exif": (rotated_by_exif(image), image, 40),
        "cmyk": (encoded(cmyk, "TIFF"), cmyk.convert("RGB"), 0),
        "sixteen_bit": (sixteen_bit(image), grey, 0),
        "palette": (encoded(few), few.convert("RGB"), 0),
        "alpha": (encoded(clear), over, 0),
        "animated": (encoded(image, "WEBP", lossless=True, save_all=True, append_images=[over]), image, 0),
        "grey": (encoded(image.convert("L")), grey, 0),
        "profile": (with_profile(image), image, 2),
        "another profile": (*with_other_profile(image), 2),
        "sixteen_bit_colours": (sixteen_bit_colours(image), image, 0),
        "rgb_jpeg": (encoded(image, "JPEG", quality=100, keep_rgb=True), image, 2),
        "cmyk_jpeg": (encoded(cmyk, "JPEG", quality=100), cmyk.convert("RGB"), 6),
        "profile_jpeg": (with_profile(image, "JPEG", quality=100, subsampling=0), image, 4),
        "transparent_palette": (encoded(few, transparency=0), few_over, 0),
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


def exactly(image: Image.Image, size: tuple[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Lanczos with nothing rounded."""
    bands = [band.convert("F").resize(size, Image.Resampling.LANCZOS) for band in image.split()]
    return np.stack([np.asarray(band, float) for band in bands], axis=2).clip(0, 255)


def test_a_reduced_jpeg_is_rounded_once() -> None:
    """Half a level at most from what its samples say; rounded before resizing, or between passes, it is further off."""
    data = encoded(drawing(6, (200, 200)).resize((256, 256), Image.Resampling.BICUBIC), "JPEG", quality=90)
    stored = Image.open(io.BytesIO(data))
    stored.draft("YCbCr", (128, 128))
    luma, blue, red = np.moveaxis(exactly(stored, (32, 32)), 2, 0)
    wanted = np.stack([luma + 1.402 * (red - 128), luma + 1.772 * (blue - 128)], axis=2).clip(0, 255)
    upright = open_picture(params(), data, 128)
    assert upright is not None
    fitted = fit_frame(params(), upright, (32, 32))
    assert fitted is not None
    assert np.abs(np.asarray(fitted[0])[..., [0, 2]] - wanted).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_resampled_from_where_its_picture_lies(orientation: int) -> None:
    """203 px decoded at half their size fill 101.5 of 102: taken for 102, all would be shifted."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = drawing(9, (203, 203)).resize((26, 26)).resize((203, 203), Image.Resampling.BICUBIC)
    data = encoded(smooth, "JPEG", exif=exif, quality=95, subsampling=0)
    wanted = exactly(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), (32, 32))
    upright = open_picture(params(), data, 80)
    assert upright is not None
    assert upright.image.size == (102, 102)
    errors = []
    for one in (upright, Upright(upright.image, upright.size, whole(upright.image))):
        fitted = fit_frame(params(), one, (32, 32))
        assert fitted is not None
        errors.append(np.sqrt(np.square(np.asarray(fitted[0]) - wanted).mean()))
    assert errors[0] < 0.7
    assert errors[1] > 1.5 * errors[0]


def test_colours_of_a_reduced_jpeg_are_those_that_decoders_show() -> None:
    for subsampling in (0, 2):
        data = encoded(drawing(8, (64, 64)), "JPEG", quality=95, subsampling=subsampling)
        upright = open_picture(params(), data, 32)
        assert upright is not None
        assert (upright.image.mode, upright.image.size) == ("YCbCr", (32, 32))
        fitted = fit_frame(params(), upright, (32, 32))
        shown = Image.open(io.BytesIO(data))
        shown.draft("RGB", (32, 32))
        assert fitted is not None
        assert np.abs(np.asarray(fitted[0], int) - np.asarray(shown, int)).max() <= 1


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
