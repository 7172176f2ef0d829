"""How the learning rate goes over the steps of a training."""

import math

from stages.train.params import TrainParams


def learning_rate(params: TrainParams, step: int) -> float:
    """Of the optimiser step `step`, counted from 0: a linear warm-up, then the schedule.

    The first of n warm-up steps has 1/n of the rate, the last one all of it. Then the rate goes from all of it to the
    share `end_rate`, which step number `steps` would have, the first one that isn't taken:
    linear, half a cosine (Loshchilov and Hutter, arXiv 1608.03983, eq. 5), or (1 - share done)^power.
    """
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    done = min(1.0, (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps))
    match params.schedule:
        case "constant":
            return params.learning_rate
        case "linear":
            left = 1 - done
        case "cosine":
            left = (1 + math.cos(math.pi * done)) / 2
        case "polynomial":
            left = (1 - done) ** params.power
    return params.learning_rate * (params.end_rate + (1 - params.end_rate) * left)
