"""Read a source as collect does, up to its shards."""

from pathlib import Path

from stages.collect.found import Finisher
from stages.collect.params import AnySource
from stages.collect.run import READERS
from stages.core.pairs import Failure, Pair


def read(source: AnySource, sources: Path) -> tuple[dict[str, Pair], dict[str, str]]:
    """The pairs and the failures' codes, each by path, in the order found."""
    finisher, pairs, failures = Finisher(source), dict[str, Pair](), dict[str, str]()
    for found in READERS[source.kind](source, sources):
        item = found if isinstance(found, Failure) else finisher.finish(found)
        assert item.path not in pairs.keys() | failures.keys()
        if isinstance(item, Failure):
            failures[item.path] = item.code
        else:
            pairs[item.path] = item
    finisher.refuse_unfillable()
    return pairs, failures


def plant(root: Path, files: dict[str, bytes | str]) -> Path:
    """Files below `root` by their relative names; texts as UTF-8, line ends as they are."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root
