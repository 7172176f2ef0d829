"""The house holds its own rules: dvc.yaml says what the code does, and nothing else."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml
from dvc.repo import Repo

from stages.check.sections import SECTION_TYPES
from stages.core.params import SECTIONS, parse_section, read_params
from stages.tools.schema import page, schema
from stages.tools.versions import locked_versions, updated
from tests.conftest import LONGEST, ROOT

# Import name -> the distributions in versions.yaml whose version it brings to a stage's bytes.
BRINGS = {
    "PIL": {"pillow"},
    "cv2": {"opencv-python-headless"},
    "imagehash": {"imagehash", "scipy"},
    "yaml": set[str](),
}
READS_MERGE = "stages.core.recipes"
# Of stages/__init__.py.
CALLS = ("os.environ.setdefault", "set", "gc.disable", "any", "word.startswith", "word.endswith")


def stages_of(root: Path) -> Iterator[tuple[str, Any]]:
    """(stage folder, resolved stage) of dvc.yaml."""
    with Repo(str(root)) as repo:
        for stage in repo.index.stages:
            if stage.cmd:
                match = re.search(r"-m stages\.(\w+)\.run", stage.cmd)
                assert match, f"{stage.addressing}: runs no stage"
                yield match[1], stage


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("stages", include_external_packages=True, cache_dir=None)


def modules_of(graph: grimp.ImportGraph, folder: str) -> set[str]:
    """The modules that running a stage imports, itself too; packages' empty __init__ left out."""
    start = f"stages.{folder}.run"
    found = {name for name in graph.find_upstream_modules(start) | {start} if name.startswith("stages.")}
    return {name for name in found if not (ROOT / Path(*name.split("."))).is_dir()}


def code_faults(graph: grimp.ImportGraph, folder: str, deps: set[str]) -> list[str]:
    """How a stage's deps differ from the code that it reaches."""
    needed = {f"stages/{folder}"}
    for name in modules_of(graph, folder):
        path = Path(*name.split(".")).with_suffix(".py").as_posix()
        if not path.startswith(f"stages/{folder}/"):
            needed.add(path)
    declared = {dep for dep in deps if dep.startswith("stages/")}
    return [f"lacks {path}" for path in sorted(needed - declared)] + [
        f"has {path} too much" for path in sorted(declared - needed)
    ]


def section_faults(graph: grimp.ImportGraph, folder: str, declared: set[str]) -> list[str]:
    """How the sections of params.yaml that a stage declares differ from those it reads."""
    wanted = {folder} if f"stages.{folder}.params" in modules_of(graph, folder) and folder != "check" else set[str]()
    if READS_MERGE in modules_of(graph, folder):
        wanted.add("merge")
    return sorted(f"section {name}" for name in wanted ^ {key.split(".")[0] for key in declared})


def version_faults(graph: grimp.ImportGraph, folder: str, declared: set[str]) -> list[str]:
    known = set(yaml.safe_load((ROOT / "versions.yaml").read_text()))
    wanted = set[str]()
    for module in modules_of(graph, folder):
        for name in graph.find_modules_directly_imported_by(module):
            top = name.split(".")[0]
            if top != "stages" and top not in sys.stdlib_module_names:
                wanted |= BRINGS.get(top, {top.replace("_", "-").lower()}) & known
    return sorted(f"version of {name}" for name in wanted ^ declared)


def path_faults(command: str, deps: set[str], outs: set[str]) -> list[str]:
    """Paths in a command that DVC isn't told of."""
    words = shlex.split(command)
    named = {words[i + 1] for i, word in enumerate(words) if word.startswith("--") and "/" in words[i + 1]}
    return sorted(named - deps - outs)


def declared_params(stage: Any, file: str) -> set[str]:
    return {key for dep in stage.deps if dep.def_path == file and hasattr(dep, "params") for key in dep.params}


def split_paths(stage: Any) -> tuple[set[str], set[str]]:
    deps = {dep.def_path for dep in stage.deps if not hasattr(dep, "params")}
    return deps, {out.def_path for out in stage.outs}


def test_deps_equal_imports(graph: grimp.ImportGraph) -> None:
    for folder, stage in stages_of(ROOT):
        assert not code_faults(graph, folder, split_paths(stage)[0]), stage.addressing


def test_deps_test_fails_when_broken(graph: grimp.ImportGraph) -> None:
    folder, stage = next((f, s) for f, s in stages_of(ROOT) if f == "clean")
    deps, _ = split_paths(stage)
    assert code_faults(graph, folder, deps - {"stages/core/draws.py"}) == ["lacks stages/core/draws.py"]
    assert code_faults(graph, folder, deps | {"stages/core/noise.py"}) == ["has stages/core/noise.py too much"]


def test_sections_are_claimed_and_only_by_their_own(graph: grimp.ImportGraph) -> None:
    claimed = set()
    for folder, stage in stages_of(ROOT):
        keys = declared_params(stage, "params.yaml")
        assert not section_faults(graph, folder, keys), stage.addressing
        claimed |= {key.split(".")[0] for key in keys}
    assert claimed == set(SECTIONS) == set(SECTION_TYPES)


def test_sections_test_fails_when_broken(graph: grimp.ImportGraph) -> None:
    assert section_faults(graph, "clean", {"clean", "train"}) == ["section train"]
    assert section_faults(graph, "evaluate", {"evaluate"}) == ["section merge"]


