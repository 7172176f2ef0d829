"""CelebA (Liu et al. 2015): the official folders, the lists side by side, or the csv lists that Kaggle ships.

list_attr_celeba: a line with the number of pictures, one with 40 names, then a picture a line with 1 or -1 for each
name (csv: one line with names). identity_CelebA: `000001.jpg 2880`. list_eval_partition: `000001.jpg 0`. The boxes in
list_bbox_celeba belong to the pictures before they were aligned: they are not read.

Multi-Modal-CelebA-HQ (Xia et al. 2021): text/celeba-caption/<number in CelebA-HQ>.txt, a caption a line; which number
is which picture says CelebA-HQ-to-CelebA-mapping.txt (`idx orig_idx orig_file`). Its pickles are never opened.
"""

from collections.abc import Iterator
from pathlib import Path

from stages.collect.face_sentences import sentence
from stages.collect.files import Lists, captions_of, first_of, name_of, read_file, read_text, unlisted
from stages.collect.found import Found
from stages.collect.params import CelebA
from stages.core.errors import StageError
from stages.core.pairs import Failure

SPLITS = {"0": "train", "1": "validation", "2": "validation"}
GAP = r"[\s,]+"
PICTURES = ("Img/img_align_celeba", "img_align_celeba/img_align_celeba", "img_align_celeba")
DO = "unpack CelebA there, lists and pictures"


def read_celeba(source: CelebA, sources: Path) -> Iterator[Found | Failure]:
    """Every picture of list_attr_celeba in its order; then lines that can't be read and files that it doesn't name.

    A person is a group. Test pictures are validation, as validation pictures are. `attributes` names those that a
    picture has, with blanks between. Held in memory: the lists, 160 MB of the whole set.
    Raises StageError if pictures or attributes are missing, or the captions with captions_from multimodal.
    """
    root = source.root(sources)
    lists = Lists(source.name, root, DO)
    images = first_of(root, *PICTURES)
    if images is None:
        raise StageError(str(root / "img_align_celeba"), "is missing", DO)
    table = find_list(root, "Anno", "list_attr_celeba")
    names, skip = attribute_names(root, table)
    rows = lists.read(table, rf"([^\s,]+){GAP}((?:-?[01]{GAP}){{{len(names) - 1}}}-?[01])", skip)
    people = optional(lists, "Anno", "identity_CelebA", rf"([^\s,]+){GAP}(\d+)")
    splits = optional(lists, "Eval", "list_eval_partition", rf"([^\s,]+){GAP}([012])") if source.official_split else {}
    written = written_captions(source, lists)
    listed = {name_of(root, images / file) for file in rows}
    for file, (values,) in rows.items():
        path = images / file
        data = read_file(source.name, root, path)
        if isinstance(data, Failure):
            yield data
            continue
        has = [name for name, value in zip(names, values.replace(",", " ").split(), strict=True) if value == "1"]
        own = captions_of(root, written[file]) if file in written else []
        told = own if own or source.captions_from == "multimodal" else [sentence(set(has))]
        person = people.get(file, (None,))[0]
        group = f"{source.name}:{person}" if person else None
        split = SPLITS.get(splits.get(file, ("",))[0])
        yield Found(data, name_of(root, path), told, {"attributes": " ".join(has)}, group=group, split=split)
    yield from lists.failures
    yield from unlisted(source.name, root, images, listed)


def find_list(root: Path, folder: str, name: str) -> Path:
    """Where a list lies: in its official folder or at the top, as text or csv; if nowhere, where it should."""
    places = [f"{folder}/{name}.txt", f"{name}.txt", f"{folder}/{name}.csv", f"{name}.csv"]
    return first_of(root, *places) or root / f"{name}.txt"


def optional(lists: Lists, folder: str, name: str, pattern: str) -> dict[str, tuple[str, ...]]:
    """A list that may be missing; Kaggle's has one line with names."""
    path = find_list(lists.root, folder, name)
    return lists.read(path, pattern, skip=int(path.suffix == ".csv")) if path.exists() else {}


def attribute_names(root: Path, path: Path) -> tuple[list[str], int]:
    """The attributes' names in order, and how many lines stand before the first picture."""
    skip = 1 if path.suffix == ".csv" else 2
    lines = read_text(root, path, DO).split("\n", skip)[:skip]
    names = lines[-1].replace(",", " ").split()[2 - skip :]  # csv: image_id stands first
    if "Male" not in names or len(set(names)) < len(names):
        raise StageError(str(path), f"line {skip} has no names of attributes", DO)
    return names, skip


def written_captions(source: CelebA, lists: Lists) -> dict[str, Path]:
    """Multi-Modal-CelebA-HQ's file of captions for each picture of CelebA that has one."""
    if source.captions_from == "attributes":
        return {}
    texts = first_of(lists.root, "text/celeba-caption", "celeba-caption")
    mapping = lists.root / "CelebA-HQ-to-CelebA-mapping.txt"
    if texts and mapping.exists():
        rows = lists.read(mapping, r"(\d+)\s+\d+\s+(\S+)", skip=1)
        return {file: texts / f"{number}.txt" for number, (file,) in rows.items()}
    if texts or source.captions_from == "multimodal":
        missing = mapping if texts else lists.root / "text" / "celeba-caption"
        raise StageError(str(missing), "is missing", "see docs/guide.md, Known data sets, or set captions_from")
    return {}
