"""Fixtures of the tests of a release: a project that is finished, all but registered."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support import finished_project, made_once, tiny_models
from support.finished_project import TASK
from support.published_project import DATA_HASH, GIT

from heartml.core import paths
from heartml.release import run_pictures


def make_finished(root: Path, empty_store: Path) -> None:
    """Real folds, evaluation and model as their stages leave them, committed; an empty registry."""
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        finished_project.write_reported_project(root, patch, skill=1.5)
        params = Path("params.yaml").read_text().replace("first_model: certain", "first_model: value")
        Path("params.yaml").write_text(params)         # 13 children are held out: little is certain
        shutil.rmtree(paths.model(TASK))
        tiny_models.fit(paths.model(TASK))
        shutil.copy(finished_project.ROOT / "dvc.yaml", root)
        Path("requirements.lock").write_text("numpy==2\n")
        data = {"md5": DATA_HASH, "nfiles": 9, "size": 9, "path": "data"}
        Path("data.dvc").write_text(yaml.safe_dump({"outs": [data]}))
        stage = {"cmd": "python -m heartml ensemble", "deps": [{"path": "data", "md5": DATA_HASH}],
                 "outs": [{"path": paths.model(TASK).as_posix(), "md5": "aa.dir"}]}
        Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {f"ensemble@{TASK}": stage}}))
        Path(".gitignore").write_text("/data\n/artifacts\n/reports\n/.heartml\n")
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all of it"]):
            subprocess.run([*GIT, *command], check=True)
        Path(".heartml").mkdir(exist_ok=True)
        shutil.copyfile(empty_store, ".heartml/mlflow.db")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A finished project, all but registered. Do not write here: `project` is a copy."""
    return made_once.folder(tmp_path_factory, "finished", lambda root: make_finished(root, empty_store))


@pytest.fixture
def pictures() -> None:
    """For a test in which publishing is to draw its pictures."""


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishing draws no pictures, which takes most of a second, unless a test asks for `pictures`."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(run_pictures, "of", lambda _: {})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path) -> Path:
    """A copy of it, to be changed, as the working folder. Its name has what means something in an address.

    Not `%25`, which MLflow's own loader takes for a percent sign (docs/limits.md).
    """
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / 'run #2 100% is it? "x"'
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    return root
