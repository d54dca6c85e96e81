"""Every kind of tampering is found, by the link that is there for it, and the other links still hold."""

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from support import small_project
from support.small_project import TASK
from support.workspaces import Workspace

from heartml import audit
from heartml.audit import compare_outputs
from heartml.audit.git_tree import place_md5
from heartml.audit.links import BROKEN, HOLDS, MISSING
from heartml.cli import cli
from heartml.core import paths
from heartml.core.system.files import canonical_json, read_json
from heartml.core.system.hashing import sha256
from heartml.inference import model_lookup, serving
from heartml.registry import model_files, signing, tracking, versions
from heartml.registry.signing import keys

STORE = ".heartml/mlflow.db"
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture(scope="module")
def pristine(retrained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Workspace]]:
    """A copy of the retrained project to be tampered with, and one to mend it from."""
    root = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "HEARTML_SIGNING", "HEARTML_SIGNING_KEY", "HEARTML_TRUSTED_KEYS"):
            patch.delenv(name, raising=False)
        copy = retrained.copy(root / "project")
        patch.chdir(copy.root)
        tracking.connect()          # addresses in the store follow the copy
        yield copy, copy.copy(root / "kept")


@pytest.fixture
def project(pristine: tuple[Workspace, Workspace]) -> Iterator[Workspace]:
    """The copy as the working folder; afterwards every file that was touched is as it was."""
    copy, kept_copy = pristine
    before = touched(copy)
    yield copy
    after = touched(copy)
    for name in {name for name in {*before, *after} if before.get(name) != after.get(name)}:
        (copy / name).unlink(missing_ok=True)
        if name in before:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(kept_copy / name, copy / name)
    with contextlib.closing(sqlite3.connect(kept_copy / STORE)) as good, \
            contextlib.closing(sqlite3.connect(copy / STORE, timeout=30)) as store:
        good.backup(store)              # MLflow keeps the file open


def touched(project: Workspace) -> dict[str, tuple[int, int]]:
    """What changes whenever a file is written to, even where its own time is set back."""
    found = {}
    for folder, _, names in os.walk(project.root):
        for name in (n for n in names if not n.startswith(Path(STORE).name)):
            told = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - thousands of files, for every test
            found[os.path.relpath(os.path.join(folder, name), project.root)] = (told.st_ino, told.st_ctime_ns)  # noqa: PTH118
    return found


def kept(name: str) -> Path:
    """A file of the run, where MLflow has it."""
    [gate] = Path(".heartml/mlartifacts").glob("*/artifacts/gate.json")
    return gate.parent / name


def stored(name: str) -> Path:
    """A file of the registered model, where MLflow has it."""
    [model] = Path(".heartml/mlartifacts/models").glob("*/artifacts")
    return model / name


def sql(statement: str, *values: object) -> None:
    store = sqlite3.connect(STORE, timeout=30)
    assert store.execute(statement, values).rowcount, "nothing was changed"
    store.commit()
    store.close()


def flip(path: Path) -> None:
    """Change one byte; size and time of change stay."""
    before, data = path.stat(), bytearray(path.read_bytes())
    path.chmod(before.st_mode | stat.S_IWUSR)
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def recording() -> Path:
    return sorted(paths.DATA.glob("audio/*/*.flac"))[0]


def cached(path: Path) -> Path:
    """The object of DVC's cache that a file was made from."""
    md5 = place_md5(path)
    return Path(".dvc/cache/files/md5") / md5[:2] / md5[2:]


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = read_json(path)
    change(values)
    path.write_text(canonical_json(values))


def moved_patient() -> None:
    """Out of the held-out part, into training."""
    table = pd.read_parquet(kept("folds.parquet"))
    unit = table.loc[table["part"] == "test", "unit_id"].iloc[0]
    table.loc[table["unit_id"] == unit, "part"] = "0"
    table.to_parquet(kept("folds.parquet"), index=False)


def crossing_patient() -> None:
    """One recording of a patient on the other side."""
    table = pd.read_parquet(kept("folds.parquet"))
    table.loc[table.index[table["part"] == "test"][0], "part"] = "0"
    table.to_parquet(kept("folds.parquet"), index=False)


def swapped_model() -> None:
    """Another rule of decision in the registered model, in the same number of bytes."""
    path = stored("artifacts/model/model.json")
    told = read_json(path)
    told["rule"]["biases"] = told["rule"]["biases"][::-1]
    path.write_text(canonical_json(told))


