"""Archives with backups."""

from pathlib import Path

import pytest

from .world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An archive that is not there yet."""
    return World(tmp_path)
