"""Every version of the data that git's history, runs or this folder name: once, oldest first."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from heartml.lineage import data_versions
from heartml.lineage.data_versions import list_data_versions

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")


def git(*arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commit(md5: str | None, text: str = "") -> str:
    """Commit `data.dvc` with that version, another text, or without the file; returns the commit."""
    if md5 is None and not text:
        Path("data.dvc").unlink()
    else:
        Path("data.dvc").write_text(text or yaml.safe_dump({"outs": [{"md5": md5, "path": "data"}]}))
    git("add", "-A")
    git("commit", "-qm", "data")
    return git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    return tmp_path


def test_versions_of_all_branches_come_oldest_first_with_the_commits_that_name_them(repository: Path) -> None:
    first, second = commit("aa.dir"), commit("bb.dir")
    commit(None, text="half a fi")
    commit(None)
    git("checkout", "-q", "-b", "other", second)
    branch, back = commit("cc.dir"), commit("aa.dir")
    found = list_data_versions({})
    assert [(one.md5, [named.commit for named in one.commits]) for one in found] == [
        ("aa.dir", [first, back]), ("bb.dir", [second]), ("cc.dir", [branch])]
    assert [one.md5 for one in found if one.current] == ["aa.dir"]
    assert all(named.when.startswith("20") for one in found for named in one.commits)


def test_runs_and_the_folder_add_versions_that_no_commit_names(repository: Path) -> None:
    commit("aa.dir")
    Path("data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": "now.dir", "path": "data"}]}))
    found = {one.md5: one for one in list_data_versions({"run1": "aa.dir", "run2": "lost.dir", "run3": "aa.dir"})}
    assert list(found) == ["aa.dir", "lost.dir", "now.dir"]
    assert (found["aa.dir"].runs, found["lost.dir"].runs) == (("run1", "run3"), ("run2",))
    assert found["lost.dir"].commits == ()
    assert [one.current for one in found.values()] == [False, False, True]


def test_outside_a_repository_only_runs_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert [one.md5 for one in list_data_versions({"run": "aa.dir"})] == ["aa.dir"]


def test_the_tables_of_a_version_are_read_by_hash() -> None:
    stored = {"recordings.parquet": pd.DataFrame({"a": [1]}), "quarantine.parquet": pd.DataFrame({"b": [2]})}
    objects = SimpleNamespace(listing=lambda md5: f"listing of {md5}",
                              table=lambda listing, name: stored[name].assign(of=listing))
    found = data_versions.tables(objects, "aa.dir")
    assert found.recordings.to_dict("records") == [{"a": 1, "of": "listing of aa.dir"}]
    assert found.quarantine.to_dict("records") == [{"b": 2, "of": "listing of aa.dir"}]
