"""The stored difference: the same whatever the user has configured, all of the code, and none of the data."""

import os
from pathlib import Path

import pytest
from support.repositories import commit_all, git

from heartml.audit.git_tree import CommitTree
from heartml.lineage import capture, code_difference

SETTINGS = """
[diff]
    external = /bin/false
    noprefix = true
    context = 0
    renames = copies
    algorithm = patience
    orderFile = order
[color]
    ui = always
[core]
    quotePath = false
    autocrlf = true
    excludesFile = {folder}/ignored
    attributesFile = {folder}/attributes
    hooksPath = {folder}
    abbrev = 5
[apply]
    whitespace = fix
    ignoreWhitespace = change
[i18n]
    commitEncoding = latin1
    logOutputEncoding = utf-16
"""
LONG = b"".join(b"%d\n" % number for number in range(12))
CHANGED = {"code/edited.py": b"x = 2\r\n\tx = 3 \n", "code/moved here.py": b"same\n" * 9, "code/latin.py": b"# \xe9\n",
           "code/long.py": LONG.replace(b"7\n", b"seven\n"), "code/caf\u00e9 \"1\".py": b"new = 1\n",
           "code/sub/new.py": b"new = 2\r\n"}


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit of a small project, which is the working folder."""
    root = tmp_path / "project"
    (root / "code").mkdir(parents=True)
    monkeypatch.chdir(root)
    for name, content in {"code/edited.py": b"x = 1\r\n", "code/old.py": b"same\n" * 9, "code/latin.py": b"# e\n",
                          "code/long.py": LONG, "dvc.lock": b"schema: '2.0'\n", "splits/one.csv": b"id,part\n",
                          "big.txt": b"x" * 2_000_000, "scores.csv": b"a,b\n", ".gitignore": b"/artifacts\n"}.items():
        write(name, content)
    return commit_all()


def write(name: str, content: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


def change() -> None:
    """Edit, move and add files, as people do it: with line ends of both kinds and letters that are not UTF-8."""
    Path("code/old.py").unlink()
    for name, content in CHANGED.items():
        write(name, content)
    write("dvc.lock", b"schema: '2.0'\nstages: {}\n")
    Path("code/sub/new.py").chmod(0o755)


def use_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user may have configured, in a file and in the environment."""
    folder.mkdir()
    (folder / "config").write_text(SETTINGS.format(folder=folder))
    (folder / "ignored").write_text("*.py\n*.wav\n")
    (folder / "attributes").write_text("*.py binary\n")
    hook = folder / "post-index-change"
    hook.write_text(f"#!/bin/sh\ntouch '{folder}/hook-ran'\n")
    hook.chmod(0o755)
    for name, value in {"GIT_CONFIG_GLOBAL": str(folder / "config"), "GIT_EXTERNAL_DIFF": "/bin/false",
                        "GIT_DIFF_OPTS": "--unified=0", "GIT_DIR": "/nowhere", "GIT_LITERAL_PATHSPECS": "1",
                        "LC_ALL": "C.UTF-8"}.items():
        monkeypatch.setenv(name, value)


