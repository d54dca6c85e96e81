"""Costly folders that the tests of all workers share: the first test that asks makes one, the others wait for it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from heartml.core.system import locks


def folder(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills: by the first worker of the suite that asks, for all of them."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    made_folder, made = root / f"once-{name}" / "project", root / f"once-{name}" / "made"
    with locks.exclusive(root / f"once-{name}.lock"):
        if not made.exists():
            shutil.rmtree(made_folder.parent, ignore_errors=True)      # what a worker began that failed
            made_folder.parent.mkdir()
            make(made_folder)
            made.touch()
    return made_folder
