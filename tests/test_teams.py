"""What the guide says of working together: clones that share results, by DVC itself."""

import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.files import folder_digest
from tests.conftest import ROOT, commit, run
from tests.toy import edit, loss_of, make_toy

pytestmark = pytest.mark.slow


@pytest.fixture
def hers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that was run; what stages do goes to ran.txt from now on."""
    project = make_toy(tmp_path, "hers")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "ran.txt"))
    return project


def ran(project: Path) -> list[str]:
    path = project.parent / "ran.txt"
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def share(project: Path, url: str, **options: str) -> None:
    """Set the team's remote in a file that git has."""
    run(project, "dvc", "remote", "add", "-d", "team", url)
    for name, value in options.items():
        run(project, "dvc", "remote", "modify", "team", name, value)
    commit(project, "A remote")


def clone(project: Path, name: str = "his") -> Path:
    run(project.parent, "git", "clone", "-q", str(project), name)
    cloned = project.parent / name
    run(cloned, "git", "config", "user.name", "test")
    run(cloned, "git", "config", "user.email", "test@localhost")
    return cloned


def test_a_colleague_gets_what_was_run_before_without_running_it(hers: Path) -> None:
    share(hers, str(hers.parent / "shared"))
    edit(hers, "train.learning_rate", 0.1)
    run(hers, "dvc", "repro")
    assert ran(hers) == ["train", "evaluate"]
    run(hers, "dvc", "push", "--run-cache")
    run(hers, "git", "checkout", "-q", "--", ".")
    run(hers, "dvc", "checkout", "-q")
    run(hers, "dvc", "push", "--run-cache")
    his = clone(hers)
    run(his, "dvc", "repro", "--pull", "--allow-missing")
    assert not ran(hers)
    edit(his, "train.learning_rate", 0.1)
    run(his, "dvc", "repro", "--pull", "--allow-missing")
    assert not ran(hers), "the run cache has it"
    assert loss_of(his) == 4.0
    edit(his, "train.learning_rate", 0.001)
    run(his, "dvc", "repro", "--pull", "--allow-missing")
    assert ran(hers) == ["train", "evaluate"], "what nobody ran runs, and what it needs is fetched"


@pytest.mark.filterwarnings("default")  # of the server's libraries
def test_results_travel_by_s3(hers: Path, bucket: str) -> None:
    share(hers, "s3://pictures/darkroom", endpointurl=bucket)
    run(hers, "dvc", "push", "--run-cache")
    his = clone(hers)
    assert gate(his) == 0
    run(his, "dvc", "pull")
    for name in ("models", "reports", "data"):
        assert folder_digest(his / name) == folder_digest(hers / name)
    run(his, "dvc", "repro")
    assert not ran(hers)
    edit(hers, "train.learning_rate", 0.1)
    run(hers, "dvc", "repro")
    commit(hers, "Not pushed")
    fresh = clone(hers, "fresh")
    assert gate(fresh) == 1
    run(hers, "dvc", "push")
    assert gate(fresh) == 0


def gate(project: Path) -> int:
    return run(project, sys.executable, "-m", "stages.tools.gate", check=False, PYTHONPATH=str(ROOT)).returncode


def test_results_travel_by_ssh(hers: Path) -> None:
    pytest.importorskip("dvc_ssh", reason="dvc-ssh isn't installed: make extras")
    import asyncio

    import asyncssh

    keys = hers.parent / "keys"
    keys.mkdir()
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(keys / "host")
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(keys / "hers")
    key.write_public_key(keys / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def listen() -> Any:
        return await asyncssh.listen(
            "127.0.0.1",
            port,
            server_host_keys=[keys / "host"],
            authorized_client_keys=str(keys / "authorized"),
            sftp_factory=True,
            allow_scp=False,
        )

    def serve() -> None:
        listening = loop.run_until_complete(listen())
        started.set()
        loop.run_forever()
        listening.close()
        loop.run_until_complete(listening.wait_closed())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert started.wait(20)
        url = f"ssh://someone@127.0.0.1:{port}{hers.parent}/remote"
        share(hers, url, keyfile=str(keys / "hers"))
        run(hers, "dvc", "push")
        his = clone(hers)
        run(his, "dvc", "pull")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert folder_digest(his / "models") == folder_digest(hers / "models")


def test_models_have_versions(hers: Path) -> None:
    share(hers, str(hers.parent / "shared"))
    run(hers, "dvc", "push")
    run(hers, "gto", "register", "trained", "--version", "v1.0.0")
    edit(hers, "train.learning_rate", 0.1)
    run(hers, "dvc", "repro")
    commit(hers, "Another")
    run(hers, "dvc", "push")
    run(hers, "gto", "register", "trained")
    elsewhere = hers.parent
    for rev, far in (("v1.0.0", "1.0 64"), ("v1.0.1", "4.0 64"), ("", "4.0 64")):
        wanted = ["--rev", rev] if rev else []
        run(elsewhere, "dvc", "artifacts", "get", str(hers), "trained", *wanted, "-o", f"model-{rev}")
        assert (elsewhere / f"model-{rev}" / "weights").read_text() == far


def test_both_sides_of_a_conflict_in_the_lock(hers: Path) -> None:
    """Either side will do: what the merged params and code give is run, or taken from where it was run."""
    share(hers, str(hers.parent / "shared"))
    for branch, key, value in (("rate", "train.learning_rate", 0.1), ("side", "clean.min_side", 32)):
        run(hers, "git", "checkout", "-q", "-b", branch, "main")
        edit(hers, key, value)
        run(hers, "dvc", "repro")
        commit(hers, branch)
    ran(hers)
    merge = ["-c", "user.name=test", "-c", "user.email=test@localhost", "merge", "-q", "rate"]
    merged = run(hers, "git", *merge, check=False)
    assert "CONFLICT (content): Merge conflict in dvc.lock" in merged.stdout
    assert gate(hers) == 1, "marks of a conflict are no lock"
    run(hers, "git", "checkout", "--theirs", "dvc.lock")
    assert gate(hers) == 1, "and neither side is that of both changes"
    run(hers, "dvc", "repro")
    assert ran(hers) == ["train", "evaluate"], "clean is in the run cache"
    assert (hers / "models" / "trained" / "weights").read_text() == "4.0 32"
    run(hers, "dvc", "push")
    assert gate(hers) == 0
    commit(hers, "Merge")
    assert yaml.safe_load((hers / "dvc.lock").read_text())["stages"]["clean"]["params"]["params.yaml"] == {
        "clean": {"min_side": 32}
    }


def test_the_workflow_runs_what_there_is() -> None:
    """What GitHub would run: targets of the Makefile, and a gate that needs no more than is installed for it."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = [command.removeprefix("make ") for command in commands if command.startswith("make ")]
    assert targets == ["lint", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in [*targets, "gate"]:
        assert f"\n{target}: " in makefile
    assert commands[-1] == "python -m stages.tools.gate"
    assert f"\t{commands[-1]}\n" in makefile
    shown = "import sys; import stages.tools.gate; print({name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-S", "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "'stages'" in loaded.stdout, "and no library but dvc, which it starts: -S has none"
