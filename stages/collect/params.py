"""collect: where pairs come from."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from stages.core.errors import StageError
from stages.core.params import Section

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")  # of links
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Source(Section):
    """What every kind of source can be told."""

    name: Name = Field(description="the source's name in every table")
    captions: list[str] = Field(
        default=["{caption}"],
        min_length=1,
        description="templates: {caption} is each of the source's own, other names are its fields, such as {class}; "
        "one with a field that a picture lacks gives it no caption",
    )
    use: Literal["all", "first", "shortest", "longest"] = Field("all", description="which of a picture's own captions")
    fallback: str = Field("", description="template for pictures that would have no caption; empty: they have none")
    trigger: str = Field("", description="word put before every caption, with a comma")
    limit: int | None = Field(None, ge=1, description="pictures at most, the same ones each time")
    repeats: int = Field(1, ge=1, description="how often an epoch shows each picture")
    role: Literal["train", "regularisation", "benchmark"] = Field(
        "train",
        description="regularisation: pictures of the class, for prior preservation; benchmark: never trained on, "
        "nor anything that looks like them",
    )
    licenses: list[str] = Field(
        default=[], description="only pictures under one of these, such as CC0* or CC BY*; empty: any, and none"
    )
    license: str | None = Field(None, description="of pictures whose source names none, such as CC BY 4.0")
    attribution: str | None = Field(None, description="whom to name, and how, where the source doesn't say")
    columns: list[str] | None = Field(None, description="fields that are carried along; null: all")

    def verify(self, sources: Path) -> None:
        """What can be known before any work. Raises StageError."""


class Local(Source):
    """A source whose files lie below data/sources."""

    advice: ClassVar[str] = "put your pictures there"
    path: str = Field("", description="below data/sources; empty: the name")

    def verify(self, sources: Path) -> None:
        self.root(sources)

    def root(self, sources: Path) -> Path:
        """Where the files are. Raises StageError if that is no folder below `sources`."""
        root, where = sources / (self.path or self.name), f"collect.sources, {self.name}"
        if not root.resolve().is_relative_to(sources.resolve()):
            raise StageError(where, f"{root} is not below {sources}", f"copy your pictures into {sources}")
        if not root.is_dir():
            raise StageError(where, f"the folder {root} is missing", f"{self.advice}, or `dvc pull`")
        return root


class OpenMoji(Source):
    """4,495 emoji drawn by the OpenMoji project (CC BY-SA 4.0), from PyPI; needs no network."""

    kind: Literal["openmoji"]
    name: Name = "openmoji"
    side: int = Field(128, ge=16, le=1024, description="px, side of the rasterised square")


class Iconify(Local):
    """An icon set of the Iconify project: the npm package @iconify-json/NAME, unpacked below data/sources."""

    advice: ClassVar[str] = "`npm pack` it and unpack the archive there"
    kind: Literal["iconify"]
    skin_tones: bool = Field(True, description="false leaves out the variants by skin tone, five a motif")
    side: int = Field(128, ge=16, le=1024, description="px, side of the rasterised square")


class Folder(Local):
    """Pictures in a folder: with a metadata table, sidecar captions, kohya's or class folders."""

    kind: Literal["folder"]
    layout: Literal["auto", "metadata", "sidecar", "kohya", "classes"] = Field(
        "auto",
        description="metadata: a metadata.csv, .jsonl or .parquet beside the pictures; sidecar: photo.txt or "
        "photo.caption beside photo.jpg; kohya: the same in folders named 10_sks dog, repeats and {class}; "
        "classes: the folder's name is the caption and {class}; auto: the first of these that is there",
    )
    caption_column: str = Field("", description="of the metadata; empty: text, caption or prompt")


class WebDataset(Local):
    """Tar files as img2dataset writes them, or zips: 0001.jpg, 0001.txt and 0001.json are one pair."""

    advice: ClassVar[str] = "put the archives there"
    kind: Literal["webdataset"]
    most_bytes: int = Field(64 * 2**20, ge=1, description="of one file in an archive; larger ones are failures")


