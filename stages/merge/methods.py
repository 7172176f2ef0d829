"""Merge methods: short functions of tensors, in float32, registered by name.

A function sees some rows of every model's tensor of one name, (R, ...). theta: a model's weights; delta: what sets
them apart from their ancestor. What a method has to know of the whole tensor is measured before
(`stages.merge.measures`) and handed over as `measured`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import scipy.ndimage
import torch

from stages.core.draws import seed_of
from stages.merge.measures import Cosines, angle, columns, pairwise_cosine, thresholds

Tensor = torch.Tensor


@dataclass(frozen=True)
class Method:
    """measure: what is known of the whole tensor. halo: rows before and after that the function needs to see."""

    function: Callable[..., Tensor]
    measure: Callable[..., Any] | None = None
    halo: int = 0


METHODS: dict[str, Method] = {}


def method(
    measure: Callable[..., Any] | None = None, halo: int = 0
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a function under its name."""

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        METHODS[function.__name__] = Method(function, measure, halo)
        return function

    return register


@method()
def weighted_sum(a: Tensor, b: Tensor, ratio: float) -> Tensor:
    """(1 - ratio) a + ratio b; exactly a at 0 and exactly b at 1.

    Source: model soups with two ingredients (Wortsman et al., arXiv 2203.05482).
    """
    return torch.lerp(a, b, ratio)


@method()
def sigmoid(a: Tensor, b: Tensor, ratio: float) -> Tensor:
    """Weighted sum at ratio^2 (3 - 2 ratio), the smoothstep: nearer to whichever is nearer. ratio: 0 to 1."""
    return torch.lerp(a, b, ratio * ratio * (3 - 2 * ratio))


@method()
def inverse_sigmoid(a: Tensor, b: Tensor, ratio: float) -> Tensor:
    """Weighted sum at 1/2 - sin(asin(1 - 2 ratio) / 3), the inverse of the smoothstep. ratio: 0 to 1."""
    return torch.lerp(a, b, 0.5 - math.sin(math.asin(1 - 2 * min(max(ratio, 0.0), 1.0)) / 3))


@method()
def average(models: list[Tensor], weights: list[float], ratio: float) -> Tensor:
    """sum(w_i theta_i) / sum(w_i), at ratio 1; the first model at 0. Weights above 0.

    As a running mean, which leaves equal models exactly as they are. Source: arXiv 2203.05482, section 2.
    """
    mean, total = models[0], weights[0]
    for theta, weight in zip(models[1:], weights[1:], strict=True):
        total += weight
        mean = torch.lerp(mean, theta, weight / total)
    return torch.lerp(models[0], mean, ratio)


@method()
def add_difference(a: Tensor, b: Tensor, c: Tensor, ratio: float) -> Tensor:
    """a + ratio (b - c). Source: task vectors (Ilharco et al., arXiv 2212.04089), one of them, from another model."""
    return torch.add(a, b - c, alpha=ratio)


@method()
def triple_sum(a: Tensor, b: Tensor, c: Tensor, ratio: float, ratio_c: float) -> Tensor:
    """(1 - ratio - ratio_c) a + ratio b + ratio_c c."""
    return a * (1 - ratio - ratio_c) + b * ratio + c * ratio_c


@method()
def twice_sum(a: Tensor, b: Tensor, c: Tensor, ratio: float, ratio_c: float) -> Tensor:
    """The weighted sum of a and b, in a weighted sum with c."""
    return torch.lerp(torch.lerp(a, b, ratio), c, ratio_c)


@method(measure=angle)
def slerp(a: Tensor, b: Tensor, ratio: float, measured: float | None) -> Tensor:
    """[sin((1 - t) omega) a + sin(t omega) b] / sin(omega), omega the angle between the whole tensors, t the ratio.

    A weighted sum where they are nearly parallel or vanish (measured None). Source: Shoemake, Animating Rotation with
    Quaternion Curves, SIGGRAPH 1985.
    """
    if measured is None:
        return torch.lerp(a, b, ratio)
    sine = math.sin(measured)
    return a * (math.sin((1 - ratio) * measured) / sine) + b * (math.sin(ratio * measured) / sine)


