"""collect: bring pairs in from every source.

in    data/sources      a person's folders; packages and hubs bring their own
out   data/raw          <source>/<n>.parquet, a row a picture, in the source's own order
      failures.parquet  what was asked for and is no row, and why
      pictures asked for = rows + failures
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages.collect.celeba import read_celeba
from stages.collect.cub200 import read_cub200
from stages.collect.fashion_gen import read_fashion_gen
from stages.collect.ffhq import read_ffhq
from stages.collect.figr8 import read_figr8
from stages.collect.folder import read_folder
from stages.collect.found import Finisher, Found
from stages.collect.hub import read_hub
from stages.collect.iconify import read_iconify
from stages.collect.openmoji import read_openmoji
from stages.collect.params import CollectParams
from stages.collect.parquet import read_parquet
from stages.collect.spool import FailureWriter, write_source
from stages.collect.stanford_dogs import read_stanford_dogs
from stages.collect.urls import read_urls
from stages.collect.webdataset import read_webdataset
from stages.core.engine import progress
from stages.core.errors import StageError
from stages.core.files import replacing, write_json
from stages.core.pairs import FAILURES, SOURCES, Failure
from stages.core.stage import run_stage

# What finds the pictures of a source, by its kind: in the source's own order, whatever the workers do.
READERS: dict[str, Callable[[Any, Path], Iterator[Found | Failure]]] = {
    "celeba": read_celeba,
    "cub200": read_cub200,
    "fashion_gen": read_fashion_gen,
    "ffhq": read_ffhq,
    "figr8": read_figr8,
    "folder": read_folder,
    "hub": read_hub,
    "iconify": read_iconify,
    "openmoji": read_openmoji,
    "parquet": read_parquet,
    "stanford_dogs": read_stanford_dogs,
    "urls": read_urls,
    "webdataset": read_webdataset,
}


def main(params: CollectParams, sources: Path, out: Path, metrics: Path) -> None:
    """Read every source into shards of its own; what failed goes to one table."""
    counts: dict[str, dict[str, int]] = {}
    with replacing(out) as folder, FailureWriter(folder / FAILURES) as failures:
        for source in params.sources:
            finisher = Finisher(source)
            found = (
                item if isinstance(item, Failure) else finisher.finish(item)
                for item in READERS[source.kind](source, sources)
            )
            with progress() as bar:
                shown = bar.track(found, description=source.name)
                rows, uncaptioned = write_source(shown, source.limit, folder / source.name, failures)
            codes = failures.counts[source.name]
            if not rows:
                first = failures.first.get(source.name)
                said = f"{first.path}, {first.code}" if first else "it is empty"
                raise StageError(
                    f"collect.sources, {source.name}",
                    f"no picture of {sum(codes.values())} could be read (first: {said})",
                    "mend the source",
                )
            finisher.refuse_unfillable()
            counts[source.name] = {
                "pictures": rows,
                "no_caption": uncaptioned,
                "fallback_caption": finisher.fallbacks,
                "failures": sum(codes.values()),
                **dict(sorted(codes.items())),
            }
            said = "".join(f", {count} {name}" for name, count in counts[source.name].items() if count)
            print(f"{source.name}: {said[2:]}")
        write_json(folder / SOURCES, [source.name for source in params.sources])
    write_json(metrics, counts)


if __name__ == "__main__":
    run_stage(main)
