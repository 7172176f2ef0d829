"""preprocess: make finished pictures of the kept ones.

in    data/raw, data/clean  pictures; which of them, with which captions and split
out   data/processed        <source>/<n>.parquet, a row a key and variant
      kept pictures = variant 0 rows + those left out because they are too small
      variant 1 is the mirror image; from 2 on they are drawn, of training pictures only
"""

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.files import replacing, write_json
from stages.core.pairs import IMAGE, write_table
from stages.core.pictures import Picture, decode
from stages.core.stage import run_stage
from stages.preprocess.buckets import Size, nearest_bucket
from stages.preprocess.conditions import make_condition
from stages.preprocess.counted import Counted
from stages.preprocess.params import PreprocessParams
from stages.preprocess.transform import fit_frame, frames, least_side
from stages.preprocess.variants import Variant, drawn, mirrored, most_zoom

PROCESSED = pa.schema(
    [("key", pa.string()), ("variant", pa.int64()), ("image", IMAGE)]
    + [(name, pa.int64()) for name in ("width", "height", "crop_x", "crop_y", "original_width", "original_height")]
    + [("captions", pa.list_(pa.string())), ("split", pa.string()), ("role", pa.string()), ("repeats", pa.int64())]
)
# Only where conditions are asked for.
CONDITIONS = pa.field("conditions", pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.binary())])))


def main(params: PreprocessParams, raw: Path, clean: Path, out: Path, metrics: Path) -> None:
    """Transform shard by shard: only the kept rows of each are read from it."""
    manifest = pd.read_parquet(clean / "manifest.parquet")
    tasks = [(str(shard), rows.sort_values("row")) for shard, rows in manifest.groupby("shard")]
    total = Counted()
    with replacing(out) as folder:
        for counted in map_shards(partial(preprocess_shard, params, raw, folder), tasks, "preprocess"):
            total.merge(counted)
        if not total.names["rows"]:
            raise StageError(
                "preprocess",
                f"none of {len(manifest)} pictures is large enough for {params.resolution} px",
                "lower preprocess.resolution or raise preprocess.max_upscale",
            )
    write_json(metrics, {"pictures": len(manifest), **total.figures(params)})
    print(f"{len(manifest)} pictures: {total.names['rows']} rows with variants, {total.names['too_small']} too small")


def preprocess_shard(params: PreprocessParams, raw: Path, out: Path, task: tuple[str, pd.DataFrame]) -> Counted:
    """Finish one shard's kept pictures and count what came of them."""
    name, wanted = task
    red, green, blue = params.background
    table = frames(params)
    least = least_side(table, most_zoom(params.augment, table))
    images = pq.read_table(raw / name, columns=["image"]).take(wanted["row"].to_list())
    counted, rows = Counted(), []
    for pair, image in zip(wanted.to_dict("records"), images.column("image"), strict=True):
        picture = decode(image["bytes"].as_py(), (red, green, blue), params.most_pixels, least=least)
        if picture.image is None:
            raise StageError(f"data/raw/{name}", f"picture {pair['key']} can't be decoded here", "run inspect again")
        shown = finish(params, table, picture, pair["key"], list(pair["captions"]), pair["split"])
        counted.add(params, shown, pair["split"])
        same = {
            "key": pair["key"],
            "original_width": picture.width,
            "original_height": picture.height,
            **{column: pair[column] for column in ("split", "role", "repeats")},
        }
        rows += [{**same, **_row(params, pair["key"], variant)} for variant in shown]
    if rows:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = PROCESSED.append(CONDITIONS) if params.conditions else PROCESSED
        write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return counted


def finish(
    params: PreprocessParams, table: list[Size], picture: Picture, key: str, captions: list[str], split: str
) -> list[Variant]:
    """A picture's variants, none if it is too small. Held-out pictures are not drawn from: they measure."""
    if picture.image is None:
        return []
    size = (picture.width, picture.height)
    frame = nearest_bucket(table, size)
    fitted = fit_frame(params, picture.image, size, frame)
    if fitted is None:
        return []
    plain = Variant(0, *fitted, captions)
    further = drawn(params, picture.image, size, frame, key) if split == "train" else iter(())
    return [plain, *mirrored(params, plain), *(replace(variant, captions=captions) for variant in further)]


def _row(params: PreprocessParams, key: str, variant: Variant) -> dict[str, Any]:
    made = [{"name": name, "bytes": _png(make_condition(name, variant.image))} for name in params.conditions]
    return {
        "variant": variant.number,
        "image": {"bytes": _png(variant.image), "path": f"{key}-{variant.number}.png"},
        "width": variant.image.width,
        "height": variant.image.height,
        "crop_x": variant.crop.x,
        "crop_y": variant.crop.y,
        "captions": variant.captions,
        "conditions": made,
    }


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # lossless, and fast to write and read
    return buffer.getvalue()


if __name__ == "__main__":
    run_stage(main)
