"""Write data/latents: what was computed, in files of one size each."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

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
from stages.encode.posteriors import Picture, Posteriors

Place = dict[str, Any]  # the columns `shard`, `row` and `shard_sha256` of the index, and `origin_bits` of a variant


def write_pictures(posteriors: Posteriors, pictures: Sequence[Picture], out: Path) -> list[Place]:
    """A file for each size in each shard of data/processed, size after size; where each picture's row is.

    A picture that is new or gone changes its own file and, where files are numbered anew, names of others.
    """
    (out / "pictures").mkdir()
    places: list[Place] = [{} for _ in pictures]
    files = list(enumerate(shared_files(pictures)))
    last_column = lru_cache(maxsize=1)(column_of)
    for number, members in sorted(files, key=lambda file: pictures[file[1][0]].shard):  # each shard is read once
        chosen = [pictures[member] for member in members]
        column = last_column(chosen[0].shard)
        conditions = {} if column is None else tensors_of(chosen, column)
        found = _write(out, number, posteriors.known(chosen) | conditions)
        for row, member in enumerate(members):
            places[member] = {**found, "row": row}
    return places


def write_variants(boomerang: Boomerang, origins: Sequence[Origin], out: Path) -> tuple[list[str], list[Place]]:
    """The verdict on each variant, and where the row of each that is kept is: in files after the pictures' own."""
    number = len(list((out / "pictures").iterdir()))
    found: list[str] = [""] * len(origins)
    places: list[Place] = [{} for _ in origins]
    for members in shared_files([origin.picture for origin in origins]):
        known = boomerang.known([origins[member] for member in members])
        kept: list[int] = []
        for row, (member, bits) in enumerate(zip(members, known["bits"].tolist(), strict=True)):
            found[member] = verdict(boomerang.params.boomerang, bits)
            if found[member] == "kept":
                places[member] = {"row": len(kept), "origin_bits": bits}
                kept.append(row)
        if kept:
            mean = known["mean"][kept]
            file = _write(out, number, {"mean": mean, "std": torch.zeros_like(mean)})
            for row in kept:
                places[members[row]].update(file)
            number += 1
    return found, [place for place in places if place]


def shared_files(pictures: Sequence[Picture]) -> list[list[int]]:
    """The numbers of the pictures that share a file."""
    files: list[list[int]] = []
    for members in by_size([(picture.width, picture.height) for picture in pictures]):
        parts: dict[Path, list[int]] = {}
        for number in members:
            parts.setdefault(pictures[number].shard, []).append(number)
        files += parts.values()
    return files


def _write(out: Path, number: int, tensors: Mapping[str, torch.Tensor]) -> Place:
    name = f"pictures/{number:05d}.safetensors"
    save_file(dict(tensors), out / name)
    return {"shard": name, "shard_sha256": file_digest(out / name)}


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
