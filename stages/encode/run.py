"""encode: compute once what training would repeat.

in    data/processed, models/base  finished pictures; the VAE, text encoders and denoiser
out   data/latents                 the VAE's posterior of every picture, the embeddings of every distinct caption and of
      the empty one, variants by boomerang where they are asked for; see `stages.core.latents`
      what an earlier run, or another process, computed of the same things is taken from there
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.core.engine import on_cluster, progress
from stages.core.errors import StageError
from stages.core.files import replacing, write_json
from stages.core.gpus import leased
from stages.core.latents import INDEX
from stages.core.pairs import write_table
from stages.core.stage import run_stage
from stages.encode.batches import this_machine
from stages.encode.boomerang import NUMBERED_FROM, Boomerang, drawn_rows, origins_of
from stages.encode.captions import Embeddings
from stages.encode.cluster import cluster_machine, encode_on_cluster
from stages.encode.conditions import has_conditions
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors, RoundTrips
from stages.encode.processed import distinct_captions, numbered, read_processed
from stages.encode.processes import Maker, encode, encoder_count, gpus_wanted
from stages.encode.shards import Place, write_captions, write_pictures, write_variants

ROUND_TRIPS = 16  # pictures


def main(params: EncodeParams, processed: Path, base: Path, out: Path, metrics: Path) -> None:
    """Pictures first, then the captions that they use, then variants of some; one process writes it all."""
    rows, pictures = read_processed(processed)
    if params.boomerang.share and has_conditions(pictures[0].shard):
        raise StageError(
            "encode.boomerang", "pictures have conditions, which fit no variant of them", "set its share to 0"
        )
    machine = cluster_machine() if on_cluster() else this_machine()
    posteriors, embeddings = Posteriors(params, base, machine), Embeddings(params, base, machine)
    round_trips = RoundTrips(posteriors)
    captions, count = distinct_captions(rows), encoder_count()
    new = {
        "pictures": compute("pictures", posteriors, base, pictures, count),
        "captions": compute("captions", embeddings, base, captions, count),
    }
    embeddings.release()
    compute("round_trips", round_trips, base, pictures[:ROUND_TRIPS], 1)
    drawn = drawn_rows(params.boomerang, rows)
    origins = origins_of(rows, pictures, drawn)
    if params.boomerang.share:
        boomerang = Boomerang(params, base, posteriors, embeddings)
        new["variants"] = compute("variants", boomerang, base, origins, count)
    figures: dict[str, Any] = {"pictures": len(pictures), "captions": len(captions) - 1}
    with replacing(out) as folder:
        write_captions(embeddings, captions, folder)
        told = numbered(rows, captions)
        index = placed(told, write_pictures(posteriors, pictures, folder), "picture")
        if params.boomerang.share:
            verdicts, places = write_variants(boomerang, origins, folder)
            kept = [row for row, said in zip(drawn, verdicts, strict=True) if said == "kept"]
            index = pa.concat_tables(
                [index, placed(told.take(pa.array(kept, pa.int64())), places, "boomerang", NUMBERED_FROM)]
            )
            figures["boomerang"] = {"made": len(verdicts), "kept": 0, "unchanged": 0, "drifted": 0, **Counter(verdicts)}
        write_table(index, folder / "index.parquet")
    figures |= {"captions_cut": embeddings.count_cut(captions)}
    figures |= {"vae_psnr": round_trips.psnr(pictures[:ROUND_TRIPS])}
    write_json(metrics, figures)
    report(figures, new)


def compute(kind: str, maker: Maker, base: Path, items: Sequence[Any], count: int) -> int:
    """Compute what isn't known, by so many processes or a cluster, under a bar that counts; how many that were."""
    if on_cluster():
        return sum(encode_on_cluster(kind, maker, base, items))
    new = 0
    with progress() as bar, closing(encode(kind, maker, base, items, count)) as counts:
        task = bar.add_task(kind, total=None)
        for done in counts:
            new += done
            bar.update(task, completed=new)
    return new


def placed(rows: pa.Table, places: Sequence[Place], origin: str, numbered_from: int = 0) -> pa.Table:
    """The index rows: where the latents of rows of data/processed are, and where those come from."""
    columns = {name: rows.column(name) for name in rows.column_names} | {
        "variant": pc.add(rows.column("variant"), numbered_from),
        "origin": pa.array([origin] * len(rows), pa.string()),
        **{
            name: pa.array([getattr(place, name) for place in places], INDEX.field(name).type) for name in Place._fields
        },
    }
    return pa.table({name: columns[name] for name in INDEX.names}, schema=INDEX)


def report(figures: dict[str, Any], new: dict[str, int]) -> None:
    """Say what there is, what became of the variants, and what of all that is new."""
    cut = f"{figures['captions_cut']} cut at the model's length"
    print(f"{figures['pictures']} pictures, {figures['captions']} captions ({cut}), VAE {figures['vae_psnr']} dB")
    if "boomerang" in figures:
        told = figures["boomerang"]
        print(
            f"boomerang: {told['made']} variants, {told['kept']} kept, {told['unchanged']} unchanged, "
            f"{told['drifted']} drifted"
        )
    *before, last = (f"{count} {kind}" for kind, count in new.items())
    print(f"{', '.join(before)} and {last} encoded, the others known")


if __name__ == "__main__":
    run_stage(main, lambda **_: leased(*gpus_wanted()))
