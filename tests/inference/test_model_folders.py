"""What is said about a model that a user names by its folder."""

import shutil
from pathlib import Path

import pytest

from heartml.core.system.hashing import sha256_folder
from heartml.inference import model_lookup
from heartml.registry import tracking, version_cautions, versions

TASK = "simulated-murmur"
NOBODY = "not registered, so the gate has not judged it"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: dict[str, Path], empty_store: Path) -> Path:
    """A model in a folder, in a project with an empty registry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path(".heartml").mkdir()
    shutil.copyfile(empty_store, ".heartml/mlflow.db")
    shutil.copytree(fitted[TASK], "mine")
    return Path("mine")


def cautions(folder: Path) -> tuple[str, ...]:
    return model_lookup.locate(str(folder), None, ()).cautions


def test_the_same_bytes_as_a_version_have_its_cautions_and_others_have_been_judged_by_nobody(folder: Path) -> None:
    assert cautions(folder) == (f"{folder}: {NOBODY}; `heartml models` lists those that it has",)
    client = tracking.connect()
    experiment = client.create_experiment("x")
    for key, digest, promote in (("k1", sha256_folder(folder), False), ("k2", "another", True)):
        run = client.create_run(experiment, tags={model_lookup.MODEL_TAG: digest})
        version = versions.register(client, TASK, run_id=run.info.run_id, source="runs:/0/model", key=key)
        versions.record_verdict(
            client, version, {"promote": promote, "reason": "refused: worse", "criteria": []}, None)
    assert cautions(folder) == (f"{TASK} version 1: the gate refused it (worse)",)
    (folder / "more.txt").write_text("another byte")
    assert cautions(folder)[0].startswith(f"{folder}: {NOBODY}")


def test_a_copy_that_was_verified_keeps_what_was_written_beside_it(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "served"
    shutil.copytree(folder, copied / "artifacts" / "model")
    (copied / "MLmodel").touch()
    version_cautions.write_beside(copied, [])
    assert cautions(copied / "artifacts" / "model") == ()
    version_cautions.write_beside(copied, ["retired"])
    assert cautions(copied / "artifacts" / "model") == ("retired",)


def test_a_registry_that_does_not_answer_or_a_file_that_is_no_model_is_no_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.json").write_text("no JSON")
    assert NOBODY in cautions(folder)[0]
    (folder / "model.json").write_text('{"assignment": "simulated-murmur"}')
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert "the registry cannot be asked: MLFLOW_TRACKING_URI=http://127.0.0.1:1: no " in cautions(folder)[0]
