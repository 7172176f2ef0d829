"""collect: where pairs come from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from stages.core.errors import StageError
from stages.core.params import Section

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class OpenMoji(Section):
    """4,495 emoji drawn by the OpenMoji project (CC BY-SA 4.0), from PyPI; needs no network."""

    kind: Literal["openmoji"]
    name: Name = "openmoji"
    side: int = Field(128, ge=16, le=1024, description="px, side of the rasterised square")
    limit: int | None = Field(None, ge=1, description="pictures at most, the same ones each time")


class Folder(Section):
    """Your own pictures below data/sources."""

    kind: Literal["folder"]
    name: Name = Field(description="the source's name in every table")
    path: str = Field("", description="folder below data/sources; empty: the name")
    captions: Literal["auto", "metadata", "sidecar"] = Field(
        "auto",
        description="metadata: a metadata.csv, .jsonl or .parquet beside the pictures; "
        "sidecar: photo.txt or photo.caption beside photo.jpg; auto: metadata where there is one",
    )
    caption_column: str = Field("", description="of the metadata; empty: text, caption or prompt")
    license: str | None = Field(None, description="of every picture, such as CC BY 4.0")
    attribution: str | None = Field(None, description="whom to name, and how")
    limit: int | None = Field(None, ge=1, description="pictures at most, the same ones each time")

    def root(self, sources: Path) -> Path:
        """Where the pictures are. Raises StageError if that is no folder below `sources`."""
        return _below(sources, self.path or self.name, self.name, "put your pictures there")


class Iconify(Section):
    """An icon set of the Iconify project: the npm package @iconify-json/NAME, unpacked below data/sources."""

    kind: Literal["iconify"]
    name: Name = Field(description="the source's name in every table")
    path: str = Field("", description="folder below data/sources that holds icons.json; empty: the name")
    captions: list[str] = Field(
        default=["{name}"], min_length=1, description="each picture's captions; {name} is the icon's, such as red apple"
    )
    skin_tones: bool = Field(True, description="false leaves out the variants by skin tone, five a motif")
    side: int = Field(128, ge=16, le=1024, description="px, side of the rasterised square")
    limit: int | None = Field(None, ge=1, description="pictures at most, the same ones each time")

    def root(self, sources: Path) -> Path:
        """Where the set is. Raises StageError if that is no folder below `sources`."""
        return _below(sources, self.path or self.name, self.name, "`npm pack` it and unpack the archive there")


Source = Annotated[OpenMoji | Folder | Iconify, Field(discriminator="kind")]


def _below(sources: Path, path: str, name: str, advice: str) -> Path:
    """The folder `path` below `sources`. Raises StageError if there is none."""
    root, where = sources / path, f"collect.sources, {name}"
    if not root.resolve().is_relative_to(sources.resolve()):
        raise StageError(where, f"{root} is not below {sources}", f"copy your pictures into {sources}")
    if not root.is_dir():
        raise StageError(where, f"the folder {root} is missing", f"{advice}, or `dvc pull`")
    return root


class CollectParams(Section):
    sources: list[Source] = Field(
        default=[OpenMoji(kind="openmoji")],
        min_length=1,
        description="in order of trust: of duplicates the first stays",
    )

    @field_validator("sources")
    @classmethod
    def _distinct_names(cls, sources: list[Source]) -> list[Source]:
        if len({source.name for source in sources}) < len(sources):
            raise ValueError("has two sources of one name")
        return sources
