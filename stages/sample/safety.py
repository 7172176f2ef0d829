"""An image classifier looks at what was drawn: it records, and blurs by choice. No picture is taken away."""

from pathlib import Path

import torch
from PIL import Image, ImageFilter
from transformers import AutoImageProcessor, AutoModelForImageClassification

from stages.core.errors import StageError
from stages.sample.params import Safety

CELLS = 12  # how many blurred spots the shorter side has


class Classifier:
    """A transformers classifier from a folder; safetensors only."""

    def __init__(self, safety: Safety, folder: Path) -> None:
        """Raises StageError if it can't be opened, or lacks a label."""
        try:
            self.model = AutoModelForImageClassification.from_pretrained(
                folder, use_safetensors=True, torch_dtype=torch.float32, local_files_only=True
            ).eval()
            self.pixels = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise StageError("sample.safety.model", f"{folder} can't be opened ({said})", "see the guide") from None
        known = self.model.config.label2id
        for label in safety.labels:
            if label not in known:
                raise StageError("sample.safety.labels", f"{folder} has no class {label}", f"use {', '.join(known)}")
        self.safety = safety
        self.numbers = [int(known[label]) for label in safety.labels]

    @torch.no_grad()
    def flags(self, picture: Image.Image) -> list[str]:
        """The labels whose probability reaches the threshold; alone, so that no other picture matters."""
        logits = self.model(**self.pixels(images=[picture], return_tensors="pt")).logits[0].double()
        found = logits.softmax(-1)[self.numbers].tolist()
        pairs = zip(self.safety.labels, found, strict=True)
        return [label for label, value in pairs if value >= self.safety.threshold]

    def shown(self, picture: Image.Image, flags: list[str]) -> Image.Image:
        """As it is, or blurred until only spots are left."""
        if not flags or self.safety.action == "record":
            return picture
        return picture.filter(ImageFilter.GaussianBlur(min(picture.size) / CELLS))
