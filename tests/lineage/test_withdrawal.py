"""Withdrawn consent: gone from the next version and all later ones, marked where it was used, nothing rewritten."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import click.testing
import pandas as pd
import pytest
from support.small_project import TASK
from support.workspaces import Workspace

from heartml import cli
from heartml.audio.entry_checks import FileFacts
from heartml.core import paths
from heartml.core.schema import TEST, WITHDRAWN
from heartml.data import ingest
from heartml.data.ingest import version, withdrawn
from heartml.inference.model_lookup import locate
from heartml.lineage import chain, export_prov, page, withdrawal
from heartml.lineage.capture import data_hash
from heartml.lineage.trace import HELD_OUT, TRAINING
from heartml.registry import consent, tracking, versions
from heartml.stages import split

REASON = "a letter"


@pytest.fixture
def project(retrained: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the retrained project as the working folder."""
    copy = retrained.copy(tmp_path / "project")
    monkeypatch.chdir(copy.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copy


def patient_in(part: str) -> str:
    """Somebody under one id alone in this part of the folds."""
    recordings, folds = pd.read_parquet(paths.RECORDINGS), pd.read_parquet(paths.folds(TASK))
    alone = recordings.groupby("group_id")["patient_id"].transform("nunique") == 1
    there = folds.loc[folds["part"] == part, "recording_id"]
    return str(recordings.loc[alone & recordings["recording_id"].isin(there), "patient_id"].iloc[0])


def withdraw(patient: str, reason: str = REASON) -> withdrawal.Withdrawal:
    client = tracking.connect()
    return withdrawal.run(client, withdrawal.preview(client, patient), reason)


def marked() -> dict:
    return consent.withdrawn_patients(versions.get(tracking.connect(), TASK))


def test_a_patient_who_withdrew_is_in_no_later_version_split_or_ingest_and_the_past_stays(
    project: Workspace, small_project: Workspace
) -> None:
    patient, before, former = patient_in("0"), version.read(), data_hash()
    assert locate(None, TASK, ()).description.endswith("version 1, the champion")
    told = export_prov.as_json(chain.read(tracking.connect(), versions.get(tracking.connect(), f"{TASK}/1")))
    own = before.recordings[before.recordings["patient_id"] == patient]

    done = withdraw(patient)
    after = version.read()
    assert set(done.recordings) == set(own["recording_id"]) and len(own)
    assert (done.before, done.after) == (former, data_hash()) and former != data_hash()
    others = before.recordings.drop(index=own.index).reset_index(drop=True)
    assert after.recordings.equals(others), "nobody else's rows have changed"
    assert not after.annotations["recording_id"].isin(own["recording_id"]).any()
    assert not [key for key in own["recording_id"] if paths.audio(key).exists()]
    rows = after.quarantine[after.quarantine["patient_id"] == patient]
    assert set(rows["source_file"]) == set(own["source_file"]) and set(rows["reason"]) == {"withdrawn"}
    assert set(after.withdrawn["recording_id"]) == set(own["recording_id"])

    split.run(TASK)
    assert patient not in set(pd.read_parquet(paths.folds(TASK))["unit_id"])

    pointer = version.POINTER.read_bytes()
    again = ingest.run("simulated", small_project.root.parent / "sim")
    assert version.POINTER.read_bytes() == pointer and not again.changed, "the same folder brings nobody back"
    assert again.quarantined == {"withdrawn": len(own)}
    ingest.run("simulated", small_project.root.parent / "sim", replace=True)
    assert version.POINTER.read_bytes() == pointer

    described = locate(None, TASK, ()).description
    assert "version 1, the champion (consent for some of its data was withdrawn since" in described
    [use] = done.affected
    assert (use.version, use.roles) == ("1", (TRAINING,))
    assert marked() == {patient: {"recordings": len(own), "in": [TRAINING]}}
    text = "\n".join(withdrawal.lines(done))
    assert "dvc gc --workspace --cloud" in text and f"{TASK} version 1, champion" in text

    check_out_again(project, former)
    assert set(version.read().recordings["recording_id"]) >= set(own["recording_id"])
    now = chain.read(tracking.connect(), versions.get(tracking.connect(), f"{TASK}/1"))
    assert now.missing == () and without_mark(export_prov.as_json(now)) == told
    assert f"{patient} ({len(own)} recordings, training)" in page.render(now)


def check_out_again(project: Workspace, md5: str) -> None:
    """What git knows of data.dvc, and DVC's cache of the data."""
    import subprocess

    from dvc.repo import Repo

    subprocess.run(["git", "checkout", "-q", "--", "data.dvc"], cwd=project.root, check=True)
    assert data_hash() == md5
    with Repo(".") as repo:
        repo.checkout(["data.dvc"], force=True)


def without_mark(text: str) -> str:
    told = json.loads(text)
    model = told["entity"][f"heartml:model/{TASK}/1"]
    del model["heartml:withdrawn"]
    return json.dumps(told, indent=2)


def test_done_twice_or_interrupted_it_comes_to_the_same(project: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = patient_in(TEST)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    for place, name in ((version, "_repo"), (versions, "set_tag")):   # in place and not recorded; recorded, not marked
        with monkeypatch.context() as patch:
            patch.setattr(place, name, die if place is versions else killed_while_adding(version._repo))
            with pytest.raises(KeyboardInterrupt):
                withdraw(patient)
    assert marked() == {}
    withdraw(patient)
    pointer, tables = version.POINTER.read_bytes(), version.read()
    again = withdraw(patient, "another reason")
    assert version.POINTER.read_bytes() == pointer and version.read().withdrawn.equals(tables.withdrawn)
    assert again.recordings == () and again.reason == REASON and again.before == again.after
    assert list(marked()) == [patient] and marked()[patient]["in"] == [HELD_OUT]
    assert not version.PUBLISHING.exists() and not version.BUILD.exists()
    second = patient_in("1")
    withdraw(second)
    assert set(marked()) == {patient, second}, "one mark does not take the place of another"


def test_who_waited_marks_what_was_registered_meanwhile_and_two_at_once_both_stand(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, (first, second) = tracking.connect(), (patient_in("0"), patient_in("1"))
    before = replace(withdrawal.preview(client, first), uses=())      # as it was while a retraining had not registered
    found = withdrawal.preview(client, second)
    beside: list[threading.Thread] = []
    get = versions.get

    def get_and_let_another_come(*given: object) -> versions.Version:
        known = get(*given)
        if not beside:
            beside.append(threading.Thread(target=withdrawal._mark, args=(client, found.uses[0], second)))
            beside[0].start()
            beside[0].join(2)
        return known

    with monkeypatch.context() as patch:
        patch.setattr(versions, "get", get_and_let_another_come)
        withdrawal.run(client, before, REASON)
        beside[0].join()
    assert set(marked()) == {first, second}


def killed_while_adding(real):
    """DVC's repository, whose `add` never returns."""
    import contextlib

    @contextlib.contextmanager
    def opened():
        with real() as repo:
            def add(*_: object, **__: object) -> None:
                raise KeyboardInterrupt
            repo.add = add
            yield repo
    return opened


def test_a_version_whose_folds_are_lost_is_not_passed_over_in_silence(project: Workspace) -> None:
    patient = patient_in("0")
    [place] = project.root.glob(".heartml/mlartifacts/*/artifacts/folds.parquet")
    place.unlink()
    done = withdraw(patient)
    assert done.affected == () and done.recordings
    assert "perhaps affected too: folds.parquet: not among the files of run" in "\n".join(withdrawal.lines(done))


def test_another_file_name_or_patient_id_does_not_bring_samples_back() -> None:
    keys = {"new.wav": "aa", "b.wav": "bb", "c.wav": "cc"}
    facts = {name: FileFacts(key, 4000, 8000, 0.5, "") for name, key in keys.items()}
    files = pd.DataFrame({"source_file": list(facts), "patient_id": ["clinic-9", "clinic-1", pd.NA]})
    rows = [("old.wav", "clinic", "clinic-1", "aa", REASON), ("x.wav", "clinic", "clinic-1", pd.NA, REASON)]
    gone = pd.DataFrame(rows, columns=list(WITHDRAWN), dtype="string")
    faults = withdrawn.faults(files, facts, gone)
    assert set(faults) == {"new.wav", "b.wav"}
    assert set(faults.values()) == {("withdrawn", f"consent withdrawn: {REASON}")}
    assert withdrawn.faults(files, facts, gone.head(0)) == {}


def test_a_dry_run_says_what_would_go_and_changes_nothing(project: Workspace) -> None:
    patient, before = patient_in(TEST), data_hash()
    kept = sum(pd.read_parquet(paths.RECORDINGS)["patient_id"] == patient)
    run = click.testing.CliRunner().invoke
    told = run(cli.cli, ["withdraw", patient, "--dry-run"])
    assert told.exit_code == 0, told.output
    assert f"{patient}: {kept} recordings would be taken out" in told.output and "version 1, champion" in told.output
    assert len(json.loads(run(cli.cli, ["withdraw", patient, "--dry-run", "--json"]).stdout)["recordings"]) == kept
    assert (data_hash(), marked()) == (before, {})
    assert patient in set(pd.read_parquet(paths.RECORDINGS)["patient_id"])
    assert run(cli.cli, ["withdraw", patient, "--yes"]).exit_code == 2, "no reason"


def test_only_a_patient_withdraws_and_a_terminal_is_asked(project: Workspace) -> None:
    run, pointer = click.testing.CliRunner().invoke, version.POINTER.read_bytes()
    row = pd.read_parquet(paths.RECORDINGS).iloc[0]
    with pytest.raises(withdrawal.NotAPatient, match=f"is a recording; .*`heartml withdraw {row['patient_id']}`"):
        run(cli.cli, ["withdraw", row["recording_id"], "--reason", "x", "--yes"], catch_exceptions=False)
    assert run(cli.cli, ["withdraw", row["patient_id"], "--reason", "x"]).exit_code == 2
    assert version.POINTER.read_bytes() == pointer and marked() == {}
    done = run(cli.cli, ["withdraw", row["patient_id"], "--reason", "x", "--yes", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["patient"] == row["patient_id"] in marked()
