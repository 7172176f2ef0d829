"""data/raw and data/clean in small, and the stage run on them."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.clean.run import MANIFEST
from stages.core.pairs import RAW, Pair, ShardWriter, shards_below, write_table
from stages.preprocess.params import PreprocessParams
from stages.preprocess.run import main
from tests.pictures import drawing, encoded


def make(folder: Path, pictures: list[bytes], kept: list[int], validation: tuple[int, ...] = ()) -> None:
    """data/raw in several shards, and data/clean that keeps some."""
    writer = ShardWriter(folder / "raw" / "a", RAW)
    for number, data in enumerate(pictures):
        writer.add(Pair(f"{number:064x}", data, f"{number}.png", ["x"], "a").row(), 1)
        if number % 3 == 2:
            writer.close()
    writer.close()
    found = [
        {
            "key": row.key,
            "source": "a",
            "shard": path.relative_to(folder / "raw").as_posix(),
            "row": place,
            "captions": ["a left hand"],
            "split": "validation" if int(row.key, 16) in validation else "train",
            "role": "train",
            "repeats": 1,
        }
        for path in shards_below(folder / "raw")
        for place, row in enumerate(pd.read_parquet(path, columns=["key"]).itertuples())
    ]
    (folder / "clean").mkdir()
    chosen = [row for row in found if int(row["key"], 16) in kept]
    write_table(pa.Table.from_pylist(chosen, schema=MANIFEST), folder / "clean" / "manifest.parquet")


def preprocess(folder: Path, out: str = "out", **values: object) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the stage on what `make` made: its rows and its figures."""
    wanted = PreprocessParams.model_validate({"resolution": 32, **values})
    main(wanted, *(folder / name for name in ("raw", "clean", "conditions", out, "m.json")))
    tables = [pq.read_table(path).to_pandas() for path in shards_below(folder / out)]
    return pd.concat(tables, ignore_index=True), json.loads((folder / "m.json").read_text())


def opened(row: Any) -> Image.Image:
    return Image.open(io.BytesIO(row["image"]["bytes"]))


def drawings(*sizes: tuple[int, int]) -> list[bytes]:
    return [encoded(drawing(number, size)) for number, size in enumerate(sizes)]
