"""Links fetched by the machines of a Ray cluster: the bytes of one machine, also if one of them is killed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from stages.collect.params import CollectParams
from stages.collect.run import main
from stages.core.engine import cluster_workers
from stages.core.errors import StageError
from stages.core.files import folder_digest
from tests.collect.server import Server
from tests.collect.test_shares import ADDRESSES, mixed, source
from tests.collect.test_urls import table
from tests.conftest import ROOT
from tests.core import test_cluster

pytestmark = pytest.mark.slow
cluster, on_ray = test_cluster.cluster, test_cluster.on_ray  # the fixtures


@pytest.fixture
def webs(in_folder: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Server(address)) for address in ADDRESSES]


def bytes_of(root: str, monkeypatch: pytest.MonkeyPatch, engine: str, workers: int, **options: Any) -> str:
    """Of what collect makes in the project `root`."""
    Path(root, ".dvc").mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("DVC_ROOT", root)
    monkeypatch.setenv("DARKROOM_ENGINE", engine)
    monkeypatch.setenv("DARKROOM_WORKERS", str(workers))
    params = CollectParams.model_validate({"sources": [source(**options).model_dump()]})
    main(params, Path(), Path(f"{root}/raw"), Path(f"{root}/collect.json"))
    return folder_digest(Path(root, "raw")) + Path(root, "collect.json").read_text()


def sixty_each(webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], str]:
    """Links, and what one machine makes of them; from here on they come slowly."""
    links = [web.url(f"picture/{number}") for number in range(60) for web in webs]
    table(links)
    expected = bytes_of("one", monkeypatch, "local", 1)
    for web in webs:
        web.asked.clear()
        web.delay = 0.1
    return links, expected


def test_as_many_tasks_as_the_cluster_has_room_for(on_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster_workers() == 2
    monkeypatch.setenv("DARKROOM_MEMORY", "1e6")
    assert cluster_workers() == 1
    monkeypatch.setenv("DARKROOM_WORKERS", "5")
    assert cluster_workers() == 5


def test_the_same_bytes_as_on_one_machine(on_ray: Any, webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    table(mixed(webs))
    assert bytes_of("one", monkeypatch, "local", 1) == bytes_of("many", monkeypatch, "ray", 2)
    assert {web.asked["/picture/0"] for web in webs} == {2}
    contents = list(Path("many").rglob("*.contents"))
    assert len(contents) > 2  # of both tasks, and of a second round


def test_a_machine_that_is_killed_changes_nothing(
    on_ray: Any, webs: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    links, expected = sixty_each(webs, monkeypatch)
    lost = on_ray.add_node(num_cpus=1)

    def kill() -> None:
        while min(web.pictures_asked for web in webs) < 20:  # each of three machines has begun
            time.sleep(0.01)
        on_ray.remove_node(lost, allow_graceful=False)

    killer = Thread(target=kill)
    killer.start()
    assert bytes_of("many", monkeypatch, "ray", 3, per_host=2) == expected
    killer.join()
    again = [web.asked["/robots.txt"] for web in webs]
    assert set(again) == {1, 2}  # the hosts of one task were taken over
    twice = sum(web.pictures_asked for web in webs) - len(links)
    assert 0 <= twice <= 20 * again.count(2)  # what was under way or not written yet; its 60 for each at most


def test_a_run_that_is_killed_goes_on_where_it_was(
    on_ray: Any, webs: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks with it. The next run is one of three tasks, not of two."""
    links, expected = sixty_each(webs, monkeypatch)
    Path("many/.dvc").mkdir(parents=True)
    Path("params.yaml").write_text(yaml.safe_dump({"collect": {"sources": [source(per_host=1).model_dump()]}}))
    command = [sys.executable, "-m", "stages.collect.run", "--sources", ".", "--out", "raw", "--metrics", "m.json"]
    told = {"PYTHONPATH": str(ROOT), "DVC_ROOT": "many", "DARKROOM_ENGINE": "ray", "DARKROOM_WORKERS": "2"}
    process = subprocess.Popen(command, env={**os.environ, **told})
    while min(web.pictures_asked for web in webs) < 15:
        time.sleep(0.01)
    process.kill()
    process.wait()
    asked = 0
    while asked != (asked := sum(web.pictures_asked for web in webs)):
        time.sleep(1)
    assert asked < len(links)
    for web in webs:
        web.delay = 0
    assert bytes_of("many", monkeypatch, "ray", 3, per_host=1) == expected
    again = sum(web.pictures_asked for web in webs) - len(links)
    assert 0 <= again < asked / 2  # what was under way or not written yet


def test_an_error_is_one_line(on_ray: Any, webs: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The store lies where the other machines don't see it: as if, for the list isn't there."""
    from stages.collect import shares

    written = shares.write_lists

    def unseen(*arguments: Any) -> dict[Path, int]:
        lists = written(*arguments)
        for path in lists:
            path.unlink()
        return lists

    table([web.url("picture/1") for web in webs])
    monkeypatch.setattr(shares, "write_lists", unseen)
    with pytest.raises(StageError, match=r"\.links: isn't seen on .+; let \.dvc/tmp lie on the file system"):
        bytes_of("many", monkeypatch, "ray", 2)
