"""A row for every picture, with figures that mean what they say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from stages.core.files import write_json
from stages.core.pairs import CAPTIONS, RAW, SOURCES, Pair, ShardWriter, write_table
from stages.inspect.measures import entropy, measure, sharpness
from stages.inspect.params import InspectParams
from stages.inspect.run import main
from tests.pictures import bomb, drawing, encoded, rotated_by_exif

WHITE, MOST = (255, 255, 255), 10_000_000


def test_known_values() -> None:
    black = measure(encoded(Image.new("L", (20, 10), 0)), WHITE, MOST)
    assert (black.width, black.height) == (20, 10)
    assert (black.brightness, black.contrast, black.entropy, black.sharpness) == (0.0, 0.0, 0.0, 0.0)
    half = Image.new("L", (20, 10), 0)
    half.paste(255, (0, 0, 10, 10))
    assert measure(encoded(half), WHITE, MOST).entropy == 1.0
    assert measure(encoded(half), WHITE, MOST).brightness == 0.5


def test_the_laplacian_of_a_ramp_is_nought_and_of_a_point_is_known() -> None:
    ramp = np.tile(np.arange(9.0), (7, 1))
    assert sharpness(ramp) == 0
    point = np.zeros((5, 5))
    point[2, 2] = 1
    # The 3 x 3 inside holds one -4 and four 1s: mean 0, mean square 20 / 9.
    assert sharpness(point) == pytest.approx(20 / 9)
    assert sharpness(np.zeros((2, 9))) == 0


def test_blur_lowers_sharpness_step_by_step() -> None:
    image = drawing(5).convert("L")
    values = [sharpness(np.asarray(image.filter(ImageFilter.GaussianBlur(r)), float)) for r in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert entropy(Image.effect_noise((64, 64), 90)) > entropy(image)


def test_hashes_survive_what_people_do_to_pictures() -> None:
    def distance(a: bytes, b: bytes, name: str) -> int:
        one, two = (int(getattr(measure(data, WHITE, MOST), name), 16) for data in (a, b))
        return (one ^ two).bit_count()

    image = drawing(11, (256, 192))
    for other in (encoded(image, "JPEG", quality=60), encoded(image.resize((128, 96))), rotated_by_exif(image)):
        assert distance(encoded(image), other, "phash") <= 6
        assert distance(encoded(image), other, "dhash") <= 6
    assert distance(encoded(image), encoded(drawing(12, (256, 192))), "phash") > 12


def test_in_equals_out_and_workers_change_nothing(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [encoded(drawing(1)), b"broken", bomb(), encoded(drawing(2), "JPEG")[:-200]]
    for source in ("a", "b"):
        writer = ShardWriter(in_folder / "raw" / source, RAW)
        for number, data in enumerate(contents):
            pair = Pair(f"{number:064x}", data, f"{number}.png", ["x"], source)
            writer.add(pair.row(), len(data))
        writer.close()
    write_json(in_folder / "raw" / SOURCES, ["b", "a"])
    write_table(pa.Table.from_pylist([], schema=CAPTIONS), in_folder / "captions.parquet")
    for workers in ("1", "2"):
        monkeypatch.setenv("DARKROOM_WORKERS", workers)
        main(InspectParams(), in_folder / "raw", in_folder / "captions.parquet", in_folder / f"out{workers}")
    files = sorted(path.relative_to(in_folder / "out1") for path in (in_folder / "out1").rglob("*.*"))
    assert all((in_folder / "out1" / f).read_bytes() == (in_folder / "out2" / f).read_bytes() for f in files)
    table = pd.concat(pd.read_parquet(in_folder / "out1" / f) for f in files if f.suffix == ".parquet")
    assert table["code"].tolist() == ["ok", "unreadable", "bomb", "truncated"] * 2
    assert (in_folder / "out1" / SOURCES).read_bytes() == (in_folder / "raw" / SOURCES).read_bytes()