@method(measure=lambda chunks: angle(lambda: ({"a": x["a"] - x["c"], "b": x["b"] - x["c"]} for x in chunks())))
def slerp_deltas(a: Tensor, b: Tensor, c: Tensor, ratio: float, measured: float | None) -> Tensor:
    """c + slerp(a - c, b - c): between fine-tunes of one base weights are nearly parallel, and only deltas turn."""
    if measured is None:
        return torch.lerp(a, b, ratio)
    return c + slerp(a - c, b - c, ratio, measured)


@method()
def task_arithmetic(a: Tensor, models: list[Tensor], weights: list[float], ratio: float) -> Tensor:
    """a + ratio sum(w_i delta_i). Source: Ilharco et al., arXiv 2212.04089, section 2."""
    return _added(a, [theta - a for theta in models], weights, ratio)


@method(measure=thresholds)
def ties(a: Tensor, models: list[Tensor], weights: list[float], ratio: float, measured: list[float]) -> Tensor:
    """a + ratio times the mean of the deltas that agree with the elected sign, each trimmed to its largest numbers.

    measured: the smallest magnitude that stays of each delta, for which `density` says how many do; of each tensor, not
    of the whole model. Source: Yadav et al., arXiv 2306.01708, algorithm 1, with weighted deltas.
    """
    deltas = [theta - a for theta in models]
    kept = [delta * (delta.abs() >= least) for delta, least in zip(deltas, measured, strict=True)]
    return a + ratio * _elected_mean(kept, weights)


@method()
def dare(
    a: Tensor, models: list[Tensor], weights: list[float], ratio: float, density: float, draws: tuple[Any, ...]
) -> Tensor:
    """a + ratio sum(w_i m_i delta_i / density), m_i drawn to keep each number with the chance `density`.

    Source: Yu et al., arXiv 2311.03099, equations 3 and 4 (p there is the share that is dropped).
    """
    return _added(a, _dropped(a, models, density, draws), weights, ratio)


@method()
def dare_ties(
    a: Tensor, models: list[Tensor], weights: list[float], ratio: float, density: float, draws: tuple[Any, ...]
) -> Tensor:
    """As `dare` drops, as `ties` elects and takes the mean. Source: arXiv 2311.03099, section 4.3."""
    return a + ratio * _elected_mean(_dropped(a, models, density, draws), weights)


@method()
def della(
    a: Tensor,
    models: list[Tensor],
    weights: list[float],
    ratio: float,
    density: float,
    epsilon: float,
    draws: tuple[Any, ...],
) -> Tensor:
    """As `dare_ties`, but the chance to stay rises with a number's rank by magnitude in its row.

    From density - epsilon for the smallest to density + epsilon for the largest; what stays is divided by its chance.
    Biases and other vectors are one row. Source: Deep et al., arXiv 2406.11617, section 3.1.
    """
    kept = []
    for number, theta in enumerate(models):
        delta = theta - a
        rows = delta.flatten(1) if delta.dim() > 1 else delta[None]
        ranks = rows.abs().argsort(dim=1, stable=True).argsort(dim=1).float()
        chance = density - epsilon + 2 * epsilon * ranks / max(rows.shape[1] - 1, 1)
        kept.append((rows * (_uniform(rows.shape, *draws, number) < chance) / chance).reshape(delta.shape))
    return a + ratio * _elected_mean(kept, weights)


