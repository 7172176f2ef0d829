"""Encoding on a cluster: chunks of items go out, values come back; only the stage's own machine keeps them."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.exchange import Files
from stages.core.reuse import Held
from stages.encode.batches import this_machine
from stages.encode.boomerang import Boomerang
from stages.encode.params import EncodeParams
from stages.encode.processed import Picture
from stages.encode.processes import Maker, open_maker

# By kind, what the items of a chunk have in common, and how many they are at most. Pictures: their shard, which is read
# once. Variants: their size, since each size fills batches of its own.
CHUNKS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "pictures": (lambda picture: picture.shard, 1024),
    "round_trips": (lambda picture: picture.shard, 1024),
    "captions": (lambda _caption: None, 64),
    "variants": (lambda origin: (origin.picture.width, origin.picture.height), 64),
}


@dataclass(frozen=True)
class Chunk:
    """Items, and of what variants are made of: posteriors and embeddings, by name."""

    items: list[Any]
    pictures: dict[str, bytes] = field(default_factory=dict)
    captions: dict[str, bytes] = field(default_factory=dict)

    @property
    def shards(self) -> set[Path]:
        """Files of data/processed that the items are in, where their pictures are read."""
        return {item.shard for item in self.items if isinstance(item, Picture)}


@dataclass(frozen=True)
class Encoded:
    """Values by name, and what they depend on: `Maker.made_of`, on the machine that computed them."""

    values: dict[str, bytes]
    made_of: str
    machine: str


def cluster_machine() -> str:
    """What computes there, as `this_machine` says it."""
    (machine,) = map_shards(_machine, [torch.get_num_threads()], "encode", gpu=True)
    return machine


def encode_on_cluster(kind: str, maker: Maker, base: Path, items: Sequence[Any]) -> Iterator[int]:
    """Compute what is missing of the items; after each chunk, how many it held.

    Raises StageError if a machine has another GPU, other libraries, code or weights than the first that was asked.
    """
    chunks = chunked(kind, maker.missing(items))
    encode = partial(_encode, kind, maker.params, base, torch.get_num_threads())
    tasks = (with_given(maker, chunk) for chunk in chunks)
    files = Files[Chunk](lambda chunk: chunk.shards, common=[base])
    for encoded in map_shards(encode, tasks, kind, len(chunks), files=files, gpu=True):
        if encoded.made_of != maker.made_of:
            raise StageError(
                "encode",
                f"{encoded.machine} has another device, other libraries or weights than the cluster's first machine",
                "let all that encode be alike",
            )
        maker.reuse.put(encoded.values)
        yield len(encoded.values)


def chunked(kind: str, items: Sequence[Any]) -> list[list[Any]]:
    """Every item once, in chunks of those that have in common what CHUNKS says."""
    common, most = CHUNKS[kind]
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(common(item), []).append(item)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def with_given(maker: Maker, items: list[Any]) -> Chunk:
    """The chunk of these items."""
    if not isinstance(maker, Boomerang):
        return Chunk(items)
    pictures = maker.posteriors.reuse.get({origin.picture.name for origin in items})
    return Chunk(items, pictures, maker.embeddings.reuse.get({origin.caption for origin in items} | {""}))


def _machine(threads: int) -> str:
    torch.set_num_threads(threads)  # part of what values depend on
    return this_machine()


@lru_cache(maxsize=1)
def _opened(kind: str, params: str, base: Path) -> Maker:
    """One for all chunks that a process gets: models are loaded once."""
    return open_maker(kind, EncodeParams.model_validate_json(params), base)


def _encode(kind: str, params: EncodeParams, base: Path, threads: int, chunk: Chunk) -> Encoded:
    torch.set_num_threads(threads)
    maker = _opened(kind, params.model_dump_json(), base)
    maker.reuse = held = Held({})
    if isinstance(maker, Boomerang):
        maker.posteriors.reuse, maker.embeddings.reuse = Held(chunk.pictures), Held(chunk.captions)
    for _ in maker.encode(chunk.items):
        pass
    return Encoded(held.values, maker.made_of, f"{platform.node()} ({this_machine()})")
