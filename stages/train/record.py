"""What a training leaves to look at: curves and previews, kept with the state and cut back to it."""

import shutil
from pathlib import Path

from dvclive import Live
from PIL import Image

from stages.train.state import State, save_state


class Record:
    """Logs to dvclive as the training goes, and again from the state when it goes on.

    What dvclive wrote after the last saved state is lost with the killed run, so
    the curve has each step once.
    """

    def __init__(self, live: Live, folder: Path, state: State, every: int) -> None:
        self.live, self.folder, self.state, self.every = live, folder, state, every
        shutil.rmtree(Path(live.dir) / "previews", ignore_errors=True)
        (folder / "previews").mkdir(exist_ok=True)
        for step, name, value in state.curve:
            self._log(step, name, value)
        for path in sorted((folder / "previews").glob("*.png")):
            if int(path.stem) <= state.step:
                self._show(path)
            else:
                path.unlink()

    def loss(self, value: float) -> None:
        """Take one step's training loss; every `every` steps their mean is logged."""
        losses = self.state.losses
        losses.append(value)
        if self.state.step % self.every == 0:
            self._add("train/loss", sum(losses) / len(losses))
            losses.clear()

    def validation(self, figures: dict[str, float]) -> None:
        """Log what was measured on held-out pictures."""
        for name, value in figures.items():
            self._add(f"validation/{name}", value)

    def preview(self, picture: Image.Image) -> None:
        """Keep the picture and show it."""
        path = self.folder / "previews" / f"{self.state.step:07d}.png"
        picture.save(path)
        self._show(path)

    def save(self) -> None:
        save_state(self.folder, self.state)

    def _add(self, name: str, value: float) -> None:
        self.state.curve.append((self.state.step, name, value))
        self._log(self.state.step, name, value)

    def _log(self, step: int, name: str, value: float) -> None:
        self.live.step = step
        self.live.log_metric(name, value, timestamp=False)

    def _show(self, path: Path) -> None:
        target = Path(self.live.dir) / "previews" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
