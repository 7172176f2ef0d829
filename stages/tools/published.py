"""Published trainings of Stable Diffusion, and what is estimated of them: `python -m stages.tools.plan --check`."""

from collections.abc import Iterator
from dataclasses import dataclass

from stages.tools.blueprints import PRESETS
from stages.tools.hardware import Table
from stages.tools.workload import Workload, measure
from stages.train.params import TrainParams

NEAR = 0.25  # the most by which a tuned run's hours may be off


@dataclass(frozen=True)
class Run:
    """One. images: (side in px, images seen). hours: of one GPU. price: USD an hour of one, where the source says it.
    online: VAE and text encoder ran at every step. tuned: its speed is what a good trainer gets."""

    name: str
    base: str
    gpu: str
    images: tuple[tuple[int, float], ...]
    hours: float
    price: float | None
    online: bool
    tuned: bool
    source: str


def hours_at(images: float, a_second: float) -> float:
    """Hours of one GPU that makes so many images a second."""
    return images / a_second / 3600


MOSAIC = ((256, 1126.4e6), (512, 1740.8e6))
ALL = sum(count for _, count in MOSAIC)
RUNS = (
    Run("MosaicML, 8 GPUs", "sd21", "A100", MOSAIC, 81.33 * 24 * 8, 2.0, False, True, "mosaicml/diffusion"),
    Run("MosaicML, 128 GPUs", "sd21", "A100", MOSAIC, 5.51 * 24 * 128, 2.0, False, True, "mosaicml/diffusion"),
    Run("Anyscale, reserved", "sd21", "A100", MOSAIC, 13165, 3.0, False, True, "anyscale/templates"),
    Run("NeMo, 100M images", "sd15", "A100", ((512, 1e8),), hours_at(1e8, 25.0), None, True, True, "NeMo README"),
    Run("NeMo, 100M images", "sd15", "H100", ((512, 1e8),), hours_at(1e8, 52.4), None, True, True, "NeMo README"),
    Run("MosaicML first, 8", "sd21", "A100", ((512, ALL),), 49696, None, True, False, "mosaicml/diffusion-benchmark"),
    Run("MosaicML first, 128", "sd21", "A100", ((512, ALL),), 62987, 2.0, True, False, "mosaicml/diffusion-benchmark"),
    Run(
        "SD v1, CompVis", "sd15", "A100", ((256, 237e3 * 2048), (512, 904e3 * 2048)), 150000, None, True, False, "card"
    ),
)


@dataclass(frozen=True)
class Checked:
    """A run and what is estimated. ratio: estimated by published hours. implied: the utilisation that it had."""

    run: Run
    hours: float
    ratio: float
    implied: float


def check(table: Table) -> Iterator[Checked]:
    """Each run, by the table's one utilisation of its GPU."""
    known: dict[tuple[str, int], Workload] = {}
    for run in RUNS:
        flops = 0.0
        for side, images in run.images:
            if (run.base, side) not in known:
                known[run.base, side] = measure(PRESETS[run.base], TrainParams(precision="bf16"), side)
            work = known[run.base, side]
            flops += images * (work.step.training + (work.encode + work.read if run.online else 0))
        row = table.hardware[run.gpu]
        hours = flops / (row.half * row.utilisation * 1e12) / 3600
        yield Checked(run, hours, hours / run.hours, flops / (row.half * 1e12) / 3600 / run.hours)