@method(measure=pairwise_cosine)
def model_stock(a: Tensor, models: list[Tensor], weights: list[float], ratio: float, measured: float) -> Tensor:
    """a + ratio t mean(delta_i), t = N c / (1 + (N - 1) c), c the mean cosine between two whole deltas.

    c below 0, where t has a pole, counts as 0: deltas that point away from each other cancel. Source: Jang et al.,
    arXiv 2403.19522, equation 5; weights as in a weighted mean.
    """
    cosine, number = max(measured, 0.0), len(models)
    share = number * cosine / (1 + (number - 1) * cosine)
    total = sum(weights)
    return _added(a, [theta - a for theta in models], [weight / total for weight in weights], ratio * share)


@method(measure=columns)
def cosine_a(a: Tensor, b: Tensor, ratio: float, measured: Cosines) -> Tensor:
    """Weighted sum at 1 - clamp(s - ratio, 0, 1), s the cosine between two columns: b where the models differ.

    Source: mode cosineA of the extension sd-webui-supermerger, with similarities of a tensor as they are.
    """
    return torch.lerp(a, b, 1 - (measured.columns - ratio).clamp(0, 1))


@method(measure=columns)
def cosine_b(a: Tensor, b: Tensor, ratio: float, measured: Cosines) -> Tensor:
    """As `cosine_a`, s the mean of the columns' cosine and the whole tensors'. Source: mode cosineB of the same."""
    return torch.lerp(a, b, 1 - ((measured.columns + measured.whole) / 2 - ratio).clamp(0, 1))


@method()
def train_difference(a: Tensor, b: Tensor, c: Tensor, ratio: float) -> Tensor:
    """a + 1.8 ratio |b - a| / (|b - a| + |b - c|) (b - c): less where a has learned it already.

    Source: mode trainDifference of sd-webui-supermerger, which imitates training a on what b was trained on.
    """
    far, near = (b - a).abs(), (b - c).abs()
    return torch.addcmul(a, (far / (far + near)).nan_to_num(0), b - c, value=1.8 * ratio)


@method(halo=5)
def smooth_add(a: Tensor, b: Tensor, c: Tensor, ratio: float) -> Tensor:
    """a + ratio G(M(b - c)): M the median of 3 numbers along every dimension, G a Gaussian of deviation 1.

    The halo: one row of the median, four of the Gaussian. Slow: the median of a 3 x 3 convolution's is of 81 numbers.
    Source: mode smoothAdd of sd-webui-supermerger.
    """
    smooth = scipy.ndimage.gaussian_filter(scipy.ndimage.median_filter((b - c).numpy(), size=3), sigma=1)
    return torch.add(a, torch.from_numpy(smooth), alpha=ratio)


def _added(a: Tensor, deltas: list[Tensor], weights: list[float], ratio: float) -> Tensor:
    for delta, weight in zip(deltas, weights, strict=True):
        a = torch.add(a, delta, alpha=ratio * weight)
    return a


def _elected_mean(deltas: list[Tensor], weights: list[float]) -> Tensor:
    """sum(w_i delta_i) / sum(w_i) over those whose sign is that of sum(w_i delta_i); 0 where none is left."""
    weighted = [delta * weight for delta, weight in zip(deltas, weights, strict=True)]
    elected = torch.stack(weighted).sum(dim=0).sign()
    total, share = torch.zeros_like(elected), torch.zeros_like(elected)
    for delta, weight in zip(weighted, weights, strict=True):
        agrees = (delta.sign() == elected) & (delta != 0)
        total += delta * agrees
        share += agrees * abs(weight)
    return torch.where(share > 0, total / share.clamp(min=1e-30), 0.0)


def _dropped(a: Tensor, models: list[Tensor], density: float, draws: tuple[Any, ...]) -> list[Tensor]:
    """The deltas, each number kept with the chance `density` and then divided by it."""
    return [
        (theta - a) * (_uniform(a.shape, *draws, number) < density) / density for number, theta in enumerate(models)
    ]


def _uniform(shape: tuple[int, ...], *draws: Any) -> Tensor:
    """Numbers in [0, 1) that follow from what they are for: seed, tensor, first row, model."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed_of("merge", *draws)))
