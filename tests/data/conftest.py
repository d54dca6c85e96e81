"""Fixtures of the tests of data."""

import pytest
from support.workspaces import Workspace


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project, and this process inside it."""
    monkeypatch.chdir(workspace.root)
    return workspace
