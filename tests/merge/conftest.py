"""A kitchen for the tests of merging."""

from pathlib import Path

import pytest

from tests.merge.models import Kitchen


@pytest.fixture
def kitchen(in_folder: Path) -> Kitchen:
    """An empty one, in the current folder."""
    return Kitchen(in_folder)