def signed_by_another() -> None:
    theirs = Path("theirs.pem")
    keys._make(theirs)
    signing._sign(stored(""), stored(signing.SIGNATURE), keys._private(theirs, "theirs"))
    theirs.unlink()
    theirs.with_suffix(".pub").unlink()


def swapped_and_signed_by_another() -> None:
    swapped_model()
    signed_by_another()


def deleted_commit() -> None:
    """History is written anew, and what was is thrown away."""
    for command in (["checkout", "-q", "--orphan", "anew"], ["commit", "-qm", "another history"],
                    ["branch", "-q", "-D", "main"], ["reflog", "expire", "--expire=now", "--all"],
                    ["gc", "-q", "--prune=now"]):
        subprocess.run([*GIT, *command], check=True)


def planted_pickle() -> None:
    with zipfile.ZipFile(stored("artifacts/weights.txt"), "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04.")


def planted_bytecode() -> None:
    place = stored("code/heartml/__pycache__/audio.cpython-311.pyc")
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"\x00" * 64)


def forged_alike() -> None:
    """The lock, in all places that name it: they agree with each other."""
    def other(lock: dict[str, Any]) -> dict[str, Any]:
        lock["stages"][f"search@{TASK}"]["outs"][0]["size"] += 1
        return lock

    lock = other(yaml.safe_load(kept("dvc.lock").read_text()))
    kept("dvc.lock").write_text(yaml.safe_dump(lock))
    kept("dvc.lock.json").write_text(canonical_json(lock))
    digest = sha256(canonical_json(lock).encode())
    edited(kept("lineage.json"), lambda facts: (other(facts), facts.update(dvc_lock_sha256=digest)))
    sql("update tags set value = ? where key = 'heartml.dvc_lock'", digest)


def refused_as_champion() -> None:
    """A second version, which nobody has judged, is given tags and the alias of a champion."""
    client, first = tracking.connect(), versions.champion(tracking.connect(), TASK)
    assert first
    client.create_model_version(TASK, source=first.source, run_id=first.run_id, tags=dict(first.tags))
    client.set_registered_model_alias(TASK, "champion", "2")


def forged_gate() -> None:
    """The refusal of one criterion is turned round, in the file and in the tag."""
    edited(kept("gate.json"), lambda told: told["criteria"][0].update(words="better than all floors"))
    name = read_json(kept("gate.json"))["criteria"][0]["name"]
    sql("update model_version_tags set value = 'passed (1): better than all floors' where key = ?",
        f"heartml.gate.{name}")


OF_THE_COMMIT = dict.fromkeys(("commit", "stage_code", "model_code", "pipeline", "parameters", "packages"), MISSING)
OF_THE_NOTES = dict.fromkeys(("record", "commit", "difference", "stage_code", "model_code", "pipeline", "parameters",
                              "packages", "lock", "stages", "data_version", "model"), BROKEN)