class ParquetTables(Local):
    """Parquet tables with the pictures in them."""

    advice: ClassVar[str] = "put the .parquet tables there"
    kind: Literal["parquet"]
    image_column: str = Field("", description="empty: image, jpg, png, webp or img")
    caption_column: str | None = Field("", description="empty: text, caption, prompt or txt; null: there is none")


class Hub(Source):
    """A data set of the Hugging Face hub, or a folder that is laid out like one."""

    kind: Literal["hub"]
    dataset: str = Field(
        pattern=r"^([\w.-]+/[\w.-]+@[0-9a-f]{40}|folder:[\w-][\w.-]*)$",
        description="OWNER/NAME@COMMIT (of 40 hex digits), or folder:NAME below data/sources",
    )
    config: str = Field("", description="the data set's configuration; empty: its default")
    splits: list[str] = Field(default=["train"], min_length=1, description="which are read, in this order")
    image_column: str = Field("", description="empty: image, jpg, png, webp or img")
    caption_column: str | None = Field("", description="empty: text, caption, prompt or txt; null: there is none")

    def verify(self, sources: Path) -> None:
        self.folder(sources)

    def folder(self, sources: Path) -> Path | None:
        """The folder that is meant, None for an id. Raises StageError if it is missing."""
        kind, _, name = self.dataset.partition(":")
        return Local(name=self.name, path=name).root(sources) if kind == "folder" else None


class Urls(Local):
    """Tables of links to pictures (LAION's layout): csv, tsv, jsonl or parquet, a file or a folder of them."""

    advice: ClassVar[str] = "put the tables there"
    kind: Literal["urls"]
    contact: str = Field(
        pattern=r"^[!-~]*(@|://)[!-~]*$",
        description="a mail address or page of yours: sites read it in the User-Agent, darkroom (+contact)",
    )
    url_column: str = Field("", description="empty: url, image_url, img_url or link, in any case")
    caption_column: str | None = Field(
        "", description="empty: text, caption, prompt or txt, in any case; null: there is none"
    )
    concurrency: int = Field(32, ge=1, le=1024, description="requests at once, of all machines together")
    per_host: int = Field(4, ge=1, le=64, description="requests at once to one host (scheme, name and port)")
    requests_per_second: float | None = Field(
        None, gt=0, le=1000, description="to one host; null: as many as it answers, or its robots.txt's Crawl-delay"
    )
    timeout: float = Field(30.0, gt=0, le=3600, description="s for one try, from the connection to the last byte")
    most_bytes: int = Field(64 * 2**20, ge=1, le=2**30, description="of one picture; larger ones are failures")
    redirects: int = Field(5, ge=0, le=20, description="followed at most")
    retries: int = Field(
        3, ge=0, le=20, description="after timeouts, lost connections and the answers 408, 429 and 5xx"
    )
    backoff: float = Field(1.0, gt=0, le=60, description="s, bound of the first random wait; it doubles each time")
    longest_wait: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="s before a retry; who asks for more (Retry-After) is asked again by the next run",
    )
    obey_robots: bool = Field(True, description="leave out what robots.txt disallows")
    noai: list[str] = Field(
        default=["noai", "noimageai", "noindex", "noimageindex"],
        description="leave out pictures whose X-Robots-Tag has one of these",
    )
    allow_hosts: list[str] = Field(
        default=[], description="names of hosts that may have private addresses, such as localhost"
    )

    def verify(self, sources: Path) -> None:
        self.tables(sources)

    def tables(self, sources: Path) -> tuple[Path, list[Path]]:
        """The folder that tables are named from, and the tables by name. Raises StageError if there are none."""
        named = Path(self.path or self.name)
        if (sources / named).is_file():
            root = Local(name=self.name, path=str(named.parent)).root(sources)
            tables = [sources / named]
        else:
            root = self.root(sources)
            tables = sorted(path for path in root.rglob("*") if path.is_file())
        tables = [path for path in tables if path.suffix.lower() in TABLES]
        if not tables:
            raise StageError(str(sources / named), f"has no tables ({', '.join(TABLES)})", self.advice)
        return root, tables


