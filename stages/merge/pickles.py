"""Old checkpoints, which are pickles: opened for tensors only, and rewritten as safetensors before anything else."""

import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file

from stages.core.errors import StageError
from stages.core.files import file_digest, replacing


def rewritten(path: Path, scratch: Path) -> Path:
    """The same tensors as a safetensors file in `scratch`, named by the digest of the pickle; made once.

    torch's reader for `weights_only` runs no code from the file: it knows tensors and containers alone.
    Raises StageError for anything else.
    """
    target = scratch / f"{file_digest(path)}.safetensors"
    if not target.exists():
        tensors = _tensors(path)
        with replacing(target) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
    return target


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    refused = StageError(str(path), "holds more than tensors", "convert it to safetensors elsewhere")
    try:
        loaded = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, EOFError):
        raise refused from None
    except RuntimeError:  # an archive of before torch 1.6, which can't be mapped
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError):
            raise refused from None
    found = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    tensors = {str(key): value.contiguous() for key, value in found.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise refused
    return {
        key: value.clone() if value.numel() * value.element_size() < 64 else value for key, value in tensors.items()
    }
