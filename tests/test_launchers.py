"""Files for schedulers: what can be checked without one is."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "launchers"


def scripts() -> dict[str, str]:
    """Every piece of shell in them."""
    sky = yaml.safe_load((FOLDER / "sky.yaml").read_text())
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    [container] = job["spec"]["template"]["spec"]["containers"]
    return {
        "slurm": (FOLDER / "slurm.sbatch").read_text(),
        "sky setup": sky["setup"],
        "sky run": sky["run"],
        "kubernetes": container["args"][0],
    }


@pytest.mark.parametrize("name", scripts())
def test_the_shell_is_sound(name: str) -> None:
    checked = subprocess.run(["bash", "-n"], input=scripts()[name], text=True, capture_output=True, check=False)
    assert not checked.stderr


@pytest.mark.parametrize("name", scripts())
def test_every_dvc_command_is_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dvc.cli import parse_args

    commands = re.findall(r"^\s*(dvc [^&|\n]*)", scripts()[name], re.M)
    assert commands or name == "sky setup"
    for command in commands:
        parse_args(command.replace('"$EXPERIMENT"', "x").split()[1:])
    assert not capsys.readouterr().err


def test_slurm_options_stand_before_the_first_command() -> None:
    lines = (FOLDER / "slurm.sbatch").read_text().splitlines()
    options = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert len(options) > 5
    assert max(options) < first
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number]) for number in options)


def fields(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def test_sky_and_kubernetes_have_what_their_schemas_ask_for() -> None:
    sky = fields(FOLDER / "sky.yaml")
    assert set(sky) <= {"name", "resources", "envs", "setup", "run", "workdir", "num_nodes", "file_mounts"}
    named = set(re.findall(r"\$([A-Z]+)\b", sky["setup"] + sky["run"])) - {"PWD", "PATH"}
    assert named == set(sky["envs"])
    job = fields(FOLDER / "kubernetes.yaml")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert pod["restartPolicy"] in ("OnFailure", "Never")


def test_the_shell_that_is_told_to_stop_stops_what_it_started(tmp_path: Path) -> None:
    """slurm.sbatch with a dvc, a scontrol and a sleep that only say so."""
    import signal
    import time

    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        (
            "dvc",
            'trap "echo dvc stopped >> said; exit 143" TERM; echo "dvc $*" >> said; while :; do /bin/sleep 0.05; done',
        ),
        ("scontrol", 'echo "scontrol $*" >> said'),
        ("sleep", "/bin/sleep 0.3"),
    ):
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    with subprocess.Popen(["bash", str(FOLDER / "slurm.sbatch")], env=environment, cwd=tmp_path) as shell:
        said = tmp_path / "said"
        for _ in range(200):
            if said.exists():
                break
            time.sleep(0.05)
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(timeout=20) == 0
    assert said.read_text().splitlines() == ["dvc repro", "dvc stopped", "scontrol requeue 7"]
