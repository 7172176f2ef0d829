"""From work to hours, bytes and money."""

from dataclasses import dataclass

from stages.core.errors import StageError
from stages.tools.hardware import Hardware, Table
from stages.tools.workload import Workload
from stages.train.params import TrainParams

# Bytes of an optimiser's state a weight. adafactor: means of rows and columns, next to nothing. muon: one momentum of
# its matrices, AdamW's two of the rest. prodigy: two averages, the first weights and an average of gradients.
STATE = {"adamw": 8.0, "adamw_8bit": 2.0, "adafactor": 0.01, "lion": 4.0, "prodigy": 16.0}
# Times that a step passes over a float32 of each weight beside the network's own work: gradient written, read for its
# norm and for the step; weight read and written; then the state read and written, the average too.
PASSES = 5
LEAST = 0.03  # seconds of a pass forward and backward on a GPU: its kernels take so long to start; assumed
# Of the bytes counted: gradients of activations and an allocator's gaps come to it. Processes on a CPU had 1.2 to 1.5
# times what was counted at their peak (docs/cost.md).
MARGIN = 1.2
OVERHEAD = 1.5e9  # bytes: CUDA's context, libraries' workspaces, what the allocator can't use; assumed


@dataclass(frozen=True)
class Memory:
    """Peak bytes in training, by what they are for. pictures: at once."""

    weights: float
    gradients: float
    optimiser: float
    average: float
    activations: float
    pictures: int

    @property
    def total(self) -> float:
        """The sum: as if gradients were whole while every activation is still held."""
        return self.weights + self.gradients + self.optimiser + self.average + self.activations


def memory_of(work: Workload, params: TrainParams, split: int = 1, on_gpu: bool = True) -> Memory:
    """On one GPU, params.batch_size pictures at once. split: processes that share weights, gradients and state."""
    frozen = 2 if params.precision != "no" and on_gpu else 4  # what is only read lies in half precision on a GPU
    return Memory(
        (4 * work.weights / split) + frozen * work.frozen,
        4 * work.weights / split,
        state_bytes(work, params) / split,
        4 * work.weights / split if params.ema_decay else 0.0,
        work.step.kept * params.batch_size + work.step.shared,
        params.batch_size,
    )


def state_bytes(work: Workload, params: TrainParams) -> float:
    """Of the optimiser."""
    if params.optimizer == "muon":
        return 4.0 * work.matrices + 8.0 * (work.weights - work.matrices)
    return STATE[params.optimizer] * work.weights


@dataclass(frozen=True)
class Share:
    """FLOPs of the whole run. training; encoding, once a picture and caption; looking: validation and previews."""

    training: float
    encoding: float
    looking: float

    @property
    def total(self) -> float:
        return self.training + self.encoding + self.looking


def work_of(work: Workload, params: TrainParams, pictures: int | None, held_out: int | None) -> Share:
    """Of one run on so many finished pictures, a caption each; of an unknown number nothing is counted."""
    samples = params.steps * params.batch_size * params.accumulation
    looking: float
    validations = 2 + (params.steps - 1) // params.validate_every
    looked = min(params.validation_pictures, held_out if held_out is not None else params.validation_pictures)
    looking = validations * looked * params.validation_bins * work.denoise
    if params.preview_every and params.preview_prompts:
        drawn = (2 + (params.steps - 1) // params.preview_every) * len(params.preview_prompts)
        looking += drawn * drawing(work, params.preview_steps, params.preview_guidance)
    if params.prior.prompt:
        looking += params.prior.pictures * drawing(work, params.prior.steps, params.prior.guidance)
    return Share(samples * work.step.training, (pictures or 0) * (work.encode + work.read), looking)


def drawing(work: Workload, steps: int, guidance: float) -> float:
    """FLOPs of one picture: twice the denoiser a step where there is guidance."""
    return steps * (2 if guidance > 1 else 1) * work.denoise + work.decode


def hours_of(
    share: Share, work: Workload, params: TrainParams, row: Hardware, table: Table, measured: float | None = None
) -> float:
    """Hours of one such GPU or machine, all of the run: FLOPs at the speed that training gets, and the weights' updates
    at the memory's bandwidth."""
    speed = measured or table.speed(row, precision_on(row, params))
    passes = PASSES + 2 * state_bytes(work, params) / max(1, 4 * work.weights) + (3 if params.ema_decay else 0)
    updates = params.steps * passes * 4 * work.weights / (row.bandwidth * 1e9)
    waits = params.steps * params.accumulation * LEAST if row.gpu else 0.0
    training = max(share.training / speed, waits) + (0.0 if measured else updates)
    return (training + (share.encoding + share.looking) / speed) / 3600


def precision_on(row: Hardware, params: TrainParams) -> str:
    """bf16 becomes fp16 where the hardware has none."""
    return "fp16" if params.precision == "bf16" and not row.bf16 else params.precision


def fits(memory: Memory, row: Hardware) -> bool:
    """Whether training fits, with room for what isn't counted."""
    return MARGIN * memory.total + OVERHEAD <= row.memory * 1e9


def largest_batch(work: Workload, params: TrainParams, row: Hardware) -> int:
    """The most pictures at once that fit, a power of two; 0 if none does."""
    batch = 0
    for exponent in range(13):
        if not fits(memory_of(work, params.model_copy(update={"batch_size": 2**exponent})), row):
            break
        batch = 2**exponent
    return batch


def with_params(params: TrainParams, **changes: object) -> TrainParams:
    """The same, but for some knobs, checked again. Raises StageError."""
    try:
        return TrainParams.model_validate({**params.model_dump(), **changes})
    except ValueError as error:
        raise StageError("train", str(error).splitlines()[-1], "see docs/params.md") from None
