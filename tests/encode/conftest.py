"""A miniature to encode with, and a project in which nothing has been encoded yet."""

from pathlib import Path

import pytest

from stages.base.random_families import build
from stages.base.random_model import random_pipeline


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    random_pipeline("tiny", 0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["tiny", "tiny-sdxl", "tiny-sd3"])
def any_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each family."""
    folder = tmp_path_factory.mktemp(request.param)
    build(request.param, 0).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
