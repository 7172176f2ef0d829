"""How many pictures there will be and what they weigh: as dvc.lock and reports/ know it, else as params tell."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages.clean.params import CleanParams
from stages.collect.files import PICTURES
from stages.collect.params import CollectParams
from stages.preprocess.params import PreprocessParams

# Pictures of known sets, as their authors say (docs/guide.md, "Known data sets"); openmoji: named ones.
KNOWN = {
    "cub200": 11_788,
    "stanford_dogs": 20_580,
    "celeba": 202_599,
    "ffhq": 70_000,
    "fashion_gen": 293_008,
    "figr8": 1_548_256,
    "openmoji": 3_953,
}
BEFORE = ("collect", "clean", "preprocess")  # sections that decide how many there are


@dataclass(frozen=True)
class Dataset:
    """rows: finished pictures with mirror images and variants, of them held_out; None where it can't be known.

    source: where that is from. measured: bytes of outputs in dvc.lock that were made by the same params.
    """

    rows: int | None
    held_out: int | None
    source: str
    measured: Mapping[str, int]

    @property
    def train(self) -> int | None:
        """Rows that are trained on."""
        return None if self.rows is None else self.rows - (self.held_out or 0)


def read_dataset(tree: Mapping[str, Any], pictures: int | None, root: Path) -> Dataset:
    """Of a params file's plain values. pictures: told by a person, before cleaning."""
    lock = _lock(root / "dvc.lock")
    same = all(_locked(lock, name, name) == tree.get(name) for name in BEFORE)
    measured = {path: size for name in BEFORE if same for path, size in _sizes(lock, name).items()}
    report = root / "reports" / "preprocess.json"
    if pictures is None and same and report.is_file():
        figures = json.loads(report.read_text(encoding="utf-8"))
        return Dataset(figures["rows"], figures["validation"], "as finished here", measured)
    finished = PreprocessParams.model_validate(tree.get("preprocess") or {})
    times = (2 if finished.flip else 1) + finished.augment.variants
    clean = CleanParams.model_validate(tree.get("clean") or {})
    source, told = "as told, none rejected", pictures is not None
    if pictures is None:
        pictures, source = _expected(CollectParams.model_validate(tree.get("collect") or {}), root)
    if pictures is None:
        return Dataset(None, None, source, {})
    held_out = clean.validation_count or round(pictures * clean.validation_share)
    return Dataset((pictures - held_out) * times + held_out, held_out, source, {} if told else measured)


def _expected(collect: CollectParams, root: Path) -> tuple[int | None, str]:
    """The sum over sources, None if one isn't known."""
    total = 0
    for source in collect.sources:
        count = KNOWN.get(source.kind)
        if source.kind == "folder":
            folder = root / "data" / "sources" / (source.path or source.name)
            count = sum(path.suffix.lower() in PICTURES for path in folder.rglob("*")) or None
        if count is None:
            return None, f"source {source.name} is not here yet: say --pictures"
        total += min(count, source.limit or count)
    return total, "as the sources have them, none rejected"


def _lock(path: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"])
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return {}


def _locked(lock: Mapping[str, Any], stage: str, section: str) -> Any:
    """The section as it was when the stage last ran, with which dvc.lock has it."""
    return lock.get(stage, {}).get("params", {}).get("params.yaml", {}).get(section, False)


def _sizes(lock: Mapping[str, Any], stage: str) -> dict[str, int]:
    return {out["path"]: out["size"] for out in lock.get(stage, {}).get("outs", []) if "size" in out}
