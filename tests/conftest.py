"""What several tests build on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from filelock import FileLock

import stages  # noqa: F401 - first of all: it keeps every library offline
from tests.pictures import drawing, encoded

# The miniature's sums are too small to share: threads that wait for each other are slower on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("darkroom", deadline=None)
hypothesis.settings.load_profile("darkroom")

ROOT = Path(__file__).parents[1]

# The files that take longest, in this order: processes that share the tests begin with them, and end at one time.
LONGEST = [
    ROOT / "tests" / name
    for name in (
        "test_pipeline.py",
        "train/test_layouts.py",
        "test_guide.py",
        "encode/test_processes.py",
        "test_teams.py",
        "test_experiments.py",
        "train/test_processes.py",
        "train/test_methods.py",
        "recipes/test_recipes.py",
        "tools/test_plan.py",
        "core/test_sampling.py",
        "core/test_cluster.py",
        "clean/test_clean.py",
    )
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of pytest-xdist's processes
        order = {path: number for number, path in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server on loopback that has a bucket `pictures`; its address."""
    server = pytest.importorskip("moto.server", reason="moto isn't installed: make extras")
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("dvc_s3", reason="dvc-s3 isn't installed: make extras")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    address = "http://{}:{}".format(*running.get_host_and_port())
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="pictures")
    yield address
    running.stop()


@contextmanager
def raylets(head: dict[str, int], other: dict[str, int]) -> Iterator[Any]:
    """A Ray cluster of two machines that have so many num_cpus and num_gpus; both are this one, on loopback."""
    ray = pytest.importorskip("ray", reason="Ray isn't installed: make extras")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={**head, "include_dashboard": False})
    started.add_node(**other)
    yield started
    ray.shutdown()
    started.shutdown()


def write_pictures(folder: Path, count: int, first: int = 0) -> None:
    """Distinct pictures, each with a sidecar caption."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        (folder / f"{seed:03d}.png").write_bytes(encoded(drawing(seed)))
        (folder / f"{seed:03d}.txt").write_text(f"drawing number {seed}\n")


def make_project(root: Path, name: str = "project") -> Path:
    """A clone of this project's working files at miniature size, its own git and DVC repository.

    24 pictures with captions, and one without: something is rejected.
    """
    project = root / name
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in listed.stdout.splitlines():
        source, target = ROOT / line, project / line
        if source.is_file() and not line.startswith(("tests/", "docs/")) and line != "dvc.lock":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    (project / "params.yaml").write_bytes((ROOT / "tests" / "tiny.yaml").read_bytes())
    write_pictures(project / "data" / "sources" / "drawings", 25)
    (project / "data" / "sources" / "drawings" / "024.txt").unlink()
    run(project, "git", "init", "-q", "-b", "main")
    # As a person's own pictures are: in DVC, their pointer in git. A temporary experiment sees nothing else.
    run(project, "dvc", "add", "-q", "data/sources/drawings")
    commit(project, "The miniature")
    return project


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run once, and whose result is committed. Tests clone it, or undo what they do.

    One for all of pytest-xdist's processes; who comes second waits for it.
    """
    own = tmp_path_factory.getbasetemp()
    house = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "house"
    with FileLock(f"{house}.lock"):
        if not (house / "whole").exists():
            shutil.rmtree(house, ignore_errors=True)
            project = make_project(house)
            run(project, "dvc", "repro")
            commit(project, "The first run")
            (house / "whole").touch()
    return house / "project"


def commit(project: Path, message: str) -> None:
    run(project, "git", "add", "-A")
    run(project, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-q", "-m", message)


def run(project: Path, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a project with this Python's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    finished = subprocess.run(
        command,
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path, **environment},
    )
    if check and finished.returncode:
        raise AssertionError(
            f"{' '.join(command)} exited with {finished.returncode}\n{finished.stdout}\n{finished.stderr}"
        )
    return finished
