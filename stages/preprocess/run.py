"""preprocess: make finished pictures of the kept ones.

in    data/raw, data/clean  pictures; which of them, with which captions and split
out   data/processed        <source>/<n>.parquet, a row a key and variant
      kept pictures = variant 0 rows + those left out because they are too small
"""

import io
from collections import Counter
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.files import replacing, write_json
from stages.core.pairs import IMAGE, write_table
from stages.core.pictures import decode
from stages.core.stage import run_stage
from stages.preprocess.params import PreprocessParams
from stages.preprocess.transform import fit_square, variants

PROCESSED = pa.schema(
    [("key", pa.string()), ("variant", pa.int64()), ("image", IMAGE)]
    + [(name, pa.int64()) for name in ("width", "height", "crop_x", "crop_y", "original_width", "original_height")]
    + [("captions", pa.list_(pa.string())), ("split", pa.string()), ("role", pa.string()), ("repeats", pa.int64())]
)


def main(params: PreprocessParams, raw: Path, clean: Path, out: Path, metrics: Path) -> None:
    """Transform shard by shard: only the kept rows of each are read from it."""
    manifest = pd.read_parquet(clean / "manifest.parquet")
    tasks = [(str(shard), rows.sort_values("row")) for shard, rows in manifest.groupby("shard")]
    counts: Counter[str] = Counter()
    with replacing(out) as folder:
        for counted in map_shards(partial(preprocess_shard, params, raw, folder), tasks, "preprocess"):
            counts.update(counted)
        if not counts["rows"]:
            raise StageError(
                "preprocess",
                f"none of {len(manifest)} pictures is large enough for {params.resolution} px",
                "lower preprocess.resolution or raise preprocess.max_upscale",
            )
    names = ("rows", "too_small", "train", "validation")
    write_json(metrics, {"pictures": len(manifest), **{name: counts[name] for name in names}})
    print(f"{len(manifest)} pictures: {counts['rows']} rows with variants, {counts['too_small']} too small")


def preprocess_shard(params: PreprocessParams, raw: Path, out: Path, task: tuple[str, pd.DataFrame]) -> Counter[str]:
    """Finish one shard's kept pictures; give back how many rows, how many pictures too small and in each split."""
    name, wanted = task
    red, green, blue = params.background
    images = pq.read_table(raw / name, columns=["image"]).take(wanted["row"].to_list())
    rows, too_small = [], 0
    for pair, image in zip(wanted.to_dict("records"), images.column("image"), strict=True):
        picture = decode(image["bytes"].as_py(), (red, green, blue), params.most_pixels)
        if picture.image is None:
            raise StageError(f"data/raw/{name}", f"picture {pair['key']} can't be decoded here", "run inspect again")
        fitted = fit_square(params, picture.image)
        if fitted is None:
            too_small += 1
            continue
        finished, crop = fitted
        captions = list(pair["captions"])
        for variant, shown in enumerate(variants(params, finished, captions)):
            rows.append(
                {
                    "key": pair["key"],
                    "variant": variant,
                    "image": {"bytes": _png(shown), "path": f"{pair['key']}-{variant}.png"},
                    "width": shown.width,
                    "height": shown.height,
                    "crop_x": crop.x,
                    "crop_y": crop.y,
                    "original_width": picture.image.width,
                    "original_height": picture.image.height,
                    "captions": captions,
                    **{name: pair[name] for name in ("split", "role", "repeats")},
                }
            )
    if rows:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(pa.Table.from_pylist(rows, schema=PROCESSED), path)
    splits = Counter(row["split"] for row in rows if row["variant"] == 0)
    return Counter(rows=len(rows), too_small=too_small) + splits


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # lossless, and fast to write and read
    return buffer.getvalue()


if __name__ == "__main__":
    run_stage(main)
