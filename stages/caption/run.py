"""caption: have a model describe the pictures that came without a caption, if params name one.

in    data/raw, models/imported  pictures; perhaps the model
out   data/captions.parquet      key and caption of each picture that had none; `inspect` says which these are
"""

from itertools import islice
from pathlib import Path

import pyarrow as pa

from stages.caption.params import CaptionParams
from stages.core.engine import progress
from stages.core.files import replacing, write_json
from stages.core.gpus import leased
from stages.core.pairs import CAPTIONS, read_rows, shards_below, write_table
from stages.core.pictures import decode
from stages.core.stage import run_stage

WHITE = (255, 255, 255)


def main(params: CaptionParams, raw: Path, imported: Path, out: Path, metrics: Path) -> None:
    """Write a caption for each picture without one, in the order of the shards."""
    place = params.place(imported)
    shards = shards_below(raw)
    missing = sum(not row["captions"] for row in read_rows(shards, ["captions"]))
    written = describe(params, place, shards) if place and missing else []
    with replacing(out) as temporary:
        write_table(pa.Table.from_pylist(written, schema=CAPTIONS), temporary)
    write_json(metrics, {"without_caption": missing, "captioned": len(written)})
    print(f"{missing} pictures without caption, {len(written)} captioned" + (f" by {params.model}" if place else ""))


def describe(params: CaptionParams, place: tuple[str, str | None], shards: list[Path]) -> list[dict[str, str]]:
    """A row a picture without caption that can be decoded, and of which the model says something."""
    from stages.caption.captioner import Captioner  # here: torch takes seconds that most runs don't need

    captioner, written = Captioner(params, *place), []
    with progress() as bar:
        for shard in bar.track(shards, description="caption"):
            rows = (row for row in read_rows([shard], ["key", "captions", "image"]) if not row["captions"])
            while batch := list(islice(rows, params.batch_size)):
                decoded = {row["key"]: decode(row["image"]["bytes"], WHITE, params.most_pixels).image for row in batch}
                pictures = {key: image for key, image in decoded.items() if image is not None}
                texts = captioner.describe(list(pictures.values())) if pictures else []
                written += [{"key": key, "caption": text} for key, text in zip(pictures, texts, strict=True) if text]
    return written


if __name__ == "__main__":
    run_stage(main, lambda params, **_: leased(1 if params.model else 0))
