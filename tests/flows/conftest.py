"""Fixtures of the tests of flows."""

from pathlib import Path

import pytest
from support.workspaces import Workspace

# Retraining, with everything that it starts


@pytest.fixture
def mine(retrained: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the retrained project."""
    return retrained.copy(tmp_path / "project")
