"""What moves the weights: the optimiser of `train.optimizer`, with a learning rate for each part of the model."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from stages.core.errors import StageError
from stages.train.adafactor import Adafactor
from stages.train.muon import Muon
from stages.train.params import TrainParams

Part = torch.nn.Module | Sequence[torch.nn.Parameter]

LEAST = 16  # channels in and out from which on a weight is a matrix; first and last layers have fewer


def make_optimizers(params: TrainParams, trained: torch.nn.Module | Sequence[tuple[Part, float]]) -> list[Optimizer]:
    """The optimisers that share the weights of `trained` that have a gradient: one; of muon one or two.

    trained: a network, or several with the factor by which each one's learning rate differs, such as a UNet at 1 and
    its text encoder at 0.5. A group of weights holds its factor: at every step
    `group["lr"] = learning_rate(params, step) * group["factor"]`. Muon must be told of embeddings, which are no
    matrices to it: where there are some, hand over modules instead of lists of weights.

    Raises StageError where the optimiser isn't installed (see `TrainParams.verify`), or can't have several rates.
    """
    params.verify()
    parts = [(trained, 1.0)] if isinstance(trained, torch.nn.Module) else trained
    if params.optimizer == "prodigy" and len({factor for _, factor in parts}) > 1:
        raise StageError(
            "train", "prodigy finds one learning rate for all weights, and was given several", "choose adamw for that"
        )
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for part, factor in parts:
        whole, rest = split_matrices(part) if params.optimizer == "muon" else ([], list(weights_of(part)))
        shared = {"factor": factor, "lr": params.learning_rate * factor, "weight_decay": params.weight_decay}
        matrices += [{"params": whole, **shared}] if whole else []
        others += [{"params": rest, **shared}] if rest else []
    optimizers: list[Optimizer] = []
    if others:
        optimizers.append(make_optimizer(params, others))
    if matrices:
        optimizers.append(Muon(matrices, params.learning_rate))
    return optimizers


def make_optimizer(params: TrainParams, groups: list[dict[str, Any]]) -> Optimizer:
    """The one that takes any weight; AdamW beside Muon.

    Adafactor: Shazeer and Stern, arXiv 1804.04235. AdamW: Loshchilov and Hutter, arXiv 1711.05101; in 8 bits:
    Dettmers et al., arXiv 2110.02861. Lion: Chen et al., arXiv 2302.06675. Prodigy: Mishchenko and Defazio,
    arXiv 2306.06101, set as its authors advise for diffusion models.
    """
    rate = params.learning_rate
    beta2 = params.beta2 if params.beta2 is not None else 0.99 if params.optimizer == "lion" else 0.999
    betas = (params.beta1, beta2)
    optimizer: Optimizer
    match params.optimizer:
        case "adafactor":
            optimizer = Adafactor(groups, rate)
        case "adamw_8bit":
            from bitsandbytes.optim import AdamW8bit

            optimizer = AdamW8bit(groups, lr=rate, betas=betas)
        case "lion":
            from lion_pytorch import Lion

            optimizer = Lion(groups, lr=rate, betas=betas)
        case "prodigy":
            from prodigyopt import Prodigy

            optimizer = Prodigy(groups, lr=rate, betas=betas, use_bias_correction=True, safeguard_warmup=True)
        case "adamw" | "muon":
            optimizer = AdamW(groups, lr=rate, betas=betas, fused=True)
    return optimizer


def split_matrices(part: Part) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """The weights that are matrices, and the rest: biases, embeddings, first and last layers."""
    modules = part.modules() if isinstance(part, torch.nn.Module) else ()
    tables = {
        id(weight) for module in modules if isinstance(module, torch.nn.Embedding) for weight in module.parameters()
    }
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for weight in weights_of(part):
        is_matrix = weight.ndim >= 2 and min(weight.shape[:2]) >= LEAST and id(weight) not in tables
        (matrices if is_matrix else others).append(weight)
    return matrices, others


def weights_of(part: Part) -> Iterator[torch.nn.Parameter]:
    """Those that learn."""
    weights = part.parameters() if isinstance(part, torch.nn.Module) else part
    return (weight for weight in weights if weight.requires_grad)
