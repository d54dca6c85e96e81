"""Repositories that git cannot read, or sees only in part, are named; one in any folder is read."""

import re
from pathlib import Path

import pytest
from support.repositories import commit_all, git
from support.workspaces import ROOT

from heartml.audit.git_tree import CommitTree
from heartml.audit.links import LinkMissing
from heartml.lineage import capture, data_versions
from heartml.pipeline import git as runner
from heartml.pipeline.git import GitRefused


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which is the working folder; its name has what means something to git."""
    root = tmp_path / 'run #2: 100%25 is it? "x" '
    root.mkdir()
    monkeypatch.chdir(root)
    Path("code.py").write_text("x = 1\n")
    Path("data.dvc").write_text("outs:\n- md5: aa.dir\n")
    commit_all()
    return root


def test_a_repository_of_somebody_else_is_named_with_the_way_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    state = capture.code_state()
    assert state["commit"] is None
    found = {"code": state, "dvc_lock_sha256": "1", "stages": {"a": {}},
             "environment": {"requirements_lock_sha256": "2"}}
    [missing] = capture.missing_links(found)
    assert missing.startswith("no git commit: the code that made this cannot be named (git does not trust")
    assert "git config --global --add safe.directory" in missing
    with pytest.raises(GitRefused, match="somebody else owns it"):
        data_versions.list_data_versions({})
    with pytest.raises(LinkMissing, match=r"safe\.directory"):
        CommitTree(commit, b"", tmp_path / "place").check()


def test_a_shallow_clone_says_what_it_lacks(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = git("rev-parse", "HEAD")
    assert data_versions.unseen() == []
    Path("data.dvc").write_text("outs:\n- md5: bb.dir\n")
    commit_all()
    git("clone", "-q", "--depth", "1", "--no-local", ".", str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    assert [one.md5 for one in data_versions.list_data_versions({})] == ["bb.dir"]
    [words] = data_versions.unseen()
    assert "git fetch --unshallow" in words
    with pytest.raises(LinkMissing, match="not in this shallow clone"):
        CommitTree(first, b"", tmp_path / "place").check()


def test_a_worktree_has_its_own_difference_and_one_without_its_repository_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("worktree", "add", "-q", str(tmp_path / "tree"))
    Path("code.py").write_text("x = 2\n")
    monkeypatch.chdir(tmp_path / "tree")
    assert not capture.code_state()["dirty"]
    Path("code.py").write_text("x = 3\n")
    state, diff = capture.code_state(), capture.code_diff()
    assert b"+x = 3" in diff
    tree = CommitTree(state["commit"], diff, tmp_path / "place")
    assert tree.read(["code.py"]) == {"code.py": b"x = 3\n"}
    root.rename(tmp_path / "moved")
    assert "cannot read this repository: not a git repository:" in capture.code_state()["trouble"]


def test_a_folder_without_repository_is_no_trouble_and_a_machine_without_git_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runner.trouble() is None
    assert runner.output("rev-parse", "HEAD") == b""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runner.trouble() == "git is not installed: install it"
    assert capture.code_state()["trouble"] == "git is not installed: install it"


def test_a_commit_is_what_its_name_says_and_not_what_somebody_replaced_it_by(root: Path, tmp_path: Path) -> None:
    commit = git("rev-parse", "HEAD")
    Path("code.py").write_text("x = 'other'\n")
    git("replace", commit, commit_all())
    assert CommitTree(commit, b"", tmp_path / "place").read(["code.py"]) == {"code.py": b"x = 1\n"}


def test_text_of_git_is_utf8_whatever_a_user_has_configured(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[i18n]\n\tlogOutputEncoding = UTF-16\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    assert runner.run("log", "-1", "--format=%s").stdout.decode("utf-8").strip()


def test_what_git_prints_has_a_largest_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runner.output("cat-file", "--batch", stdin=b"HEAD:code.py\n").endswith(b"x = 1\n\n")
    monkeypatch.setattr(runner, "MAX_BYTES", 40)
    with pytest.raises(GitRefused, match="printed more than 40 bytes"):
        runner.output("cat-file", "--batch", stdin=b"HEAD:code.py\n")


def test_one_module_runs_git_and_one_makes_addresses_of_paths() -> None:
    made = {"git": re.compile(r"""(\[|= \()\s*["']git["']"""),
            "address": re.compile(r"""f["'](sqlite|file)[^"']*:/[^"']*\{""")}
    files = [path for package in ("heartml", "flows") for path in (ROOT / package).rglob("*.py")]
    found = {(what, path.relative_to(ROOT).as_posix()) for path in files for what, pattern in made.items()
             if pattern.search(path.read_text(encoding="utf-8"))}
    assert found == {("git", "heartml/pipeline/git.py"), ("address", "heartml/registry/addresses.py")}
