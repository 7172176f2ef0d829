"""inspect: measure every picture and every caption once.

in    data/raw         pictures and captions
      data/captions.parquet  captions written for those that had none
out   data/inspected   <source>/<n>.parquet, a row a row of data/raw: where it stands,
      what its source says of it, and what picture and captions measure
"""

import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from stages.core import pictures
from stages.core.engine import map_shards
from stages.core.exchange import Files
from stages.core.files import file_digest, replacing, scratch
from stages.core.pairs import CAPTIONS, RAW, SOURCES, read_rows, shards_below, write_table
from stages.core.reuse import Reuse
from stages.core.stage import run_stage
from stages.inspect import measures
from stages.inspect.captions import measure_caption
from stages.inspect.params import InspectParams

CAPTION = pa.struct(
    [
        ("words", pa.int64()),
        ("characters", pa.int64()),
        ("language", pa.string()),
        ("confidence", pa.float64()),
        ("flags", pa.list_(pa.string())),
    ]
)
MEASURED = pa.schema(
    [("shard", pa.string()), ("row", pa.int64())]
    + [column for column in RAW if column.name != "image"]
    + [("captions_by", pa.string())]  # source or model; null where there are none
    + [("measured_captions", pa.list_(CAPTION))]  # one for each of captions
    + [(name, pa.string()) for name in ("code", "format", "mode", "profile")]
    + [("transparent", pa.float64()), ("width", pa.int64()), ("height", pa.int64())]
    + [(name, pa.string()) for name in ("pixels", "phash", "dhash", "phash_mirrored", "dhash_mirrored", "hash_version")]
    + [(name, pa.float64()) for name in ("sharpness", "brightness", "contrast", "saturation", "entropy", "border")]
)


def main(params: InspectParams, raw: Path, captions: Path, out: Path) -> None:
    """Measure shard by shard; what was measured of a picture in an earlier run is taken from there."""
    shards = shards_below(raw)
    written = {row["key"]: row["caption"] for row in read_rows([captions], CAPTIONS.names)}
    reuse = Reuse(scratch("inspect") / f"{made_of(params)}.sqlite")
    codes: Counter[str] = Counter()
    measured = 0
    with replacing(out) as folder:
        tasks = (task_of(shard, reuse, written) for shard in shards)
        files = Files[Task](lambda task: [task.shard], lambda task: [folder / task.shard.relative_to(raw)])
        measure = partial(inspect_shard, params, raw, folder)
        for counted, new in map_shards(measure, tasks, "inspect", len(shards), files=files):
            codes.update(counted)
            reuse.put(new)
            measured += len(new)
        shutil.copyfile(raw / SOURCES, folder / SOURCES)
    said = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
    print(f"{codes.total()} pictures: {said}; {measured} measured, the others known")


def made_of(params: InspectParams) -> str:
    """What a picture's measures depend on beside its bytes: params, code and libraries."""
    code = [file_digest(Path(str(module.__file__))) for module in (measures, pictures)]
    return sha256("\n".join([params.model_dump_json(), measures.HASH_VERSION, *code]).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Task:
    """A shard, what is known of its pictures and which captions a model wrote for them, both by key."""

    shard: Path
    known: dict[str, bytes]
    written: dict[str, str]


def task_of(shard: Path, reuse: Reuse, written: dict[str, str]) -> Task:
    """Made where the stage runs: machines that share its disk over a network must not share an SQLite file."""
    keys = [row["key"] for row in read_rows([shard], ["key"])]
    return Task(shard, reuse.get(keys), {key: written[key] for key in keys if key in written})


def inspect_shard(params: InspectParams, raw: Path, out: Path, task: Task) -> tuple[Counter[str], dict[str, bytes]]:
    """Measure one shard; give back how many rows have which decode code, and the measures that are new, by key."""
    known = dict(task.known)
    name = task.shard.relative_to(raw)
    red, green, blue = params.background
    rows, new = [], {}
    for number, row in enumerate(read_rows([task.shard], RAW.names)):
        key, image = row["key"], row.pop("image")
        if key not in known:
            measured = measures.measure(image["bytes"], (red, green, blue), params.most_pixels)
            known[key] = new[key] = json.dumps(asdict(measured)).encode()
        by = "source" if row["captions"] else "model" if key in task.written else None
        if by == "model":
            row["captions"] = [task.written[key]]
        of_captions = [asdict(measure_caption(caption)) for caption in row["captions"]]
        place = {"shard": name.as_posix(), "row": number, "captions_by": by, "measured_captions": of_captions}
        rows.append({**row, **place, **json.loads(known[key])})
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist(rows, schema=MEASURED), path)
    return Counter(str(row["code"]) for row in rows), new


if __name__ == "__main__":
    run_stage(main)
