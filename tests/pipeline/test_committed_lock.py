"""The outputs compared with the committed `dvc.lock`: the same bytes, other numbers, or other code."""

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from support.repositories import commit_all
from support.workspaces import ROOT

from heartml.core import paths
from heartml.core.system.files import canonical_json
from heartml.pipeline import committed_lock, lock_demo

TASK = "simulated-murmur"
GRAPH = """stages:
  evaluate:
    matrix: {task: [simulated-murmur]}
    cmd: "true"
    deps: [heartml]
    metrics: ["artifacts/${item.task}/evaluation/summary.json"]
  report:
    matrix: {task: [simulated-murmur]}
    cmd: "true"
    deps: ["artifacts/${item.task}/evaluation/summary.json"]
    outs: ["artifacts/${item.task}/report.html"]
"""


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file; its entry in a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"path": path.as_posix(), "hash": "md5", "md5": md5(content), "size": len(content)}


def lock(uar: float, code: str = "a", page: str = "page") -> dict[str, Any]:
    """Outputs of the two stages, and their lock as it is when the second one has ended."""
    summary = write(paths.evaluation(TASK) / "summary.json", canonical_json({"held_out": {"uar": uar}}).encode())
    shown = write(paths.report(TASK), page.encode())
    heartml = {"path": "heartml", "hash": "md5", "md5": md5(code.encode())}
    return {"schema": "2.0", "stages": {
        f"evaluate@{TASK}": {"cmd": "true", "deps": [heartml], "outs": [summary]},
        f"report@{TASK}": {"cmd": "true", "deps": [summary], "outs": [shown]}}}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone in which a lock and the metrics behind it are committed, and no stage has run."""
    monkeypatch.chdir(tmp_path)
    for name in (".dvc/config", ".gitignore", ".dvcignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, name)
    Path("dvc.yaml").write_text(GRAPH)
    Path("heartml").mkdir()
    known = lock(0.8)
    Path("dvc.lock").write_text(yaml.safe_dump({**known, "stages": {
        "search@gone-murmur": {"cmd": "true", "outs": []}, **dict(reversed(known["stages"].items()))}}))
    [copied] = lock_demo.prune(
        [f"evaluate@{TASK}", f"report@{TASK}"], [(paths.evaluation(TASK) / "summary.json").as_posix()],
        committed_lock.remote_folder() or Path())
    assert copied.parent.parent == Path("bundled/files/md5")
    assert list(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == [*known["stages"]]
    commit_all()
    shutil.rmtree("artifacts")
    return tmp_path


def reproduce(**how: Any) -> str:
    """Run both stages, as far as the lock and the outputs are concerned; what the second one says before it ends."""
    found = lock(**how)
    running = copy.deepcopy(found)
    del running["stages"][f"report@{TASK}"]
    Path("dvc.lock").write_text(yaml.safe_dump(running))
    words = committed_lock.in_words(TASK)
    Path("dvc.lock").write_text(yaml.safe_dump(found))
    return words


SAME = "the same bytes as the committed dvc.lock"
OTHER = "other bytes than the committed dvc.lock, from the same inputs "
CHANGED = f"made from other code, parameters or data than the committed dvc.lock (evaluate@{TASK}); "


@pytest.mark.parametrize(("how", "words"), [
    ({"uar": 0.8}, SAME), ({"uar": 0.8, "code": "b"}, SAME),
    ({"uar": 0.8125}, f"{OTHER}(another processor?); numbers differ by at most 0.0125 (held_out.uar)"),
    ({"uar": 0.8, "page": "another"}, f"{OTHER}(another processor?); no metric differs"),
    ({"uar": 0.7, "code": "b"}, f"{CHANGED}numbers differ by at most 0.1 (held_out.uar)")])
def test_a_reproduction_in_a_clone_says_whether_it_is_what_the_authors_got(
    clone: Path, how: dict[str, Any], words: str
) -> None:
    assert reproduce(**how) == words


def test_metrics_can_be_compared_with_the_commit_from_the_first_day(clone: Path) -> None:
    reproduce(uar=0.75)
    with Repo(".") as repo:
        found = repo.metrics.diff()["diff"]
    [changes] = found.values()
    assert changes["held_out.uar"]["old"] == 0.8 and changes["held_out.uar"]["new"] == 0.75


def test_nothing_is_said_where_nothing_is_committed_or_git_is_not_there(clone: Path) -> None:
    assert committed_lock.in_words("circor-murmur") == ""
    reproduce(uar=0.75)
    shutil.rmtree(clone / ".git")
    assert committed_lock.in_words(TASK) == ""


def test_metrics_that_are_nowhere_and_a_lock_that_is_none_are_no_error(clone: Path) -> None:
    shutil.rmtree("bundled")
    assert reproduce(uar=0.75).endswith("its metrics are not here, so by how much the numbers differ is not known")
    Path("dvc.lock").write_text("stages: [")
    assert committed_lock.in_words(TASK).startswith("made from other code")
    Path("dvc.lock").unlink()
    assert committed_lock.in_words(TASK).startswith("made from other code")


def test_metrics_with_other_names_are_left_to_dvc() -> None:
    words = committed_lock._difference_in_words(json.loads('{"a": 1}'), {"b": 1.0})
    assert words == "the metrics have other names: `dvc metrics diff` lists them"
