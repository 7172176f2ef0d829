"""collect: bring pairs in from every source.

in    data/sources      a person's folders; packages and hubs bring their own
out   data/raw          <source>/<n>.parquet, a row a picture, in the source's own order
      failures.parquet  what was asked for and is no row, and why
      pictures asked for = rows + failures
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa

from stages.collect.folder import read_folder
from stages.collect.iconify import read_iconify
from stages.collect.openmoji import read_openmoji
from stages.collect.params import CollectParams, Folder, Iconify, OpenMoji
from stages.core.errors import StageError
from stages.core.files import replacing, write_json
from stages.core.pairs import FAILURE, FAILURES, RAW, SOURCES, Failure, Pair, ShardWriter, write_table
from stages.core.stage import run_stage


def main(params: CollectParams, sources: Path, out: Path, metrics: Path) -> None:
    """Read every source into shards of its own, then write what failed."""
    counts: dict[str, dict[str, int]] = {}
    failures: list[Failure] = []
    with replacing(out) as folder:
        for source in params.sources:
            rows, failed = collect(_read(source, sources), source.limit, folder / source.name)
            if not rows:
                raise StageError(
                    f"collect.sources, {source.name}",
                    f"no picture of {len(failed)} could be read (first: {_first(failed)})",
                    "mend the source",
                )
            codes = Counter(failure.code for failure in failed)
            counts[source.name] = {"pictures": rows, "failures": len(failed), **dict(sorted(codes.items()))}
            failures += failed
            said = ", ".join(f"{count} {code}" for code, count in codes.most_common())
            print(f"{source.name}: {rows} pictures, {len(failed)} failures{f' ({said})' if said else ''}")
        write_table(pa.Table.from_pylist([asdict(failure) for failure in failures], schema=FAILURE), folder / FAILURES)
        write_json(folder / SOURCES, [source.name for source in params.sources])
    write_json(metrics, counts)


def collect(found: Iterator[Pair | Failure], limit: int | None, folder: Path) -> tuple[int, list[Failure]]:
    """Write one source's pairs to `folder`; give back how many rows, and what failed.

    Byte-identical pictures become one row with all their captions; the later
    ones are failures `same_bytes`. `limit` takes the lowest keys: a picture's
    place in the source doesn't matter. Pictures wait in a spool file, so memory
    holds what is said of them only.
    """
    pairs: dict[str, Pair] = {}
    places: dict[str, tuple[int, int]] = {}
    failures: list[Failure] = []
    with tempfile.TemporaryFile() as spool:
        for item in found:
            if isinstance(item, Failure):
                failures.append(item)
            elif item.key in pairs:
                first = pairs[item.key]
                added = [caption for caption in item.captions if caption not in first.captions]
                pairs[item.key] = replace(first, captions=first.captions + added)
                failures.append(Failure(item.source, item.path, "same_bytes", f"as {first.path}"))
            else:
                places[item.key] = (spool.tell(), len(item.data))
                spool.write(item.data)
                pairs[item.key] = replace(item, data=b"")
        chosen = set(sorted(pairs)[:limit])
        writer = ShardWriter(folder, RAW)
        for key, pair in pairs.items():
            if key in chosen:
                start, size = places[key]
                spool.seek(start)
                writer.add(replace(pair, data=spool.read(size)).row(), size)
            else:
                failures.append(Failure(pair.source, pair.path, "over_limit"))
        writer.close()
    return writer.written, failures


def _read(source: OpenMoji | Folder | Iconify, sources: Path) -> Iterator[Pair | Failure]:
    match source:
        case OpenMoji():
            return read_openmoji(source)
        case Folder():
            return read_folder(source, sources)
        case Iconify():
            return read_iconify(source, sources)


def _first(failures: list[Failure]) -> str:
    return f"{failures[0].path}, {failures[0].code}" if failures else "it is empty"


if __name__ == "__main__":
    run_stage(main)
