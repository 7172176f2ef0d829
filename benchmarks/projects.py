"""Projects to train models/tiny-sd in: data through the stages `collect` to `encode` at 64 px, trainings by name."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from stages.caption.params import CaptionParams
from stages.caption.run import main as caption
from stages.clean.params import CleanParams
from stages.clean.review import COLUMNS
from stages.clean.run import main as clean
from stages.collect.params import CollectParams
from stages.collect.run import main as collect
from stages.encode.params import EncodeParams
from stages.encode.run import main as encode
from stages.inspect.params import InspectParams
from stages.inspect.run import main as inspect
from stages.preprocess.params import PreprocessParams
from stages.preprocess.run import main as preprocess
from stages.score.params import ScoreParams
from stages.score.run import main as score
from stages.train.params import TrainParams
from stages.train.run import main as train

ROOT = Path(__file__).parents[1]
BASE = ROOT / "models" / "tiny-sd"
COMMON: dict[str, Any] = {"schedule": "cosine", "warmup_steps": 10, "preview_every": 0, "validate_every": 1000}


@dataclass(frozen=True)
class Project:
    """A folder with data/processed and data/latents of its own, and trained models by name."""

    folder: Path

    @property
    def processed(self) -> Path:
        return self.folder / "processed"

    @property
    def latents(self) -> Path:
        return self.folder / "latents"

    def train(self, name: str, values: dict[str, Any]) -> Path:
        """A model folder; one that is there already is taken as it is."""
        out = self.folder / name
        if not out.is_dir():
            began, worked = time.perf_counter(), time.process_time()
            params, live = TrainParams.model_validate(COMMON | values), self.folder / f"{name}-live"
            train(params, ROOT / "compute" / "one.yaml", self.latents, self.processed, BASE, out, live)
            took, worked = time.perf_counter() - began, time.process_time() - worked
            print(f"{name}: {took:.0f} s, {worked:.0f} s of a core's work", file=sys.stderr)
        return out


def prepare(folder: Path, source: dict[str, Any], rules: dict[str, Any]) -> Project:
    """Bring one source through every stage before `train`, with its edges as conditions."""
    project = Project(folder)
    if project.latents.is_dir():
        return project
    raw, inspected, kept, metrics = (folder / name for name in ("raw", "inspected", "clean", "metrics.json"))
    captions, scores, review = (folder / name for name in ("captions.parquet", "scores.parquet", "review.csv"))
    folder.mkdir(parents=True, exist_ok=True)
    review.write_text(",".join(COLUMNS) + "\n")
    collect(CollectParams.model_validate({"sources": [source]}), folder, raw, metrics)
    caption(CaptionParams(), raw, folder, captions, metrics)
    score(ScoreParams(), raw, captions, folder, BASE, scores)
    inspect(InspectParams(), raw, captions, inspected)
    clean(CleanParams.model_validate(rules), inspected, scores, review, kept, metrics, folder / "rejected.csv")
    finished = PreprocessParams(resolution=64, conditions=["canny"])
    preprocess(finished, raw, kept, folder / "conditions", project.processed, metrics)
    encode(EncodeParams(batch_size=32), project.processed, BASE, project.latents, metrics)
    return project


def draw_subject(turn: float, shift: tuple[int, int], size: float) -> Image.Image:
    """A blue cat's face with a yellow star on its forehead, 128 px on white; size: share of the usual."""
    sheet = Image.new("RGB", (512, 512), "white")
    pen = ImageDraw.Draw(sheet)
    blue, dark = "#2f6fde", "#173a7a"
    for side in (-1, 1):
        pen.polygon([(256 + side * x, y) for x, y in ((190, 60), (60, 150), (185, 260))], fill=blue)
        pen.polygon([(256 + side * x, y) for x, y in ((170, 105), (100, 155), (165, 210))], fill="#f48fb1")
    pen.ellipse((66, 130, 446, 460), fill=blue)
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 22, 55)
    star = np.stack([256 + radii * np.cos(angles), 195 + radii * np.sin(angles)], axis=1)
    pen.polygon([(float(x), float(y)) for x, y in star], fill="#ffd400")
    for side in (-1, 1):
        pen.ellipse((256 + side * 85 - 30, 265, 256 + side * 85 + 30, 335), fill="white")
        pen.ellipse((256 + side * 85 - 16, 280, 256 + side * 85 + 16, 330), fill="black")
        for drop in (345, 375):
            pen.line((256 + side * 95, drop, 256 + side * 215, drop + 15), fill=dark, width=8)
    pen.polygon([(236, 345), (276, 345), (256, 370)], fill="#f48fb1")
    pen.arc((206, 350, 256, 410), 0, 130, fill=dark, width=8)
    pen.arc((256, 350, 306, 410), 50, 180, fill=dark, width=8)
    turned = sheet.rotate(turn, Image.Resampling.BICUBIC, translate=shift, fillcolor="white")
    side = round(512 / size)
    frame = Image.new("RGB", (side, side), "white")
    frame.paste(turned, ((side - 512) // 2, (side - 512) // 2))
    return frame.resize((128, 128), Image.Resampling.LANCZOS)


def subject_project(folder: Path) -> Project:
    """Five pictures of the subject and one held out: their likeness is no reason to reject them."""
    (folder / "subject").mkdir(parents=True, exist_ok=True)
    places = [(0, (0, 0), 1.0), (8, (12, -8), 0.9), (-8, (-14, 6), 0.95), (4, (0, 16), 0.85), (-4, (8, 10), 1.0)]
    places += [(0, (-6, -4), 0.9)]
    for number, place in enumerate(places):
        draw_subject(*place).save(folder / "subject" / f"{number}.png")
    rules = {"validation_count": 1, "duplicates": {"radius": 0, "confirm_radius": 0}}
    return prepare(folder, {"kind": "folder", "name": "subject", "captions": ["a blue cat"]}, rules)


def openmoji(folder: Path) -> Project:
    """All of OpenMoji, as the default run has it."""
    rules = {"duplicates": {"prefer_caption": "shortest"}}
    return prepare(folder / "openmoji", {"kind": "openmoji"}, rules)
