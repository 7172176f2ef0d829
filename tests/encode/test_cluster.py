"""Machines of a Ray cluster encode what one machine does, each with a GPU to itself; those that differ are refused."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.encode import cluster
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors
from stages.encode.processed import Picture, read_processed
from stages.encode.processes import gpus_wanted
from tests.conftest import raylets
from tests.encode.rows import in_turn, lay, numbered

SIZES = [(32, 32), (64, 32)]
PARAMS = EncodeParams.model_validate({"batch_size": 4, "boomerang": {"share": 0.4, "steps": 3, "least": 0, "most": 64}})


@given(st.lists(st.integers(0, 4), max_size=60), st.sampled_from(["pictures", "captions"]))
def test_every_item_is_in_one_chunk(shards: list[int], kind: str) -> None:
    pictures = [Picture(str(n), Path(f"{shard}"), n, 32, 32, str(n)) for n, shard in enumerate(shards)]
    chunks = cluster.chunked(kind, pictures)
    assert sorted(picture.row for chunk in chunks for picture in chunk) == list(range(len(shards)))
    if kind == "pictures":
        assert all(len({picture.shard for picture in chunk}) == 1 for chunk in chunks)


def test_a_large_group_is_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(chunk) for chunk in cluster.chunked("captions", list(map(str, range(150))))] == [64, 64, 22]


def test_the_stages_machine_leases_no_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_ENGINE", "ray")
    assert gpus_wanted() == (0, 0)


@pytest.fixture(scope="module")
def with_gpus() -> Iterator[Any]:
    """Two raylets; only the second says that it has GPUs, two of them: nothing here asks CUDA."""
    with raylets({"num_cpus": 2}, {"num_cpus": 2, "num_gpus": 2}) as started:
        yield started


@pytest.fixture
def on_ray(with_gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", with_gpus.address)
    monkeypatch.setenv("DARKROOM_ENGINE", "ray")


def card(_: int) -> tuple[str, int]:
    return os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.getpid()


@pytest.mark.slow
def test_a_task_sees_one_gpu(on_ray: None) -> None:
    seen = list(map_shards(card, range(8), "test", gpu=True))
    assert {gpu for gpu, _ in seen} <= {"0", "1"}
    assert {gpu for gpu, _ in map_shards(card, range(2), "test")} == {""}


@pytest.mark.slow
def test_a_cluster_writes_the_bytes_of_one_machine(
    base: Path, tmp_path: Path, on_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of two sizes in three shards, captions, variants; then nothing is left to do."""
    rows = [numbered(number, SIZES[number % 2], f"caption {number}") for number in range(14)]
    processed = lay(tmp_path / "processed", rows)
    together = in_turn(processed, base, tmp_path / "many", PARAMS)
    again = in_turn(processed, base, tmp_path / "again", PARAMS)
    assert again[0] == together[0]
    assert again[1] == "0 pictures, 0 captions and 0 variants encoded, the others known"
    shutil.rmtree(tmp_path / ".dvc" / "tmp")
    monkeypatch.setenv("DARKROOM_ENGINE", "local")
    assert in_turn(processed, base, tmp_path / "one", PARAMS) == together


@pytest.mark.slow
def test_a_machine_that_differs_is_refused(base: Path, tmp_path: Path, on_ray: None) -> None:
    _, pictures = read_processed(lay(tmp_path / "processed", [numbered(number) for number in range(4)]))
    posteriors = Posteriors(PARAMS, base, "cuda NVIDIA of another kind")
    with pytest.raises(StageError, match=r"encode: .* \(cpu .*\) has another device, other libraries or weights"):
        list(cluster.encode_on_cluster("pictures", posteriors, base, pictures))
    assert len(posteriors.missing(pictures)) == len(pictures)


@pytest.mark.slow
def test_an_error_is_the_stages_own(base: Path, tmp_path: Path, on_ray: None) -> None:
    _, pictures = read_processed(lay(tmp_path / "processed", [numbered(number) for number in range(4)]))
    posteriors = Posteriors(EncodeParams(range=1e-6), base, cluster.cluster_machine())
    with pytest.raises(StageError, match=r"encode: picture 0\d.* has latents up to .* raise encode\.range"):
        list(cluster.encode_on_cluster("pictures", posteriors, base, pictures))
