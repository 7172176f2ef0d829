"""Copies are found as a model would draw them: through the VAE, a little other; what is new is none."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageFilter

from stages.core.latents import Latents
from stages.core.pairs import write_table
from stages.encode.params import EncodeParams
from stages.encode.run import main as encode
from stages.evaluate.copies import NEAREST, SHARE, features_of, nearest, threshold_of, told
from stages.evaluate.distances import Scale
from stages.evaluate.extractors import Autoencoder
from stages.evaluate.figures import is_close
from stages.preprocess.run import PROCESSED
from tests.conftest import ROOT
from tests.encode.rows import numbered
from tests.evaluate.emoji import emoji_pictures
from tests.evaluate.harm import noisy

BASE = ROOT / "models" / "tiny-sd"
TRAINING, HELD_OUT = 100, 60


def stored(image: Image.Image) -> dict[str, Any]:
    """As data/processed has it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {"image": {"bytes": buffer.getvalue(), "path": ""}}


def mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


class World:
    """OpenMoji: some trained on, one of them mirrored too, some held out, the rest never seen."""

    def __init__(self, folder: Path) -> None:
        self.pictures = [picture for _, picture in emoji_pictures(TRAINING + HELD_OUT + 60)]
        rows = []
        for number, picture in enumerate(self.pictures[: TRAINING + HELD_OUT]):
            split = "train" if number < TRAINING else "validation"
            rows.append(numbered(number, picture.size) | {"key": f"{number:03d}", "split": split, **stored(picture)})
        rows.insert(1, rows[0] | {"variant": 1, **stored(mirrored(self.pictures[0]))})
        self.processed = folder / "processed"
        (self.processed / "a").mkdir(parents=True)
        write_table(pa.Table.from_pylist(rows, schema=PROCESSED), self.processed / "a" / "00000.parquet")
        encode(EncodeParams(), self.processed, BASE, folder / "latents", folder / "encode.json")
        self.vae = Autoencoder(BASE)
        self.training = Latents(folder / "latents", "train")
        real = features_of(Latents(folder / "latents", "validation"), HELD_OUT)
        self.scale = Scale(real, self.vae.kinds)
        self.held_out = nearest(self.scale, self.scale.apply(real), self.training, None)

    def near(self, pictures: list[Image.Image], most: int | None = None) -> list[list[tuple[str, float]]]:
        return nearest(self.scale, self.scale.apply(self.vae.as_they_are(pictures)), self.training, most)

    def share(self, pictures: list[Image.Image]) -> float:
        threshold = threshold_of(self.held_out)
        return float(np.mean([is_close(row, threshold) for row in self.near(pictures)]))

    @torch.no_grad()
    def decoded(self, picture: Image.Image) -> Image.Image:
        """As the VAE gives it back."""
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        back = self.vae.vae(pixels).sample[0].clamp(-1, 1).add(1).mul(127.5).round().byte()
        return Image.fromarray(back.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    (folder / ".dvc").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        return World(folder)


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer)


WAYS: dict[str, Callable[[World, Image.Image], Image.Image]] = {
    "as it is": lambda _, picture: picture,
    "decoded": lambda world, picture: world.decoded(picture),
    "as a JPEG": lambda _, picture: jpeg(picture),
    "with noise": lambda _, picture: noisy(picture, 8),
    "a little blurred": lambda _, picture: picture.filter(ImageFilter.GaussianBlur(0.4)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_found(world: World, way: str) -> None:
    copies = [WAYS[way](world, picture) for picture in world.pictures[:30]]
    near = world.near(copies)
    assert np.mean([row[0][0] == f"{number:03d}" for number, row in enumerate(near)]) > 0.9
    assert world.share(copies) > 0.9


def test_a_mirrored_variant_is_that_picture(world: World) -> None:
    [row] = world.near([world.decoded(mirrored(world.pictures[0]))])
    assert row[0][0] == "000"
    assert len({key for key, _ in row}) == len(row) == NEAREST


def test_what_is_new_is_no_copy(world: World) -> None:
    assert world.share([world.decoded(picture) for picture in world.pictures[TRAINING + HELD_OUT :]]) < 0.25
    share = np.mean([is_close(row, threshold_of(world.held_out)) for row in world.held_out])
    assert share == pytest.approx(SHARE, abs=1 / HELD_OUT)


def test_the_nearest_are_sorted_and_told(world: World) -> None:
    [row] = world.near([world.pictures[7]])
    assert row[0][0] == "007"
    assert row[0][1] == pytest.approx(0, abs=1e-2)  # latents are stored in half precision
    assert [distance for _, distance in row] == sorted(distance for _, distance in row)
    [told_row] = told([world.pictures[7]], [row], world.processed)
    assert told_row[0]["key"] == "007"
    assert told_row[0]["hash_bits"] == 0
    assert all(0 < each["hash_bits"] <= 64 for each in told_row[1:])


def test_few_training_pictures_are_drawn_by_key(world: World) -> None:
    rows = world.near(world.pictures[:20], most=5)
    assert len({key for row in rows for key, _ in row}) <= 5


def test_no_training_picture_no_copy() -> None:
    assert threshold_of([[] for _ in range(3)]) is None
    assert not is_close([], 1.0)
    assert not is_close([("a", 0.0)], None)