def test_a_difference_is_the_same_bytes_whatever_the_user_has_configured(
    commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Path(".git/index").read_bytes()
    change()
    plain = code_difference.read(commit)
    use_settings(tmp_path / "user", monkeypatch)
    assert code_difference.read(commit) == plain
    assert b"diff --git a/code/edited.py b/code/edited.py\n" in plain.diff
    assert b"dvc.lock" not in plain.diff
    assert plain.left_out == {}
    tree = CommitTree(commit, plain.diff, tmp_path / "place")
    assert sorted(tree.below("code")) == sorted(CHANGED)
    assert tree.read(list(CHANGED)) == CHANGED, "commit and difference are the code, byte for byte"
    assert Path(".git/index").read_bytes() == index
    assert not (tmp_path / "user/hook-ran").exists()


def test_nothing_of_people_s_data_enters_the_difference_and_each_of_it_is_named(commit: str) -> None:
    wav = b"RIFF\0\0\0\0WAVE" * 1000
    for number in range(30):
        write(f"download/audio/{number}.wav", wav)
        write(f"notes/{number}.flac", wav)
    write("notes/why.md", b"kept, because this folder is in the commit\n")
    git("add", "notes/why.md")
    git("commit", "-qm", "notes")
    write("notes/why.md", b"kept: its change is text\n")
    for name in ("download/patients.csv", "download/read.py", "data/recordings.parquet", "people.xlsx", "scores.csv",
                 "all.tar.gz", "code/weights.bin", ".heartml/mlflow.db", "keys/one.pub"):
        write(name, b"secret \0 bytes" if "." in name and name[-3:] in {"bin", "lsx", "uet"} else b"secret text\n")
    write("splits/one.csv", b"id,part\n1,test\n")
    write("large.py", b"secret\n" * 200_000)
    Path("big.txt").unlink()
    commit_all(Path("vendor").mkdir() or Path("vendor"))     # type: ignore[func-returns-value]
    found = code_difference.read(git("rev-parse", "HEAD"))
    assert found.left_out == {
        "download/": "a new folder with recordings", "data/": "a data folder", ".heartml/": "a data folder",
        **{f"notes/{number}.flac": "a recording" for number in range(30)}, "people.xlsx": "a table",
        "scores.csv": "a table", "all.tar.gz": "an archive", "code/weights.bin": "a new binary file",
        "large.py": "larger than 1 MiB", "big.txt": "larger than 1 MiB", "vendor/": "a repository of its own"}
    assert b"RIFF" not in found.diff
    assert found.diff.count(b"secret") == 1, "a public key is text of this project, and is kept"
    assert found.diff.count(b"diff --git") == 3
    assert b"+1,test" in found.diff and b"+kept: its change" in found.diff
    assert len(found.diff) < 2000


def test_a_difference_has_a_largest_size(commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_difference, "MAX_BYTES", 250)
    for name in "abc":
        write(f"{name}.txt", name.encode() * 100)
    found = code_difference.read(commit)
    assert found.left_out == {"c.txt": "the difference would be larger than 16 MiB"}
    assert b"a" * 100 in found.diff and b"c" * 100 not in found.diff


def test_many_that_were_left_out_are_counted(commit: str) -> None:
    words = code_difference.in_words({f"{number}/x.wav": "a recording" for number in range(70)})
    assert len(words) == 51
    assert words[-1] == "and 20 more"
    assert code_difference.in_words({os.fsdecode(b"\xe9.wav"): "a recording"}) == ["\ufffd.wav: a recording"]


def test_code_that_a_stage_reads_and_the_difference_lacks_is_a_missing_link(commit: str) -> None:
    write("code/weights.bin", b"\0" * 10)
    write("notes.wav", b"RIFF")
    state = capture.code_state([Path("code")])
    assert state["left_out"] == ["code/weights.bin: a new binary file", "notes.wav: a recording"]
    assert (state["dirty"], state["diff_sha256"]) == (False, None)
    found = {"code": state, "dvc_lock_sha256": "1", "stages": {"a": {}},
             "environment": {"requirements_lock_sha256": "2"}}
    assert capture.missing_links(found) == ["code.diff lacks what a stage reads, commit it or remove it: "
                                            "code/weights.bin: a new binary file"]
    Path("code/weights.bin").unlink()
    state = capture.code_state([Path("code")])
    assert capture.missing_links({**found, "code": state}) == [], "a recording beside the code is no fault"


def test_a_clean_folder_has_the_keys_that_it_always_had(commit: str) -> None:
    assert capture.code_state([Path("code")]) == {"commit": commit, "dirty": False, "diff_sha256": None}


def test_what_to_commit_after_a_retraining_is_what_no_commit_has(commit: str) -> None:
    assert capture.uncommitted() == []
    write("dvc.lock", b"schema: '2.0'\nstages: {}\n")
    write("splits/two.csv", b"id,part\n")
    write("artifacts/new.json", b"{}")
    write("code/edited.py", b"x = 9\n")
    assert capture.uncommitted() == ["dvc.lock", "splits/two.csv"]
    git("update-ref", "-d", "HEAD")
    assert capture.uncommitted() == ["dvc.lock", "splits/one.csv", "splits/two.csv"], "there is no commit yet"
    write(".gitignore", b"/dvc.lock\n")
    git("rm", "-qf", "--cached", "dvc.lock")
    assert "dvc.lock" not in capture.uncommitted()
