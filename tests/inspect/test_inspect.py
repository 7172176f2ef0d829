"""A row for every picture, with figures that mean what they say."""

import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from stages.core.files import write_json
from stages.core.pairs import CAPTIONS, RAW, SOURCES, Pair, ShardWriter, write_table
from stages.core.pictures import SHOWN
from stages.inspect.captions import measure_caption
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
    ramp = np.tile(np.arange(9, dtype=np.uint8), (7, 1))
    assert sharpness(ramp) == 0
    point = np.zeros((5, 5), dtype=np.uint8)
    point[2, 2] = 1
    # The 3 x 3 inside holds one -4 and four 1s: mean 0, mean square 20 / 9.
    assert sharpness(point) == pytest.approx(20 / 9)
    assert sharpness(np.zeros((2, 9), dtype=np.uint8)) == 0


def test_blur_lowers_sharpness_step_by_step() -> None:
    image = drawing(5).convert("L")
    values = [sharpness(np.asarray(image.filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    noise = Image.effect_noise((64, 64), 90)
    assert entropy(np.array(noise.histogram())) > entropy(np.array(image.histogram()))


def test_hashes_survive_what_people_do_to_pictures() -> None:
    def distance(a: bytes, b: bytes, name: str) -> int:
        one, two = (int(getattr(measure(data, WHITE, MOST), name), 16) for data in (a, b))
        return (one ^ two).bit_count()

    image = drawing(11, (256, 192))
    for other in (encoded(image, "JPEG", quality=60), encoded(image.resize((128, 96))), rotated_by_exif(image)):
        assert distance(encoded(image), other, "phash") <= 6
        assert distance(encoded(image), other, "dhash") <= 6
    assert distance(encoded(image), encoded(drawing(12, (256, 192))), "phash") > 12


def test_mirrored_hashes_are_those_of_the_mirrored_picture() -> None:
    image = drawing(6, (300, 200))
    one = measure(encoded(image), WHITE, MOST)
    other = measure(encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), WHITE, MOST)
    assert (one.phash, one.dhash) == (other.phash_mirrored, other.dhash_mirrored)
    assert (one.phash_mirrored, one.dhash_mirrored) == (other.phash, other.dhash)
    assert one.pixels != other.pixels
    assert one.pixels == measure(encoded(image, "WEBP", lossless=True), WHITE, MOST).pixels


def test_border_and_saturation() -> None:
    framed = Image.new("RGB", (100, 50), (0, 0, 0))
    framed.paste(Image.effect_noise((80, 30), 90).convert("RGB"), (10, 10))
    measured = measure(encoded(framed), WHITE, MOST)
    assert measured.border == pytest.approx(1 - 80 * 30 / 5000, abs=0.02)
    assert measured.saturation == 0
    assert measure(encoded(Image.new("RGB", (9, 9), (255, 0, 0))), WHITE, MOST).saturation == 1
    assert measure(encoded(Image.new("RGB", (9, 9), (255, 0, 0))), WHITE, MOST).border == 1


@pytest.mark.parametrize(
    ("caption", "language", "flags"),
    [
        ("ein Foto von einem Hund im Park", "de", []),
        ("a photo of a small brown bird on a branch", "en", []),
        ("красное яблоко на столе", "ru", []),
        ("1234", None, []),
        ("cats &amp; dogs at http://example.org", "en", ["url", "entity"]),
        ("cafÃ© noir avec du lait", "fr", ["mojibake"]),
        ("photo 12.png", "en", []),
        ("photo_12.png", "en", ["file_name"]),
    ],
)
def test_captions(caption: str, language: str | None, flags: list[str]) -> None:
    measured = measure_caption(caption)
    assert measured.flags == flags
    assert measured.words == len(caption.split())
    if measured.confidence > 0.8 or language is None:
        assert measured.language == language


def raw_shards(folder: Path, contents: dict[str, bytes]) -> None:
    """data/raw of one source, as collect writes it."""
    writer = ShardWriter(folder / "raw" / "a", RAW)
    for name, data in contents.items():
        writer.add(Pair(sha256(data).hexdigest(), data, name, ["two words"], "a").row(), len(data))
    writer.close()
    write_json(folder / "raw" / SOURCES, ["a"])
    write_table(pa.Table.from_pylist([], schema=CAPTIONS), folder / "captions.parquet")


def mutations(random: np.random.Generator) -> dict[str, bytes]:
    """300 broken pictures: cut at every tenth, bits flipped, wrong headers, zeros, bombs."""
    image, wrong = drawing(9, (60, 40)), {"bomb": bomb(), "empty": b"", "zeros": bytes(999)}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = encoded(image, kind)
        for tenth in range(1, 10):
            wrong[f"{kind} cut {tenth}"] = whole[: len(whole) * tenth // 10]
            wrong[f"{kind} cut at the front {tenth}"] = whole[len(whole) * tenth // 10 :]
        for number in range(31):
            flipped = bytearray(whole)
            for place in random.integers(0, len(whole), 1 + number):
                flipped[place] ^= 1 << int(random.integers(8))
            wrong[f"{kind} flipped {number}"] = bytes(flipped)
        wrong[f"{kind} header"] = b"\x89PNG\r\n\x1a\n" + whole[8:]
    return wrong


def test_broken_pictures_are_rows(in_folder: Path) -> None:
    (in_folder / ".dvc").mkdir()
    broken = mutations(np.random.default_rng(0))
    assert len(broken) >= 300
    raw_shards(in_folder, broken)
    main(InspectParams(), in_folder / "raw", in_folder / "captions.parquet", in_folder / "out")
    table = pd.concat(pd.read_parquet(path) for path in sorted((in_folder / "out" / "a").glob("*.parquet")))
    assert len(table) == len(broken)
    assert {"ok", "truncated", "unreadable", "bomb"} <= set(table["code"])
    assert (table["phash"].notna() == table["code"].isin(SHOWN)).all()


def test_what_was_measured_is_not_measured_again(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_folder / ".dvc").mkdir()
    monkeypatch.setenv("DARKROOM_WORKERS", "1")
    contents = {f"{seed}.png": encoded(drawing(seed)) for seed in range(20)}
    for number, count in enumerate((15, 20)):
        raw_shards(in_folder, dict(list(contents.items())[:count]))
        main(InspectParams(), in_folder / "raw", in_folder / "captions.parquet", in_folder / f"out{number}")
    assert "15 measured, the others known" in (told := capsys.readouterr().out)
    assert "5 measured, the others known" in told
    shutil.rmtree(in_folder / ".dvc" / "tmp")
    main(InspectParams(), in_folder / "raw", in_folder / "captions.parquet", in_folder / "afresh")
    for path in sorted((in_folder / "afresh").rglob("*.*")):
        assert path.read_bytes() == (in_folder / "out1" / path.relative_to(in_folder / "afresh")).read_bytes()
    main(InspectParams(background=[0, 0, 0]), in_folder / "raw", in_folder / "captions.parquet", in_folder / "black")
    assert "20 pictures: 20 ok; 20 measured" in capsys.readouterr().out  # other params: nothing is known


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
        (in_folder / f"root{workers}" / ".dvc").mkdir(parents=True)  # nothing is known there yet
        monkeypatch.setenv("DVC_ROOT", str(in_folder / f"root{workers}"))
        monkeypatch.setenv("DARKROOM_WORKERS", workers)
        main(InspectParams(), in_folder / "raw", in_folder / "captions.parquet", in_folder / f"out{workers}")
    files = sorted(path.relative_to(in_folder / "out1") for path in (in_folder / "out1").rglob("*.*"))
    assert all((in_folder / "out1" / f).read_bytes() == (in_folder / "out2" / f).read_bytes() for f in files)
    table = pd.concat(pd.read_parquet(in_folder / "out1" / f) for f in files if f.suffix == ".parquet")
    assert table["code"].tolist() == ["ok", "unreadable", "bomb", "truncated"] * 2
    assert (in_folder / "out1" / SOURCES).read_bytes() == (in_folder / "raw" / SOURCES).read_bytes()
