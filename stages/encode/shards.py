"""Write data/latents: what was computed, in files of one size each."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from safetensors.torch import save_file

from stages.core.files import file_digest
from stages.core.latents import CAPTIONS, CAPTIONS_A_SHARD
from stages.core.pairs import write_table
from stages.core.sizes import by_size
from stages.encode.boomerang import Boomerang, Origin, verdict
from stages.encode.captions import Embeddings
from stages.encode.conditions import column_of, tensors_of
from stages.encode.posteriors import Posteriors
from stages.encode.processed import Picture


class Place(NamedTuple):
    """Where latents are, and of a variant how far from its picture: columns of the index."""

    shard: str
    row: int
    shard_sha256: str
    origin_bits: int | None = None


def write_pictures(posteriors: Posteriors, pictures: Sequence[Picture], out: Path) -> list[Place]:
    """A file for each size in each shard of data/processed, size after size; where each picture's row is.

    A picture that is new or gone changes its own file and, where files are numbered anew, names of others.
    """
    (out / "pictures").mkdir()
    places: dict[int, Place] = {}
    files = list(enumerate(shared_files(pictures)))
    last_column = lru_cache(maxsize=1)(column_of)
    for number, members in sorted(files, key=lambda file: pictures[file[1][0]].shard):  # each shard is read once
        chosen = [pictures[member] for member in members]
        column = last_column(chosen[0].shard)
        conditions = {} if column is None else tensors_of(chosen, column)
        name, digest = _write(out, number, posteriors.known(chosen) | conditions)
        places |= {member: Place(name, row, digest) for row, member in enumerate(members)}
    return [places[member] for member in sorted(places)]


def write_variants(boomerang: Boomerang, origins: Sequence[Origin], out: Path) -> tuple[list[str], list[Place]]:
    """The verdict on each variant, and where the row of each that is kept is: in files after the pictures' own."""
    number = len(list((out / "pictures").iterdir()))
    found: list[str] = [""] * len(origins)
    places: dict[int, Place] = {}
    for members in shared_files([origin.picture for origin in origins]):
        known = boomerang.known([origins[member] for member in members])
        bits = known["bits"].tolist()
        for member, distance in zip(members, bits, strict=True):
            found[member] = verdict(boomerang.params.boomerang, distance)
        kept = [row for row, member in enumerate(members) if found[member] == "kept"]
        if kept:
            mean = known["mean"][kept]
            name, digest = _write(out, number, {"mean": mean, "std": torch.zeros_like(mean)})
            places |= {members[row]: Place(name, new, digest, bits[row]) for new, row in enumerate(kept)}
            number += 1
    return found, [places[member] for member in sorted(places)]


def shared_files(pictures: Sequence[Picture]) -> list[list[int]]:
    """The numbers of the pictures that share a file."""
    files: list[list[int]] = []
    for members in by_size([(picture.width, picture.height) for picture in pictures]):
        parts: dict[Path, list[int]] = {}
        for number in members:
            parts.setdefault(pictures[number].shard, []).append(number)
        files += parts.values()
    return files


def _write(out: Path, number: int, tensors: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """The file's name and sha256."""
    name = f"pictures/{number:05d}.safetensors"
    save_file(dict(tensors), out / name)
    return name, file_digest(out / name)


def write_captions(embeddings: Embeddings, captions: Sequence[str], out: Path) -> None:
    """Write the captions' embeddings, so many a file, and a table of them."""
    table = []
    (out / "text").mkdir()
    for start in range(0, len(captions), CAPTIONS_A_SHARD):
        chunk = captions[start : start + CAPTIONS_A_SHARD]
        path = out / f"text/{start // CAPTIONS_A_SHARD:05d}.safetensors"
        save_file(embeddings.known(chunk), path)
        digest = file_digest(path)
        table += [{"caption": caption, "shard_sha256": digest} for caption in chunk]
    write_table(pa.Table.from_pylist(table, schema=CAPTIONS), out / "captions.parquet")
