"""LoRAs: put into weights, put together, made smaller, made from the difference of two models.

A LoRA's update of a weight is up @ down, (out, rank) @ (rank, in): for a convolution `in` counts the kernel's numbers
too. Source: Hu et al., arXiv 2106.09685, section 4.1.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from stages.core.errors import StageError
from stages.core.lora_names import Role, alphas_of, roles_of
from stages.core.original_names import Family
from stages.merge.headers import Files, Place, count, read_header

PARTS = ("unet.", "text_encoder.", "text_encoder_2.")  # that a LoRA can change
AT_ONCE = 2048  # columns of a matrix whose products are summed at once


@dataclass(frozen=True)
class Factors:
    """up: (out, rank). down: (rank, in). Both float32; the scale is in `up`."""

    up: torch.Tensor
    down: torch.Tensor


@dataclass(frozen=True)
class LoraFile:
    """One file's tensors by weight and role, and its scale alpha / rank of each weight times what the recipe gives."""

    label: str
    path: Path
    places: dict[str, dict[Role, Place]]
    scales: dict[str, float]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Loras:
    """Several files that are added."""

    files: tuple[LoraFile, ...]

    @property
    def names(self) -> list[str]:
        """The weights that any of them changes."""
        return sorted({name for file in self.files for name in file.places})

    def factors(self, files: Files, name: str, ratio: float, rank: int) -> Factors | None:
        """The sum of the updates of a weight times the ratio: concatenated, which is exact, or cut to a rank."""
        ups, downs = [], []
        for lora in self.files:
            if name in lora.places:
                down, up = (_matrix(files, lora.places[name][role]) for role in ("down", "up"))
                ups.append(up * (lora.scales[name] * ratio))
                downs.append(down)
        if not ups:
            return None
        whole = Factors(torch.cat(ups, dim=1), torch.cat(downs))
        return reduced(whole, rank) if 0 < rank < len(whole.down) else whole


def _matrix(files: Files, place: Place) -> torch.Tensor:
    return files.rows(place, 0, place.shape[0]).float().flatten(1)


def open_lora(label: str, path: Path, weight: float, family: Family, shapes: dict[str, tuple[int, ...]]) -> LoraFile:
    """Match a file's tensors with a model's weights. shapes: the model's, by name.

    Raises StageError, which names the key, if one of them fits no weight or has no counterpart.
    """
    header = read_header(path)
    modules = [name.removesuffix(".weight") for name in shapes if name.endswith(".weight") and name.startswith(PARTS)]
    found, rest = roles_of(family, header.tensors, modules)
    if rest:
        raise StageError(label, f"{rest[0]} is no tensor of a LoRA for this model", "use a LoRA of the model's family")
    places = {
        f"{module}.weight": {role: header.tensors[key] for role, key in keys.items()} for module, keys in found.items()
    }
    for name, roles in places.items():
        _check(label, name, roles, shapes[name])
    ranks = {module: header.tensors[keys["down"]].shape[0] for module, keys in found.items()}
    alphas = alphas_of(header.metadata, ranks)
    alphas |= _own_alphas(path, {module: places[f"{module}.weight"] for module in found})
    scales = {f"{module}.weight": weight * alphas[module] / ranks[module] for module in found}
    return LoraFile(label, path, places, scales, header.metadata)


def _check(label: str, name: str, roles: dict[Role, Place], shape: tuple[int, ...]) -> None:
    for role in ("down", "up"):
        if role not in roles:
            raise StageError(label, f"{name} has no {role} matrix", "use a whole LoRA")
    down, up = roles["down"].shape, roles["up"].shape
    fits = len(down) > 1 and len(up) > 1 and len(shape) > 1 and up[0] == shape[0] and count(up[1:]) == down[0]
    if not fits or count(down[1:]) != count(shape[1:]):
        raise StageError(
            label, f"{name} of shape {shape} can't take {down} and {up}", "use a LoRA of the model's family"
        )


def _own_alphas(path: Path, places: dict[str, dict[Role, Place]]) -> dict[str, float]:
    """Those that stand as tensors in the file."""
    found = {module: roles["alpha"] for module, roles in places.items() if "alpha" in roles}
    with Files() as files:
        files.open([path] if found else [])
        return {module: float(files.rows(place, 0, 1).flatten()[0]) for module, place in found.items()}


def applied(below: torch.Tensor, factors: Factors, start: int, stop: int) -> torch.Tensor:
    """W + up @ down, for some rows."""
    return below + (factors.up[start:stop] @ factors.down).reshape(below.shape)


def reduced(factors: Factors, rank: int) -> Factors:
    """The nearest update of a lower rank, by the singular values of the product (Eckart and Young 1936).

    Of the small matrix between two orthogonal ones, so that the product itself is never made.
    """
    left, inner_left = torch.linalg.qr(factors.up.double())
    right, inner_right = torch.linalg.qr(factors.down.double().T)
    u, s, v = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    up = left @ (u[:, :rank] * s[:rank])
    return Factors(up.float(), (right @ v[:rank].T).T.float().contiguous())


def extracted(delta: torch.Tensor, ratio: float, rank: int) -> Factors | None:
    """The nearest update of a rank to a difference of weights, (out, in); None for no difference. rank 0: exact.

    Its singular vectors are the eigenvectors of the smaller of delta^T delta and delta delta^T, summed in float64, and
    the update is the difference's projection onto them.
    """
    if not delta.any():
        return None
    tall = delta.shape[0] >= delta.shape[1]
    long = delta if tall else delta.T
    gram = torch.zeros(long.shape[1], long.shape[1], dtype=torch.float64)
    for start in range(0, len(long), AT_ONCE):
        piece = long[start : start + AT_ONCE].double()
        gram += piece.T @ piece
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, : rank or None]
    if tall:
        return Factors((delta.double() @ vectors).float() * ratio, vectors.T.float().contiguous())
    return Factors(vectors.float() * ratio, (vectors.T @ delta.double()).float())
