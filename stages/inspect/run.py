"""inspect: measure every picture once.

in    data/raw         pictures and captions
      data/captions.parquet  captions written for those that had none
out   data/inspected   <source>/<n>.parquet, a row a row of data/raw: where it stands,
      what its source says of it, and what it measures
"""

import shutil
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pyarrow as pa

from stages.core.engine import map_shards
from stages.core.files import replacing
from stages.core.pairs import CAPTIONS, RAW, SOURCES, read_rows, shards_below, write_table
from stages.core.stage import run_stage
from stages.inspect.measures import measure
from stages.inspect.params import InspectParams

MEASURED = pa.schema(
    [("shard", pa.string()), ("row", pa.int64())]
    + [column for column in RAW if column.name != "image"]
    + [("captions_by", pa.string())]  # source or model; null where there are none
    + [(name, pa.string()) for name in ("code", "format", "mode")]
    + [("transparent", pa.float64()), ("width", pa.int64()), ("height", pa.int64())]
    + [(name, pa.string()) for name in ("phash", "dhash", "hash_version")]
    + [(name, pa.float64()) for name in ("sharpness", "brightness", "contrast", "entropy")]
)


def main(params: InspectParams, raw: Path, captions: Path, out: Path) -> None:
    """Measure shard by shard."""
    shards = shards_below(raw)
    written = {row["key"]: row["caption"] for row in read_rows([captions], CAPTIONS.names)}
    codes: Counter[str] = Counter()
    with replacing(out) as folder:
        for counted in map_shards(partial(inspect_shard, params, raw, written, folder), shards, "inspect"):
            codes.update(counted)
        shutil.copyfile(raw / SOURCES, folder / SOURCES)
    print(f"{codes.total()} pictures: {', '.join(f'{count} {code}' for code, count in sorted(codes.items()))}")


def inspect_shard(params: InspectParams, raw: Path, written: dict[str, str], out: Path, shard: Path) -> Counter[str]:
    """Measure one shard; give back how many rows have which decode code."""
    name = shard.relative_to(raw)
    red, green, blue = params.background
    rows = []
    for number, row in enumerate(read_rows([shard], RAW.names)):
        image = row.pop("image")
        by = "source" if row["captions"] else "model" if row["key"] in written else None
        if by == "model":
            row["captions"] = [written[row["key"]]]
        measures = measure(image["bytes"], (red, green, blue), params.most_pixels)
        rows.append({"shard": name.as_posix(), "row": number, **row, "captions_by": by, **asdict(measures)})
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist(rows, schema=MEASURED), path)
    return Counter(str(row["code"]) for row in rows)


if __name__ == "__main__":
    run_stage(main)
