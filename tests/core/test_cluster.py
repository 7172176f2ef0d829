"""Two machines of a Ray cluster, on loopback: the same results, in order, whatever is lost on the way."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stages.clean import duplicates
from stages.core.engine import map_shards
from stages.core.errors import StageError
from tests.conftest import make_project, raylets, run

ray = pytest.importorskip("ray", reason="Ray isn't installed: pip install -r extras.lock")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with raylets({"num_cpus": 1}, {"num_cpus": 1}) as started:
        yield started


@pytest.fixture
def on_ray(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("DARKROOM_ENGINE", "ray")
    monkeypatch.delenv("DARKROOM_WORKERS", raising=False)
    return cluster


def where(folder: Path, number: int) -> tuple[int, str]:
    """Leaves a file in the project's folder; says on which machine."""
    time.sleep(0.05)
    Path(folder.name, f"{number}.txt").write_text(str(number))
    return number * number, ray.get_runtime_context().get_node_id()


def test_results_come_in_order_from_several_machines(on_ray: Any, in_folder: Path) -> None:
    (in_folder / "out").mkdir()
    found = list(map_shards(partial(where, in_folder / "out"), range(30), "test"))
    assert [square for square, _ in found] == [number * number for number in range(30)]
    assert len({node for _, node in found}) == 2
    assert len(list((in_folder / "out").iterdir())) == 30


def refuse(number: int) -> int:
    raise StageError("here", f"{number} is odd", "even it out")


def divide(number: int) -> float:
    return 1 / number


def test_errors_come_as_they_are(on_ray: Any) -> None:
    with pytest.raises(StageError, match=r"^here: 3 is odd; even it out$"):
        list(map_shards(refuse, [3, 3], "test"))
    with pytest.raises(ZeroDivisionError):
        list(map_shards(divide, [1, 0], "test"))
    assert not list(map_shards(divide, [], "test"))


def started(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    time.sleep(0.01)
    return number


def test_finished_work_that_nobody_takes_stays_bounded(on_ray: Any, in_folder: Path) -> None:
    results = map_shards(partial(started, in_folder), range(100), "test")
    assert next(results) == 0
    time.sleep(1.5)
    assert len(list(in_folder.iterdir())) <= 6  # two ahead for each of two workers, and those taken
    assert list(results) == list(range(1, 100))


def slow(number: int) -> int:
    time.sleep(0.4)
    return number


def test_a_machine_that_is_lost_changes_nothing(on_ray: Any) -> None:
    lost = on_ray.add_node(num_cpus=2)
    results = map_shards(slow, range(16), "test")
    assert next(results) == 0
    on_ray.remove_node(lost, allow_graceful=False)
    assert list(results) == list(range(1, 16))


def test_look_alikes_are_searched_by_several_machines(on_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**64, 2000, dtype=np.uint64))
    hashes = np.unique(np.concatenate([hashes, hashes[:300] ^ np.uint64(0b101)]))
    alone = duplicates.pairs_within(hashes, 4)
    monkeypatch.setattr(duplicates, "FEW", 0)
    for one, other in zip(alone, duplicates.pairs_within(hashes, 4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_engine_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_ENGINE", "spark")
    with pytest.raises(StageError, match="is 'spark'; set it to local, ray or"):
        list(map_shards(slow, [1], "test"))


@pytest.mark.filterwarnings("default")  # of the bucket's server
def test_the_same_bytes_as_on_one_machine(on_ray: Any, bucket: str, tmp_path: Path) -> None:
    """From collect to encode: the hashes in dvc.lock. `apart` has machines that share no file, only a bucket."""
    boto3 = pytest.importorskip("boto3")
    ray = {"DARKROOM_ENGINE": "ray"}
    apart = {**ray, "DARKROOM_EXCHANGE": "s3://pictures/exchange", "AWS_ENDPOINT_URL": bucket}
    outs = {}
    for name, environment in {"one": {"DARKROOM_ENGINE": "local"}, "many": ray, "apart": apart}.items():
        project = make_project(tmp_path, name)
        run(project, "dvc", "repro", "encode", check=True, **environment)
        lock = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
        outs[name] = {stage: recorded["outs"] for stage, recorded in lock.items()}
    assert outs["one"] == outs["many"] == outs["apart"]
    held = boto3.client("s3", endpoint_url=bucket).list_objects_v2(Bucket="pictures")
    assert held["KeyCount"] > 10, "shards and the model went over the bucket"
