"""What an audit reads its evidence from: commit and difference, the model's code, the environment, stages' commands."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.workspaces import ROOT

from heartml.audit import code, recompute, reproduce
from heartml.audit.git_tree import CommitTree, place_md5
from heartml.audit.links import LinkBroken, LinkMissing, require_same
from heartml.lineage import capture

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")


def test_commit_and_difference_are_the_code_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code").mkdir()
    for name in ("kept.py", "edited.py", "dropped.py"):
        Path("code", name).write_text(f"{name = }\n")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*GIT, *command], check=True)
    commit = subprocess.run([*GIT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    clean = CommitTree(commit, b"", tmp_path / "place/clean")
    there = place_md5(Path("code"))
    assert clean.md5s(["code"]) == {"code": there}
    Path("code/edited.py").write_text("edited = 2\n")
    Path("code/dropped.py").unlink()
    Path("code/new.py").write_text("new = 1\n")
    subprocess.run([*GIT, "add", "--intent-to-add", "code/new.py"], check=True)
    diff = subprocess.run([*GIT, "diff", "HEAD", "--binary"], capture_output=True, check=True).stdout
    objects = sorted(Path(".git/objects").rglob("*"))
    dirty = CommitTree(commit, diff, tmp_path / "place/dirty")
    assert dirty.md5s(["code", "code/new.py", "nothing"]) == {
        "code": place_md5(Path("code")), "code/new.py": place_md5(Path("code/new.py")), "nothing": None}
    assert there != place_md5(Path("code"))
    assert sorted(Path(".git/objects").rglob("*")) == objects, "nothing is left in the repository"
    with pytest.raises(LinkBroken, match="does not fit"):
        _ = CommitTree(commit, diff.replace(b"edited", b"wrong!"), tmp_path / "place/wrong").blobs
    with pytest.raises(LinkMissing, match="not in this repository"):
        _ = CommitTree("ab" * 20, b"", tmp_path / "place/unknown").blobs


def model_with_code(place: Path, commit: dict[str, bytes], entry: str) -> SimpleNamespace:
    """Evidence about a stored model that has the code of `commit` (path -> content), entered at `entry`."""
    for name, content in commit.items():
        (place / "code" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "code" / name).write_bytes(content)
    (place / "serving.py").write_bytes(commit[entry])
    tree = SimpleNamespace(below=lambda _: list(commit), read=lambda names: {name: commit[name] for name in names})
    return SimpleNamespace(stored_model=place, tree=tree, commit="ab" * 20)


@pytest.mark.parametrize("entry", ["heartml/inference/serving.py", "heartml/serving.py"])
def test_the_code_beside_a_model_holds_where_its_entry_is_now_and_where_it_was(entry: str, tmp_path: Path) -> None:
    """Versions from before the packages were rearranged have their entry at heartml/serving.py."""
    commit = {"heartml/__init__.py": b"", entry: b"model = 1\n"}
    evidence = model_with_code(tmp_path, commit, entry)
    assert code.in_model(evidence).startswith("3 files of code as in commit abababababab")
    (tmp_path / "serving.py").write_bytes(b"model = 2\n")
    with pytest.raises(LinkBroken, match=rf"{entry} \(entry\): changed"):
        code.in_model(evidence)


@pytest.mark.parametrize("key", ["baselines", "floors"])
def test_metrics_of_a_version_with_old_parameter_names_are_computed_again(key: str) -> None:
    """Versions from before the renaming have `evaluate.floors` in the params.yaml of their run."""
    section = {"bootstrap": 100, "confidence": 0.95, key: ["majority"], "confounded_auc": 0.7}
    evidence = SimpleNamespace(values=lambda _: {"seed": 3, "evaluate": section}, commit="ab" * 20)
    params, seed = recompute._params(evidence)
    assert (params.baselines, params.bootstrap, seed) == (("majority",), 100, 3)
    section["unheard_of"] = 1
    with pytest.raises(LinkMissing, match="audit with the code of that time"):
        recompute._params(evidence)


def test_the_launcher_of_a_reproduction_imports_nothing_of_heartml(tmp_path: Path) -> None:
    """It runs in a clone of an older commit, whose `heartml` may have another layout: here one that cannot load."""
    (tmp_path / "heartml").mkdir()
    (tmp_path / "heartml/__init__.py").write_text("raise ImportError('the clone has another layout')\n")
    launcher = reproduce._DVC_LAUNCHER.format(parent=os.getpid())
    done = subprocess.run([sys.executable, "-c", launcher, "--version"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "heartml" not in launcher


def test_witnesses_that_differ_or_are_silent_are_named() -> None:
    assert require_same({"tag": "a", "file": "a"}).startswith("a, ")
    with pytest.raises(LinkBroken, match="tag: a; file: b"):
        require_same({"tag": "a", "file": "b"})
    with pytest.raises(LinkMissing, match="no value in file"):
        require_same({"tag": "a", "file": None})


@pytest.mark.parametrize("unknown", ["", "gpu"])
def test_another_gpu_or_package_is_another_environment(unknown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = {key: value for key, value in capture.environment().items() if key != unknown}
    assert reproduce.environment_differences(noted) == []
    older = {**noted, "packages": {k: v for k, v in noted["packages"].items() if k != "scipy"}}
    assert reproduce.environment_differences(older) == [], "what was not noted is not called different"
    monkeypatch.setattr(capture, "gpu", lambda: "another")
    assert [words.partition(" ")[0] for words in reproduce.environment_differences(noted)] == ["GPU"] * ("gpu" in noted)
    for name in ("scipy", "soundfile", "timm", "safetensors"):
        other = {**older, "packages": noted["packages"] | {name: "0"}}
        assert any(words.startswith(f"{name} ") for words in reproduce.environment_differences(other))
        assert name in noted["packages"]


def told(address: str, command: str) -> str:
    """What the audit says of this project's dvc.yaml, and of a lock with one stage."""
    content = (ROOT / "dvc.yaml").read_bytes()
    tree = SimpleNamespace(blobs={"dvc.yaml": ""}, read=lambda _: {"dvc.yaml": content})
    return code.pipeline(SimpleNamespace(stages={address: {"cmd": command}}, tree=tree, file=lambda n: ROOT / n))


@pytest.mark.parametrize(("address", "command"), [
    ("validate", "python -m heartml validate"), ("search@a+b-murmur", "python -m heartml search --task a+b-murmur"),
    ("features@a-murmur-logspec", "python -m heartml features --task a-murmur --encoder logspec"),
])
def test_what_a_stage_ran_is_its_command_in_dvc_yaml(address: str, command: str) -> None:
    assert told(address, command)
    for other in (f"{command} --more", f"{command}; rm -r here", command.replace("heartml", "elsewhere"), ""):
        with pytest.raises(LinkBroken, match="has commands that"):
            told(address, other)
    for elsewhere in (f"no-such-{address}", f"{address.partition('@')[0]}@another"):
        with pytest.raises(LinkBroken, match="has commands that"):
            told(elsewhere, command)
