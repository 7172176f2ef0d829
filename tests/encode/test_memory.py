"""How many pictures pass at once is a matter of params and model."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import StageError
from stages.encode.memory import pictures_at_once
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors
from stages.encode.processed import read_processed
from tests.encode.rows import SMALL, in_turn, lay, numbered

SD = {"block_out_channels": [128, 256, 512, 512], "sample_size": 512}


def test_stable_diffusion_s_own_sizes() -> None:
    """640 MiB a picture of 512 x 512 px, as measured: docs/decisions/batches.md."""
    default = EncodeParams()
    assert [pictures_at_once(default, SD, side, side) for side in (64, 512, 768, 1024)] == [16, 16, 7, 4]
    assert pictures_at_once(EncodeParams(memory=0.1), SD, 1024, 1024) == 1
    assert pictures_at_once(EncodeParams(tiling=True), SD, 2048, 2048) == 16


@given(width=st.integers(8, 4096), height=st.integers(8, 4096), memory=st.floats(0.1, 80), size=st.integers(1, 64))
def test_more_memory_never_makes_batches_smaller(width: int, height: int, memory: float, size: int) -> None:
    params = EncodeParams(memory=memory, batch_size=size)
    found = pictures_at_once(params, SD, width, height)
    assert 1 <= found <= size
    assert found <= pictures_at_once(EncodeParams(memory=2 * memory, batch_size=size), SD, width, height)
    assert found <= pictures_at_once(params, SD, width // 2, height)
    assert found == 1 or found * 20 * 128 * width * height <= memory * 2**30


def test_a_size_has_its_own_batches(base: Path, tmp_path: Path) -> None:
    """Eight channels, 64 x 64 px: 0.625 MiB a picture. Two of them fit 0.0015 GiB, eight of 32 x 32 px would."""
    params = EncodeParams(batch_size=4, memory=0.0015)
    seen = []
    posteriors = Posteriors(params, base)
    posteriors.vae.encoder.register_forward_pre_hook(lambda _, taken: seen.append(tuple(taken[0].shape)))
    rows = [numbered(number, [(32, 32), (64, 64)][number % 2]) for number in range(10)]
    _, pictures = read_processed(lay(tmp_path / "processed", rows))
    assert sum(posteriors.encode(pictures)) == 10
    assert sorted(set(seen)) == [(2, 3, 64, 64), (4, 3, 32, 32)]


def test_a_full_gpu_says_which_knob_to_turn(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Posteriors, batch: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Posteriors, "_encode_batch", full)
    processed = lay(tmp_path / "processed", [numbered(number) for number in range(3)])
    with pytest.raises(StageError, match=r"4 pictures of 32 x 32 px don't fit the GPU's memory; lower encode\.memory"):
        in_turn(processed, base, tmp_path / "out", SMALL)
