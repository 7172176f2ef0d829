"""encode: compute once what training would repeat.

in    data/processed, models/base  finished pictures; the VAE and text encoder
out   data/latents                 the VAE's posterior of every picture, the embeddings of every
      distinct caption and of the empty one; see `stages.core.latents`
      what an earlier run computed of the same pictures and captions is taken from there
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors.torch import save_file

from stages.core.engine import progress
from stages.core.errors import StageError
from stages.core.files import file_digest, replacing, write_json
from stages.core.latents import CAPTIONS, CAPTIONS_A_SHARD, INDEX
from stages.core.pairs import read_rows, shards_below, write_table
from stages.core.sizes import by_size
from stages.core.stage import run_stage
from stages.encode.captions import Embeddings
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Picture, Posteriors

PLACE = ("shard", "row", "shard_sha256")
ROUND_TRIPS = 16  # pictures


def main(params: EncodeParams, processed: Path, base: Path, out: Path, metrics: Path) -> None:
    """Pictures first, then the captions that they use."""
    rows, pictures = read_processed(processed)
    posteriors, embeddings = Posteriors(params, base), Embeddings(params, base)
    captions = ["", *sorted({caption for row in rows for caption in row["captions"]} - {""})]
    new = {}
    with progress() as bar:
        for name, counts in (("pictures", posteriors.encode(pictures)), ("captions", embeddings.encode(captions))):
            task, new[name] = bar.add_task(name, total=None), 0
            for count in counts:
                new[name] += count
                bar.update(task, completed=new[name])
    with replacing(out) as folder:
        write_captions(embeddings, captions, folder)
        numbers = {caption: number for number, caption in enumerate(captions)}
        for row, place in zip(rows, write_pictures(posteriors, pictures, folder), strict=True):
            row.update(place, captions=[numbers[caption] for caption in row["captions"]])
        write_table(pa.Table.from_pylist(rows, schema=INDEX), folder / "index.parquet")
    cut, psnr = embeddings.count_cut(captions), posteriors.round_trip_psnr(pictures[:ROUND_TRIPS])
    write_json(metrics, {"pictures": len(rows), "captions": len(captions) - 1, "captions_cut": cut, "vae_psnr": psnr})
    print(f"{len(rows)} pictures, {len(captions) - 1} captions ({cut} cut at the model's length), VAE {psnr} dB")
    print(f"{new['pictures']} pictures and {new['captions']} captions encoded, the others known")


def read_processed(processed: Path) -> tuple[list[dict[str, Any]], list[Picture]]:
    """The index rows, captions still as text, and where each one's picture is.

    Raises StageError if there are none, or none to compare models on.
    """
    rows, pictures = [], []
    for shard in shards_below(processed):
        columns = ["image", *(name for name in INDEX.names if name not in PLACE)]
        for number, row in enumerate(read_rows([shard], columns)):
            name = sha256(row.pop("image")["bytes"]).hexdigest()
            pictures.append(Picture(row["key"], shard, number, row["width"], row["height"], name))
            rows.append(row)
    if not rows:
        raise StageError(str(processed), "holds no pictures", "run preprocess again")
    if not any(row["split"] == "validation" for row in rows):
        raise StageError("encode", "no picture is held out to compare models on", "raise clean.validation_share")
    return rows, pictures


def write_pictures(posteriors: Posteriors, pictures: list[Picture], out: Path) -> list[dict[str, Any]]:
    """A file for each size in each shard of data/processed, size after size; where each picture's row is.

    A picture that is new or gone changes its own file and, where files are numbered anew, names of others.
    """
    (out / "pictures").mkdir()
    places: list[dict[str, Any]] = [{} for _ in pictures]
    files = 0
    for members in by_size([(picture.width, picture.height) for picture in pictures]):
        parts: dict[Path, list[int]] = {}
        for number in members:
            parts.setdefault(pictures[number].shard, []).append(number)
        for numbers in parts.values():
            name = f"pictures/{files:05d}.safetensors"
            mean, std = posteriors.known([pictures[number] for number in numbers])
            save_file({"mean": mean, "std": std}, out / name)
            digest = file_digest(out / name)
            for row, number in enumerate(numbers):
                places[number] = {"shard": name, "row": row, "shard_sha256": digest}
            files += 1
    return places


def write_captions(embeddings: Embeddings, captions: list[str], out: Path) -> None:
    """Write the captions' embeddings, so many a file, and a table of them."""
    table = []
    (out / "text").mkdir()
    for start in range(0, len(captions), CAPTIONS_A_SHARD):
        chunk = captions[start : start + CAPTIONS_A_SHARD]
        path = out / f"text/{start // CAPTIONS_A_SHARD:05d}.safetensors"
        save_file(embeddings.known(chunk), path)
        digest = file_digest(path)
        table += [{"caption": caption, "shard_sha256": digest} for caption in chunk]
    write_table(pa.Table.from_pylist(table, schema=CAPTIONS), out / "captions.parquet")


if __name__ == "__main__":
    run_stage(main)