class KnownSet(Local):
    """A published data set, in the folders that its authors made."""

    advice: ClassVar[str] = "put the data set there as docs/guide.md says, under Known data sets"
    official_split: bool = Field(
        True, description="its own validation or test pictures are held out; false: as clean.validation_share says"
    )


class Cub200(KnownSet):
    """Caltech-UCSD Birds-200-2011: 11,788 birds of 200 species, with ten captions each where they are there too."""

    kind: Literal["cub200"]
    name: Name = "cub200"
    fallback: str = Field("a photo of a {class}, a kind of bird", description="template for birds without captions")
    license: str | None = "non-commercial research and education"
    attribution: str | None = "Caltech-UCSD Birds-200-2011 (Wah et al. 2011)"
    crop: bool = Field(False, description="the bird and some of its surroundings: 1.5 times the longer side of its box")


class StanfordDogs(KnownSet):
    """Stanford Dogs: 20,580 pictures of 120 breeds."""

    kind: Literal["stanford_dogs"]
    name: Name = "stanford_dogs"
    captions: list[str] = Field(
        default=["a photo of a {class}, a breed of dog"], min_length=1, description="templates; {caption} is the breed"
    )
    license: str | None = "non-commercial research and education"
    attribution: str | None = "Stanford Dogs (Khosla et al. 2011), pictures from ImageNet"


class CelebA(KnownSet):
    """CelebA: 202,599 aligned faces of 10,177 people, with 40 attributes each."""

    kind: Literal["celeba"]
    name: Name = "celeba"
    captions_from: Literal["auto", "attributes", "multimodal"] = Field(
        "auto",
        description="attributes: a sentence made of them; multimodal: the ten captions that Multi-Modal-CelebA-HQ has "
        "of 30,000 pictures; auto: the latter where a picture has them, else the former",
    )
    license: str | None = "non-commercial research"
    attribution: str | None = "CelebA (Liu et al. 2015)"


class Ffhq(KnownSet):
    """Flickr-Faces-HQ: 70,000 faces, each under its photographer's own licence; no captions."""

    kind: Literal["ffhq"]
    name: Name = "ffhq"
    captions: list[str] = Field(
        default=["a photo of a person's face"], min_length=1, description="templates; it has no captions of its own"
    )
    folder: Literal["images1024x1024", "thumbnails128x128", "in-the-wild-images"] = Field(
        "images1024x1024", description="which of its pictures; the last are whole photographs, not cut to the face"
    )
    verify_hash: bool = Field(False, description="a picture whose MD5 is not the listed one is a failure wrong_hash")


class FashionGen(KnownSet):
    """Fashion-Gen: 293,008 pictures of garments, one description for the poses of each."""

    advice: ClassVar[str] = "put fashiongen_256_256_train.h5 and fashiongen_256_256_validation.h5 there"
    kind: Literal["fashion_gen"]
    name: Name = "fashion_gen"
    license: str | None = "non-commercial research"
    attribution: str | None = "Fashion-Gen (Rostamzadeh et al. 2018), pictures from SSENSE"


class Figr8(Local):
    """FIGR-8: 1,548,256 black and white pictograms of 17,375 classes."""

    advice: ClassVar[str] = "unpack FIGR-8 there"
    kind: Literal["figr8"]
    name: Name = "figr8"
    captions: list[str] = Field(
        default=["a pictogram of {class}"], min_length=1, description="templates; {caption} is the class"
    )


AnySource = Annotated[
    OpenMoji
    | Iconify
    | Folder
    | WebDataset
    | ParquetTables
    | Hub
    | Cub200
    | StanfordDogs
    | CelebA
    | Ffhq
    | FashionGen
    | Figr8
    | Urls,
    Field(discriminator="kind"),
]


class CollectParams(Section):
    sources: list[AnySource] = Field(
        default=[OpenMoji(kind="openmoji")],
        min_length=1,
        description="in order of trust: of duplicates the first stays",
    )

    @field_validator("sources")
    @classmethod
    def _distinct_names(cls, sources: list[AnySource]) -> list[AnySource]:
        if len({source.name for source in sources}) < len(sources):
            raise ValueError("has two sources of one name")
        return sources
