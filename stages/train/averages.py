"""An exponential moving average of the weights (EMA): better pictures than from the last ones."""

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from stages.train.params import TrainParams


def average_decay(params: TrainParams, step: int) -> float:
    """What the average keeps of itself at the optimiser step `step`, counted from 0.

    min(ema_decay, (1 + step) / (ema_warmup + step)): the first weights mean nothing and are soon forgotten
    (TensorFlow's ExponentialMovingAverage, whose ema_warmup is 10).
    """
    return min(params.ema_decay, (1 + step) / (params.ema_warmup + step))


def average_weights(
    params: TrainParams, average: dict[str, torch.Tensor], weights: dict[str, torch.nn.Parameter], step: int
) -> None:
    """Move each averaged weight towards the current one of the same name, in place and in one pass.

    average <- average + (1 - decay) (weight - average): lerp over all tensors at once, without temporaries.
    """
    pairs = [(average[name], weight) for name, weight in weights.items()]
    averages, currents = zip(*pairs, strict=True)
    move = get_ema_multi_avg_fn(average_decay(params, step))  # type: ignore[no-untyped-call]  # torch has no types here
    move(averages, currents, step)