UNSIGNED = dict.fromkeys(("signature", "record"), BROKEN)
TAMPERINGS: dict[str, tuple[Callable[[], object], dict[str, str]]] = {
    "nothing": (lambda: None, {}),
    "an audio byte in DVC's cache": (lambda: flip(cached(recording())), {"data": BROKEN}),
    "an audio byte in data/": (lambda: flip(recording()), {"data_here": BROKEN}),
    "a recording more in data/": (lambda: shutil.copy(recording(), paths.DATA / "audio/more.flac"),
                                  {"data_here": BROKEN}),
    "a lost object of the cache": (lambda: cached(paths.ARTIFACTS / TASK / "report.html").unlink(),
                                   {"outputs": MISSING}),
    "a byte of a stage's output in the cache": (lambda: flip(cached(paths.search(TASK) / "trials.parquet")),
                                                {"outputs": BROKEN}),
    "an edited metric": (lambda: sql("update latest_metrics set value = 0.99 where key = 'held_out/uar'"),
                         {"record": BROKEN, "metrics": BROKEN}),
    "an edited metric of a floor": (
        lambda: sql("update latest_metrics set value = 0.01 where key = 'floor/majority/uar'"),
        {"record": BROKEN, "metrics": BROKEN}),
    "a swapped model": (swapped_model, {**UNSIGNED, "model": BROKEN, "decisions": BROKEN}),
    "a swapped model, signed by another": (swapped_and_signed_by_another,
                                           {**UNSIGNED, "model": BROKEN, "decisions": BROKEN}),
    "a signature of another": (signed_by_another, UNSIGNED),
    "no signature": (lambda: stored(signing.SIGNATURE).unlink(), dict.fromkeys(UNSIGNED, MISSING)),
    "changed code beside the model": (
            lambda: stored("code/heartml/audio/sound_files.py").write_text("print('code ran')\n"),
                                      {**UNSIGNED, "model_code": BROKEN}),
    "bytecode beside the model": (planted_bytecode, {"model_code": BROKEN}),
    "a planted pickle": (planted_pickle, {**UNSIGNED, "no_pickle": BROKEN}),
    "a moved patient": (moved_patient, {"record": BROKEN, "results": BROKEN, "groups": BROKEN}),
    "a patient on both sides": (crossing_patient, {"record": BROKEN, "results": BROKEN, "groups": BROKEN}),
    "a forged verdict": (
        lambda: sql("update model_version_tags set value = 'refused' where key = 'heartml.verdict'"), {"gate": BROKEN}),
    "a forged look": (
        lambda: sql("update model_version_tags set value = '7' where key = 'heartml.look'"), {"gate": BROKEN}),
    "a forged gate": (forged_gate, {"gate": BROKEN, "alias": BROKEN}),
    "a forged tag of the lock": (lambda: sql("update tags set value = 'ab' where key = 'heartml.dvc_lock'"),
                                 {"record": BROKEN, "lock": BROKEN}),
    "a lock that was changed alike everywhere": (forged_alike, {"record": BROKEN}),
    "a forged champion": (refused_as_champion, {"gate": BROKEN, "alias": BROKEN}),
    "a deleted commit": (deleted_commit, OF_THE_COMMIT),
    "an edited lineage.json": (lambda: edited(kept("lineage.json"), lambda f: f["data"].update(hash="ab.dir")),
                               {"record": BROKEN, "data_version": BROKEN}),
    "another params.yaml in the run": (lambda: kept("params.yaml").write_text(
        kept("params.yaml").read_text().replace("seed: 20260", "seed: 20261")), {
            "record": BROKEN, "parameters": BROKEN, "metrics": BROKEN}),
    "a validation that is said to have passed": (
        lambda: edited(kept("validation/validation.json"), lambda told: told.update(success=False)),
        {"record": BROKEN, "results": BROKEN, "validation": BROKEN}),
    "withdrawn consent": (lambda: tracking.connect().set_model_version_tag(
        TASK, "1", "heartml.withdrawn", json.dumps({"simulated-1": {"recordings": 4, "in": ["training"]}})),
        {"withdrawn": BROKEN}),
    "notes that are none any more": (lambda: kept("lineage.json").write_bytes(b"\x80\x04."), OF_THE_NOTES),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_every_tampering_is_found_by_its_link_and_the_others_hold(project: Workspace, tampering: str) -> None:
    tamper, expected = TAMPERINGS[tampering]
    tamper()
    found = audit.run(TASK)
    assert {link.name: link.state for link in found.links if link.state != HOLDS} == expected, [
        (link.name, link.found) for link in found.links if (link.state == HOLDS) == (link.name in expected)]
    assert found.holds == (not expected)
    assert all(link.found and link.expected for link in found.links)


@pytest.mark.parametrize("tampering", ["a swapped model", "a signature of another", "no signature",
                                       "changed code beside the model", "a planted pickle"])
def test_a_model_that_was_tampered_with_is_not_loaded(project: Workspace, tampering: str, tmp_path: Path) -> None:
    client, champion = tracking.connect(), versions.champion(tracking.connect(), TASK)
    assert champion
    assert model_files.download(client, champion, tmp_path / "before").is_dir()
    TAMPERINGS[tampering][0]()
    with pytest.raises(signing.SignatureRefused, match=rf"^{TASK} version 1: "):
        model_files.download(client, champion, tmp_path / "after")
    with pytest.raises(signing.SignatureRefused, match=rf"^{TASK} version 1: "):
        model_lookup.locate(None, TASK, (TASK,))
    done = CliRunner().invoke(cli, ["verify", TASK, "--to", "served"])
    assert isinstance(done.exception, signing.SignatureRefused)
    assert not Path("served").exists()


def test_a_copy_that_was_made_to_predict_is_verified_every_time(project: Workspace) -> None:
    first = model_lookup.locate(None, TASK, (TASK,))
    assert model_lookup.locate(None, TASK, (TASK,)) == first
    flip(first.folder / "model.safetensors")
    with pytest.raises(signing.SignatureRefused, match=r"model\.safetensors"):
        model_lookup.locate(None, TASK, (TASK,))


def test_a_server_trusts_no_key_that_comes_with_the_model(
    project: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {name: str(stored(f"artifacts/{name}").resolve()) for name in ("model", "params.yaml")}
    context = SimpleNamespace(artifacts={"model": places["model"], "params": places["params.yaml"]})
    serving.Classifier().load_context(context)
    monkeypatch.chdir(tmp_path)                     # a server elsewhere, which has been given no key
    with pytest.raises(signing.SignatureRefused, match="HEARTML_TRUSTED_KEYS"):
        serving.Classifier().load_context(context)
    monkeypatch.setenv("HEARTML_TRUSTED_KEYS", str(project / paths.OWN_KEY.with_suffix(".pub")))
    serving.Classifier().load_context(context)
    flip(Path(places["model"]) / "model.safetensors")
    with pytest.raises(signing.SignatureRefused, match=r"model\.safetensors"):
        serving.Classifier().load_context(context)


def test_another_models_files_do_not_pass_for_this_one(project: Workspace, tmp_path: Path) -> None:
    client, champion = tracking.connect(), versions.champion(tracking.connect(), TASK)
    assert champion
    sql("update model_versions set run_id = 'another' where name = ?", TASK)
    moved = versions.get(client, TASK)
    with pytest.raises(signing.SignatureRefused, match="signed as run_id"):
        model_files.download(client, moved, tmp_path)


def test_a_version_from_before_signatures_is_signed_by_hand(project: Workspace) -> None:
    before = versions.get(tracking.connect(), TASK)
    stored(signing.SIGNATURE).unlink()
    stored(signing.STATEMENT).unlink()
    kept("gate.signature.json").unlink()
    found = audit.run(TASK)
    assert {link.name for link in found.links if link.state == MISSING} == {"signature", "record", "gate", "alias"}
    assert CliRunner().invoke(cli, ["sign", TASK]).exit_code == 2, "nobody to ask"
    done = CliRunner().invoke(cli, ["sign", TASK, "--yes"])
    assert done.exit_code == 0, done.output
    assert audit.run(TASK).holds
    assert versions.get(tracking.connect(), TASK) == before


def test_the_command_says_it_in_text_json_html_and_exit_status(project: Workspace) -> None:
    done = CliRunner().invoke(cli, ["audit", TASK, "--html", "audit.html"])
    assert done.exit_code == 0, done.output
    assert f"all {len(audit.CHECKS)} links hold" in done.output
    flip(recording())
    done = CliRunner().invoke(cli, ["audit", TASK, "--json", "--html", "broken.html"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert not told["holds"]
    assert told["verdict"].endswith(f" of {len(told['links'])} links")
    assert [link["name"] for link in told["links"] if link["state"] != HOLDS] == ["data_here"]
    assert "Does not hold" in Path("broken.html").read_text()
    assert "Does not hold" not in Path("audit.html").read_text()
    with pytest.raises(versions.RegistryError, match="heartml models"):
        audit.run(f"{TASK}/7")


def test_made_again_gives_the_same_bytes_and_leaves_the_project_alone(project: Workspace) -> None:
    before, lock = small_project.output_checksums(project), Path("dvc.lock").read_bytes()
    cache = sorted(Path(".dvc/cache").rglob("*"))
    left, busy = (Path(tempfile.mkdtemp(prefix=f"heartml-reproduce-{pid}-")) for pid in (2**22 - 1, os.getpid()))
    found, again = audit.run_all(TASK, reproduce=True)
    assert again
    assert busy.exists(), "that of a living process"
    assert not left.exists(), "that of a killed one"
    busy.rmdir()
    assert {one.state for one in again.outputs} == {compare_outputs.SAME}, again.words
    assert found.holds, found.verdict
    assert found.links[-1].name == "reproduced"
    assert len(again.outputs) == sum(len(entry["outs"]) for entry in yaml.safe_load(lock)["stages"].values())
    assert (small_project.output_checksums(project), Path("dvc.lock").read_bytes()) == (before, lock)
    assert sorted(Path(".dvc/cache").rglob("*")) == cache
    assert not subprocess.run([*GIT, "status", "--porcelain", "--untracked-files=no"], capture_output=True,
                              check=True).stdout
