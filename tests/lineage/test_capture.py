"""Lineage: the stages behind a model by DVC's own lock, and what an auditor would miss."""

import subprocess
from pathlib import Path

import pytest

from heartml.lineage import capture
from heartml.lineage.capture import LineageError

LOCK = {"schema": "2.0", "stages": {
    "validate": {"deps": [{"path": "data", "md5": "d"}], "outs": [{"path": "artifacts/validation", "md5": "v"}]},
    "split@a": {"deps": [{"path": "artifacts/validation/groups.parquet"}],
                "outs": [{"path": "artifacts/a/folds.parquet"}]},
    "features@a": {"deps": [{"path": "artifacts/a/folds.parquet"}], "outs": [{"path": "artifacts/a/features/logspec"}]},
    "search@a": {"deps": [{"path": "artifacts/a/features"}], "outs": [{"path": "artifacts/a/search"}]},
    "split@b": {"deps": [{"path": "artifacts/validation"}], "outs": [{"path": "artifacts/b/folds.parquet"}]},
    "other": {"deps": [{"path": "elsewhere"}], "outs": [{"path": "artifacts/other"}]},
}}


def test_behind_a_model_stand_all_stages_that_it_was_made_from_and_no_others() -> None:
    found = capture.stages_behind(LOCK, Path("artifacts/a"))
    assert list(found) == ["validate", "split@a", "features@a", "search@a"]
    assert found["split@a"] == LOCK["stages"]["split@a"]


WHOLE = {"code": {"commit": "abc"}, "dvc_lock_sha256": "1", "stages": LOCK["stages"],
         "environment": {"requirements_lock_sha256": "2"}}


def test_of_a_complete_lineage_nothing_is_missing() -> None:
    assert capture.missing_links(WHOLE) == []


@pytest.mark.parametrize(("link", "gone", "words"), [
    ("code", {"commit": None}, "no git commit: the code that made this cannot be named"),
    ("dvc_lock_sha256", None, "no dvc.lock: the stages' inputs and outputs are not recorded"),
    ("stages", {}, "dvc.lock names no stage that makes this model"),
    ("environment", {"requirements_lock_sha256": None}, "no requirements.lock: the packages are not pinned"),
])
def test_each_missing_link_is_named_in_its_own_words_and_no_other(link: str, gone: object, words: str) -> None:
    assert capture.missing_links({**WHOLE, link: gone}) == [words]


def test_without_data_there_is_no_key_and_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LineageError, match="heartml ingest"):
        capture.data_hash()
    Path("data.dvc").write_text("outs:\n- md5: ")
    with pytest.raises(LineageError, match="heartml ingest"):
        capture.data_hash()


def test_outside_git_there_is_no_commit_and_no_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert capture.code_state() == {"commit": None, "dirty": False, "diff_sha256": None}


def test_an_edit_and_a_new_file_make_the_tree_dirty_and_a_new_lock_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@e.org"]
    for command in (["init", "-q"], ["commit", "-qm", "x", "--allow-empty"]):
        subprocess.run([*git, *command], check=True)
    Path("dvc.lock").write_text("schema: '2.0'\n")
    assert not capture.code_state()["dirty"]
    Path("new.py").write_text("x = 1\n")
    first = capture.code_state()
    assert first["dirty"]
    Path("new.py").write_text("x = 2\n")
    assert capture.code_state()["diff_sha256"] != first["diff_sha256"]
