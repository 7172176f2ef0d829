"""The stage as a program: killed, with other workers, with pictures added and taken away."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from stages.core.files import file_digest, folder_digest
from stages.core.pairs import ROWS, shards_below
from tests.conftest import ROOT
from tests.pictures import drawing, encoded

SOURCES = [
    {"kind": "folder", "name": "mine", "limit": 150},
    {"kind": "openmoji", "side": 16, "limit": 40},
]
COMMAND = [sys.executable, "-m", "stages.collect.run", "--sources", "sources", "--out", "raw", "--metrics", "m.json"]


def project(folder: Path, pictures: range) -> Path:
    (folder / "sources" / "mine").mkdir(parents=True)
    for seed in pictures:
        (folder / "sources" / "mine" / f"{seed:04d}.png").write_bytes(encoded(drawing(seed, (24, 24))))
    (folder / "params.yaml").write_text(yaml.safe_dump({"collect": {"sources": SOURCES}}))
    return folder


def start(folder: Path, workers: int) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DARKROOM_WORKERS": str(workers)}
    return subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_killed_ten_times_and_then_finished_gives_the_bytes_of_one_go(tmp_path: Path) -> None:
    whole = project(tmp_path / "whole", range(200))
    began = time.monotonic()
    assert start(whole, 2).wait() == 0
    took = time.monotonic() - began
    killed = project(tmp_path / "killed", range(200))
    moments = random.Random(0)
    for _ in range(10):
        process = start(killed, 1)
        time.sleep(moments.uniform(0.2, 0.95) * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed, 1).wait() == 0
    assert folder_digest(killed / "raw") == folder_digest(whole / "raw")
    assert (killed / "m.json").read_bytes() == (whole / "m.json").read_bytes()
    assert sorted(path.name for path in killed.iterdir()) == ["m.json", "params.yaml", "raw", "sources"]


def test_new_and_removed_pictures_change_only_the_shards_they_fall_in(tmp_path: Path) -> None:
    """With 24 px pictures from seeds; about a shard for each 512 of them."""
    from stages.collect.params import CollectParams
    from stages.collect.run import main

    folder = project(tmp_path / "p", range(3 * ROWS))
    params = CollectParams.model_validate({"sources": [{"kind": "folder", "name": "mine"}]})

    def shards(name: str) -> list[str]:
        main(params, folder / "sources", folder / name, folder / f"{name}.json")
        return [file_digest(path) for path in shards_below(folder / name)]

    before = shards("before")
    mine = folder / "sources" / "mine"
    (mine / "0700a.png").write_bytes(encoded(drawing(9999, (24, 24))))
    added = shards("added")
    assert len(before) >= 3
    assert len(set(added) - set(before)) <= 2
    (mine / "0700a.png").unlink()
    (mine / "0000.png").unlink()
    assert len(set(shards("removed")) - set(before)) == 1
    (mine / "0001.png").rename(mine / "0001b.png")  # the same place in the order: one shard knows its name
    assert len(set(shards("renamed")) - set(before)) == 1
    assert json.loads((folder / "renamed.json").read_text())["mine"]["pictures"] == 3 * ROWS - 1
