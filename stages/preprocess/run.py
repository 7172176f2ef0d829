"""preprocess: make finished pictures of the kept ones.

in    data/raw, data/clean  pictures; which of them, with which captions and split
out   data/processed        <source>/<n>.parquet, a row a key and variant
      kept pictures = variant 0 rows + those left out because they are too small
      variant 1 is the mirror image; from 2 on they are drawn, of training pictures only
"""

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pyarrow as pa
from PIL import Image

from stages.core.conditions import make_condition
from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.exchange import Files
from stages.core.files import replacing, write_json
from stages.core.pairs import IMAGE, read_images, write_rows
from stages.core.stage import run_stage
from stages.preprocess.buckets import Size, nearest_bucket
from stages.preprocess.conditions import REASONS, open_given
from stages.preprocess.counted import Counted
from stages.preprocess.given import folder_of, is_given
from stages.preprocess.params import PreprocessParams
from stages.preprocess.transform import Upright, fit_frame, frames, least_side, open_picture
from stages.preprocess.variants import Variant, drawn, mirrored, most_zoom, without_jitter

Wanted = tuple[str, pd.DataFrame]  # a shard's name, and the rows of the manifest that are in it

PROCESSED = pa.schema(
    [("key", pa.string()), ("variant", pa.int64()), ("image", IMAGE)]
    + [(name, pa.int64()) for name in ("width", "height", "crop_x", "crop_y", "original_width", "original_height")]
    + [("captions", pa.list_(pa.string())), ("split", pa.string()), ("role", pa.string()), ("repeats", pa.int64())]
)
# Only where conditions are asked for.
CONDITIONS = pa.field("conditions", pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.binary())])))


def main(params: PreprocessParams, raw: Path, clean: Path, conditions: Path, out: Path, metrics: Path) -> None:
    """Transform shard by shard: only the kept rows of each are read from it."""
    manifest = pd.read_parquet(clean / "manifest.parquet")
    params.verify(conditions, sorted(set(manifest["source"])))
    tasks = [(str(shard), rows.sort_values("row")) for shard, rows in manifest.groupby("shard")]
    total = Counted()
    with replacing(out) as folder:
        given = [folder_of(conditions, name) for name in params.conditions if is_given(name)]
        files = Files[Wanted](lambda task: [raw / task[0]], lambda task: [folder / task[0]], given)
        finish = partial(preprocess_shard, params, raw, conditions, folder)
        for counted in map_shards(finish, tasks, "preprocess", files=files):
            total.merge(counted)
        if not total.names["rows"]:
            _refuse_nothing(params, len(manifest), total)
    write_json(metrics, {"pictures": len(manifest), **total.figures(params)})
    small, lacking = total.names["too_small"], total.names["without_condition"]
    said = f", {lacking} without a condition" if lacking else ""
    print(f"{len(manifest)} pictures: {total.names['rows']} rows with variants, {small} too small{said}")


def preprocess_shard(params: PreprocessParams, raw: Path, conditions: Path, out: Path, task: Wanted) -> Counted:
    """Finish one shard's kept pictures and count what came of them."""
    counted = Counted()
    schema = PROCESSED.append(CONDITIONS) if params.conditions else PROCESSED
    write_rows(finished_rows(params, raw, conditions, task, counted), schema, out / task[0])
    return counted


def finished_rows(
    params: PreprocessParams, raw: Path, conditions: Path, task: Wanted, counted: Counted
) -> Iterator[tuple[dict[str, Any], int]]:
    """A shard's rows, each with its size in bytes. Memory holds one picture and one of its variants."""
    name, wanted = task
    table = frames(params)
    least = least_side(table, most_zoom(params.augment, table))
    images = read_images(raw / name, wanted["row"].to_list())
    for pair, image in zip(wanted.to_dict("records"), images, strict=True):
        upright = open_picture(params, image["bytes"], least)
        if upright is None:
            raise StageError(f"data/raw/{name}", f"picture {pair['key']} can't be decoded here", "run inspect again")
        given, reasons = open_given(params, conditions, pair["source"], image["path"], upright.size, least)
        if reasons:
            counted.lack(reasons, f"{pair['source']}/{image['path']}")
            continue
        key, captions, split = pair["key"], list(pair["captions"]), pair["split"]
        # A condition goes the way of its picture, but for the colours.
        ways = [(params, upright), *((without_jitter(params), condition) for condition in given)]
        made = 0
        for variant, *others in zip(*(finish(*way, table, key, captions, split) for way in ways), strict=True):
            counted.add(variant, split)
            row = _row(params, key, variant, [other.image for other in others])
            row |= {"original_width": upright.size[0], "original_height": upright.size[1]}
            row |= {column: pair[column] for column in ("split", "role", "repeats")}
            yield row, len(row["image"]["bytes"]) + sum(len(one["bytes"]) for one in row["conditions"])
            made += 1
        counted.names["too_small"] += not made


def finish(
    params: PreprocessParams, upright: Upright, table: list[Size], key: str, captions: list[str], split: str
) -> Iterator[Variant]:
    """A picture's variants, none if it is too small. Held-out pictures are not drawn from: they measure."""
    frame = nearest_bucket(table, upright.size)
    fitted = fit_frame(params, upright, frame)
    if fitted is None:
        return
    plain = Variant(0, *fitted, captions)
    yield plain
    yield from mirrored(params, plain)
    if split == "train":
        yield from (replace(variant, captions=captions) for variant in drawn(params, upright, frame, key))


def _refuse_nothing(params: PreprocessParams, pictures: int, counted: Counted) -> NoReturn:
    """Training must not start on nothing."""
    if counted.lacking:
        (name, reason), count = counted.lacking.most_common(1)[0]
        raise StageError(
            "preprocess",
            f"none of {pictures} pictures is left: of {count} the condition {name} is {REASONS[reason]}, first of "
            f"{counted.first[name, reason]}",
            "name your files as docs/guide.md says, under Pictures for a ControlNet",
        )
    raise StageError(
        "preprocess",
        f"none of {pictures} pictures is large enough for {params.resolution} px",
        "lower preprocess.resolution or raise preprocess.max_upscale",
    )


def _row(params: PreprocessParams, key: str, variant: Variant, given: list[Image.Image]) -> dict[str, Any]:
    """given: the finished conditions from folders, in the order of their names in params."""
    theirs = iter(given)
    conditions = [
        {"name": name, "bytes": _png(next(theirs) if is_given(name) else make_condition(name, variant.image))}
        for name in params.conditions
    ]
    return {
        "key": key,
        "variant": variant.number,
        "image": {"bytes": _png(variant.image), "path": f"{key}-{variant.number}.png"},
        "width": variant.image.width,
        "height": variant.image.height,
        "crop_x": variant.crop.x,
        "crop_y": variant.crop.y,
        "captions": variant.captions,
        "conditions": conditions,
    }


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)  # lossless, and fast to write and read
    return buffer.getvalue()


if __name__ == "__main__":
    run_stage(main)
