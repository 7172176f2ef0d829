"""data/processed of drawn pictures, and the stage on it."""

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.core.files import file_digest, folder_digest
from stages.core.pairs import write_table
from stages.encode.params import EncodeParams
from stages.encode.run import main
from stages.preprocess.run import CONDITIONS, PROCESSED
from tests.pictures import drawing, encoded

SMALL = EncodeParams(batch_size=4)


def numbered(number: int, size: tuple[int, int] = (32, 32), caption: str = "a fox") -> dict[str, Any]:
    return {
        "key": f"{number:02d}",
        "variant": 0,
        "image": {"bytes": encoded(drawing(number, size)), "path": ""},
        "width": size[0],
        "height": size[1],
        **dict.fromkeys(("original_width", "original_height"), 64),
        **dict.fromkeys(("crop_x", "crop_y"), -1),
        "captions": [caption],
        "split": "validation" if number == 0 else "train",
        "role": "train",
        "repeats": 1,
    }


def lay(folder: Path, rows: list[dict[str, Any]], per_shard: int = 6) -> Path:
    """Shards of so many rows, with conditions if the first row has the column."""
    (folder / "a").mkdir(parents=True)
    schema = PROCESSED.append(CONDITIONS) if "conditions" in rows[0] else PROCESSED
    for number in range(0, len(rows), per_shard):
        table = pa.Table.from_pylist(rows[number : number + per_shard], schema=schema)
        write_table(table, folder / "a" / f"{number:05d}.parquet")
    return folder


def in_turn(processed: Path, base: Path, out: Path, params: EncodeParams = SMALL) -> tuple[str, str]:
    """A digest of latents and metrics, and what was said of what is new."""
    said = io.StringIO()
    with redirect_stdout(said):
        main(params, processed, base, out, out.with_suffix(".json"))
    return folder_digest(out) + file_digest(out.with_suffix(".json")), said.getvalue().splitlines()[-1]
