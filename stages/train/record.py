"""What a training leaves to look at: curves and previews, kept with the state and cut back to it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from dvclive import Live
from PIL import Image
from safetensors.torch import load_file, save_file

from stages.core.files import replacing
from stages.train.params import TrainParams
from stages.train.sharding import gathered
from stages.train.state import State, save_state

BEST = "best.safetensors"


class Record:
    """Logs to dvclive as the training goes, and again from the state when it goes on.

    What dvclive wrote after the last saved state is lost with the killed run, so
    the curve has each step once. Of several processes one writes: the others have no `live`.
    """

    def __init__(self, params: TrainParams, live: Live | None, folder: Path, state: State) -> None:
        self.params, self.live, self.folder, self.state = params, live, folder, state
        if live is None:
            return
        shutil.rmtree(Path(live.dir) / "previews", ignore_errors=True)
        (folder / "previews").mkdir(exist_ok=True)
        for step, name, value in state.curve:
            self._log(step, name, value)
        for path in sorted((folder / "previews").glob("*.png")):
            if int(path.stem) <= state.step:
                self._show(path)
            else:
                path.unlink()

    @property
    def shows(self) -> bool:
        """Whether previews are looked at here."""
        return self.live is not None

    def step(self, levels: Sequence[float], losses: Sequence[float], norm: float, rate: float) -> None:
        """Take one step's losses; every `log_every` steps their mean is logged, and that of each bin of levels."""
        seen = self.state.losses
        seen += zip(levels, losses, strict=True)
        if self.state.step % self.params.log_every:
            return
        self._add("train/loss", sum(loss for _, loss in seen) / len(seen))
        bins = self.params.loss_bins
        for part in range(bins):
            found = [loss for level, loss in seen if level >= 0 and min(int(level * bins), bins - 1) == part]
            if found:
                self._add(f"train/bins/{part:02d}", sum(found) / len(found))
        self._add("train/gradient_norm", norm)
        self._add("train/learning_rate", rate)
        seen.clear()

    def validation(self, figures: dict[str, float], weights: Mapping[str, torch.Tensor] | None) -> None:
        """Log what was measured on held-out pictures; the weights that were, where they are the best, are kept."""
        for name, value in figures.items():
            self._add(f"validation/{name}", value)
        if figures and self.live is not None:
            print(f"step {self.state.step}: validation loss {figures['loss']:.4f}", flush=True)
        losses = self._validated()
        if weights and losses and min(losses) == losses[-1]:
            best = gathered({name: weight.detach() for name, weight in weights.items()}, keep=self.live is not None)
            if self.live is not None:
                with replacing(self.folder / BEST) as temporary:
                    save_file({name: weight.contiguous().cpu() for name, weight in best.items()}, temporary)

    def _validated(self) -> list[float]:
        return [value for _, name, value in self.state.curve if name == "validation/loss"]

    def stalled(self, patience: int) -> bool:
        """Whether so many validations in a row had no lower loss than the best before; never if patience is 0."""
        losses = self._validated()
        return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])

    def best_weights(self, last: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights of the lowest validation loss; the last ones where nothing was validated.

        The file may be of a later step than the state that a killed run went on from: that step has been taken again
        since, with the same weights.
        """
        path = self.folder / BEST
        return load_file(path) if path.exists() else last

    def preview(self, picture: Image.Image | None) -> None:
        """Keep the picture, if there is one, and show it."""
        if picture is None or self.live is None:
            return
        path = self.folder / "previews" / f"{self.state.step:07d}.png"
        picture.save(path)
        self._show(path)

    def save(self, state: State) -> None:
        if self.live is not None:
            save_state(self.folder, state)

    def _add(self, name: str, value: float) -> None:
        self.state.curve.append((self.state.step, name, value))
        self._log(self.state.step, name, value)

    def _log(self, step: int, name: str, value: float) -> None:
        if self.live is not None:
            self.live.step = step
            self.live.log_metric(name, value, timestamp=False)

    def _show(self, path: Path) -> None:
        if self.live is not None:
            target = Path(self.live.dir) / "previews" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
