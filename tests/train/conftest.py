"""A project with a tiny base and eight pictures, encoded."""

import shutil
from pathlib import Path

import pytest

from stages.base.random_families import build
from stages.encode.params import EncodeParams
from stages.encode.run import main as encode
from tests.train.test_methods import lay


@pytest.fixture(scope="session")
def laid_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / ".dvc").mkdir()
    build("tiny", 0).save_pretrained(folder / "base")
    lay(folder / "processed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        encode(EncodeParams(batch_size=4), *(folder / name for name in ("processed", "base", "latents", "m.json")))
    return folder


@pytest.fixture
def project(laid_project: Path) -> Path:
    """Without the states of other trainings."""
    shutil.rmtree(laid_project / ".dvc" / "tmp" / "darkroom" / "train", ignore_errors=True)
    return laid_project
