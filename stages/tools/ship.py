"""Make a small copy of a model, to hand on: every weight in float16.

python -m stages.tools.ship MODEL OUT
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stages.core.files import file_digest


def main(model: Path, out: Path) -> None:
    """Copy the folder, halve its weights, and say how large it is; a README that lies at `out` stays."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        target = out / path.relative_to(model)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            halve(path, target)
            print(f"{target.relative_to(out)}  sha256 {file_digest(target)}")
        else:
            shutil.copyfile(path, target)
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:.1f} MB")


def halve(path: Path, out: Path) -> None:
    """Floating-point tensors in float16, others as they are, with the file's own metadata."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        metadata = file.metadata()
    halved = {name: value.to(torch.float16) if value.is_floating_point() else value for name, value in tensors.items()}
    save_file(halved, out, metadata=metadata)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
