"""A working folder with a registry of its own, and models that are registered there and become champion."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.workspaces import ROOT

from heartml.audit.export import MODEL_TAG
from heartml.core import paths
from heartml.core.system.hashing import sha256_folder
from heartml.registry import sealing, tracking, versions
from heartml.release import publish

PROMOTE = {"promote": True, "reason": "promoted", "criteria": []}


@contextlib.contextmanager
def project(root: Path, empty_store: Path) -> Iterator[pytest.MonkeyPatch]:
    """Work in `root` with parameters and an empty registry, until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shutil.copy(ROOT / "params.yaml", root)
        Path(".heartml").mkdir()
        shutil.copyfile(empty_store, ".heartml/mlflow.db")
        yield patch


def register(client: tracking.Client, task: str, key: str, before: str | None) -> versions.Version:
    """Log the model in `artifacts/`, register it, make it the champion after version `before`."""
    with tracking.run(client, task, key) as run_id:
        source = sealing.log_model(client, run_id, publish.package_model(task), task, key, {})
        client.set_tag(run_id, MODEL_TAG, sha256_folder(paths.model(task)))
    version = versions.register(client, task, run_id=run_id, source=source, key=key)
    versions.record_verdict(client, version, PROMOTE, before)
    return versions.settle(client, version)