def test_versions_equal_imported_libraries(graph: grimp.ImportGraph) -> None:
    for folder, stage in stages_of(ROOT):
        assert not version_faults(graph, folder, declared_params(stage, "versions.yaml")), stage.addressing


def test_versions_test_fails_when_broken(graph: grimp.ImportGraph) -> None:
    assert version_faults(graph, "merge", {"scipy", "torch"}) == ["version of safetensors"]


def test_versions_are_those_of_the_lock_and_installed() -> None:
    text, lock = (ROOT / "versions.yaml").read_text(), (ROOT / "requirements.lock").read_text()
    assert updated(text, locked_versions(lock)) == text, "run `make lock`"
    for name, wanted in yaml.safe_load(text).items():
        assert version(name).split("+")[0] == wanted, f"{name}: run `make test`, which installs the lock file"


def test_paths_in_commands_are_declared() -> None:
    for _, stage in stages_of(ROOT):
        assert not path_faults(stage.cmd, *split_paths(stage)), stage.addressing


def test_paths_test_fails_when_broken() -> None:
    assert path_faults("python -m stages.x.run --raw data/raw --out data/x", {"data/raw"}, set()) == ["data/x"]


def test_code_holds_no_paths_of_data() -> None:
    """Arguments say where: no module opens a path that dvc.yaml doesn't hand to it."""
    for file in (ROOT / "stages").rglob("*.py"):
        if "tools" not in file.parts:
            opened = re.findall(r'Path\("((?:data|models|reports)/[^"]*)"', file.read_text())
            assert not opened, f"{file}: {opened}"


def test_every_module_of_a_stage_is_reached(graph: grimp.ImportGraph) -> None:
    for folder in [*SECTIONS, "check"]:
        own = {name for name in graph.modules if name.startswith(f"stages.{folder}.")}
        assert own <= modules_of(graph, folder)
    reached = set().union(*(modules_of(graph, folder) for folder in [*SECTIONS, "check"]))
    core = {name for name in graph.modules if name.startswith("stages.core.")}
    assert {name for name in core if not (ROOT / Path(*name.split("."))).is_dir()} <= reached


def test_stages_that_compute_on_a_gpu_lease_it() -> None:
    """Else workers of the queue fight over one."""
    leasing = set()
    for folder in (path for path in (ROOT / "stages").iterdir() if (path / "run.py").exists()):
        text = "".join(file.read_text() for file in folder.glob("*.py"))
        if leases := bool(re.search(r"run_stage\(main, ", (folder / "run.py").read_text())):
            leasing.add(folder.name)
        assert leases == bool(re.search(r"best_device\(|torch\.cuda\.|Accelerator\(", text)), folder
    assert {"encode", "train", "sample"} <= leasing


def test_named_artifacts_are_outputs() -> None:
    named = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    outs = set().union(*(split_paths(stage)[1] for _, stage in stages_of(ROOT)))
    assert named
    assert {artifact["path"] for artifact in named.values()} <= outs


def test_no_prose_in_code_folders() -> None:
    """Editing a README beside the code would train the model again."""
    kinds = {path.suffix for path in (ROOT / "stages").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds <= {".py", ".jinja", ".css", ".js"}


def test_package_inits_hold_no_code_that_shapes_bytes() -> None:
    """They are in no stage's deps: the first may set the process's environment, the others are empty."""
    for file in (ROOT / "stages").rglob("__init__.py"):
        if file.parent.name != "stages":
            assert not file.read_text(), file
    for node in ast.walk(ast.parse((ROOT / "stages" / "__init__.py").read_text())):
        assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ImportFrom | ast.Assign)
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) in CALLS


def test_generated_pages_are_current() -> None:
    tree = schema()
    assert json.loads((ROOT / "params.schema.json").read_text()) == tree, "run `make schema`"
    assert (ROOT / "docs" / "params.md").read_text() == page(tree), "run `make schema`"


def test_shipped_params_are_valid_and_short() -> None:
    for file in (ROOT / "params.yaml", ROOT / "tests" / "tiny.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))):
        tree = read_params(file)
        assert set(tree) == set(SECTIONS), f"{file}: DVC wants every section to be there"
        for name, kind in SECTION_TYPES.items():
            parse_section(kind, name, tree.get(name))
    assert len((ROOT / "params.yaml").read_text().splitlines()) <= 120


@pytest.mark.parametrize(
    ("stage", "offline"), [("base", ""), ("caption", ""), ("collect", ""), ("score", ""), ("train", "1")]
)
def test_only_stages_that_fetch_reach_the_hub(stage: str, offline: str) -> None:
    shown = (
        "import os, sys; sys.orig_argv = ['python', '-m', sys.argv[1]]; import stages;"
        "print(os.environ.get('HF_HUB_OFFLINE', ''))"
    )
    told = subprocess.run(
        [sys.executable, "-c", shown, f"stages.{stage}.run"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == offline


@pytest.mark.parametrize(("module", "looks"), [("train.run", "False"), ("tools.plan", "True")])
def test_only_stages_load_without_a_look_for_garbage(module: str, looks: str) -> None:
    """What nothing but run_stage ends."""
    shown = "import gc, sys; sys.orig_argv = ['python', '-m', sys.argv[1]]; import stages; print(gc.isenabled())"
    command = [sys.executable, "-c", shown, f"stages.{module}"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == looks


def test_the_longest_files_of_tests_are_there() -> None:
    assert [path for path in LONGEST if not path.is_file()] == []
