"""An image classifier looks at what was drawn: it records, and blurs by choice. No picture is taken away."""

from pathlib import Path

from PIL import Image, ImageFilter

from stages.core.vision import Classifier
from stages.sample.params import Safety

CELLS = 12  # how many blurred spots the shorter side has


class Watch:
    """A transformers classifier from a folder. Raises StageError if it can't be opened, or lacks a label."""

    def __init__(self, safety: Safety, folder: Path) -> None:
        self.safety = safety
        self._classifier = Classifier("sample.safety.model", "sample.safety.labels", safety.labels, str(folder))

    def flags(self, picture: Image.Image) -> list[str]:
        """The labels whose probability reaches the threshold; alone, so that no other picture matters."""
        found = self._classifier.probabilities([picture], 1)[0].tolist()
        pairs = zip(self.safety.labels, found, strict=True)
        return [label for label, value in pairs if value >= self.safety.threshold]

    def shown(self, picture: Image.Image, flags: list[str]) -> Image.Image:
        """As it is, or blurred until only spots are left."""
        if not flags or self.safety.action == "record":
            return picture
        return picture.filter(ImageFilter.GaussianBlur(min(picture.size) / CELLS))
