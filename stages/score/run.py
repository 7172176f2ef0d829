"""score: have models judge pictures and captions, if params name some.

in    data/raw, data/captions.parquet  pictures and captions
      models/imported, models/tiny-sd  perhaps the models
out   data/scores.parquet  a row a picture that can be decoded: how similar each of its captions is by CLIP,
      and one column a classifier; no row where nothing is asked
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.core.engine import progress
from stages.core.files import replacing, scratch
from stages.core.gpus import leased
from stages.core.pairs import CAPTIONS, read_rows, shards_below, write_table
from stages.core.pictures import decode
from stages.core.reuse import Reuse
from stages.core.stage import run_stage
from stages.score.params import ScoreParams

WHITE = (255, 255, 255)


def main(params: ScoreParams, raw: Path, captions: Path, imported: Path, shipped: Path, out: Path) -> None:
    """Score shard by shard; what was scored in an earlier run is taken from there."""
    columns = [("similarities", pa.list_(pa.float64()))] if params.clip else []
    columns += [(name, pa.float64()) for name in params.classifiers]
    rows = list(score(params, raw, captions, imported, shipped)) if columns else []
    schema = pa.schema([("source", pa.string()), ("key", pa.string()), *columns])
    with replacing(out) as temporary:
        write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
    print(f"{len(rows)} pictures scored" + "".join(f", {name}" for name, _ in columns))


def score(params: ScoreParams, raw: Path, captions: Path, imported: Path, shipped: Path) -> Iterator[dict[str, Any]]:
    """A row a picture, in the order of the shards."""
    from stages.score.judges import judges_of  # here: torch takes seconds that most runs don't need

    written = {row["key"]: [row["caption"]] for row in read_rows([captions], CAPTIONS.names)}
    judges = judges_of(params, imported, shipped)
    made_of = sha256(json.dumps([judge.made_of for judge in judges]).encode()).hexdigest()
    reuse = Reuse(scratch("score") / f"{made_of}.sqlite")
    with progress() as bar:
        for shard in bar.track(shards_below(raw), description="score"):
            rows = list(read_rows([shard], ["source", "key", "captions"]))
            texts = {row["key"]: row.pop("captions") or written.get(row["key"], []) for row in rows}
            works = {key: sha256(json.dumps([key, listed]).encode()).hexdigest() for key, listed in texts.items()}
            scores = {work: json.loads(value) for work, value in reuse.get(works.values()).items()}
            waiting = (row for row in read_rows([shard], ["key", "image"]) if works[row["key"]] not in scores)
            while batch := list(islice(waiting, params.batch_size)):
                images = {row["key"]: decode(row["image"]["bytes"], WHITE, params.most_pixels).image for row in batch}
                seen = {key: image for key, image in images.items() if image is not None}
                new = dict[str, dict[str, Any]]({works[key]: {} for key in seen})
                for judge in judges if seen else []:
                    values = judge.score(list(seen.values()), [texts[key] for key in seen], params.batch_size)
                    for work, value in zip(new, values, strict=True):
                        new[work][judge.name] = value
                reuse.put({work: json.dumps(value).encode() for work, value in new.items()})
                scores.update(new)
            yield from ({**row, **scores[works[row["key"]]]} for row in rows if works[row["key"]] in scores)


if __name__ == "__main__":
    run_stage(main, lambda params, **_: leased(1 if params.clip or params.classifiers else 0))
