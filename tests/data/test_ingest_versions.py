"""Ingest again, more or less: what was there stays, a version is whole, and the result does not show the way."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from support import publisher_files
from support.ingested_data import assert_data_is_whole, data_checksums, read_recordings
from support.publisher_files import Child
from support.workspaces import Workspace

from heartml.audio import entry_checks
from heartml.core import paths
from heartml.core.system import files
from heartml.core.system.errors import HeartMLError
from heartml.data import ingest
from heartml.data.ingest import version

pytestmark = pytest.mark.timeout(600)


# Again, more, less


def test_ingesting_again_changes_nothing_and_decodes_nothing(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    before, inodes = data_checksums(), {p: p.stat().st_ino for p in Path("data").rglob("*")}
    monkeypatch.setattr(entry_checks, "examine", None)
    outcome = ingest.run("circor", folder)
    assert (outcome.changed, outcome.new) == (False, 0)
    assert data_checksums() == before
    assert {p: p.stat().st_ino for p in Path("data").rglob("*")} == inodes


def test_the_caches_do_not_show_in_the_result(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.pascal(tmp_path / "publisher")
    ingest.run("pascal", folder)
    before = data_checksums()
    shutil.rmtree(paths.cache())
    assert not ingest.run("pascal", folder).changed
    assert data_checksums() == before


def test_adding_recordings_decodes_only_those_and_gives_what_all_at_once_gives(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, every = publisher_files.children()[:4], publisher_files.children()
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher", some))
    audio_before = {p: p.stat().st_ino for p in Path("data/audio").rglob("*.flac")}
    examined = []

    def watched(job: entry_checks.DecodingJob) -> entry_checks.FileFacts:
        examined.append(job.path.name)
        return examine(job)

    examine = entry_checks.examine
    monkeypatch.setattr(entry_checks, "examine", watched)
    outcome = ingest.run("circor", publisher_files.circor(tmp_path / "publisher", every))
    assert (outcome.recordings, outcome.new) == (12, 4)
    assert set(examined) == {"50_AV.wav", "50_MV_1.wav", "50_MV_2.wav", "61_MV.wav"}
    assert audio_before.items() <= {p: p.stat().st_ino for p in Path("data/audio").rglob("*.flac")}.items()
    added = data_checksums()
    for name in ("data", "data.dvc", ".heartml"):
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    ingest.run("circor", tmp_path / "publisher")
    assert data_checksums() == added


def test_a_second_folder_keeps_what_the_first_brought(here: Workspace, tmp_path: Path) -> None:
    first, second = publisher_files.children()[:3], publisher_files.children()[3:]
    ingest.run("circor", publisher_files.circor(tmp_path / "first", first))
    before = read_recordings()
    outcome = ingest.run("circor", publisher_files.circor(tmp_path / "second", second))
    after = read_recordings()
    assert outcome.recordings == 12
    old = after[after["source_file"].isin(before["source_file"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before)
    twins = after[after["patient_id"].isin(["circor-36", "circor-49"])]
    assert set(twins["group_id"]) == {"circor-36"}, "a twin who comes later joins the group"
    assert len(pd.read_parquet(paths.ANNOTATIONS)) == 60
    assert_data_is_whole()


def test_replace_drops_what_the_folder_does_not_hold(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "first"))
    ingest.run("circor", publisher_files.circor(tmp_path / "second", publisher_files.children()[:1]), replace=True)
    assert read_recordings()["patient_id"].unique().tolist() == ["circor-24"]
    assert_data_is_whole()


def test_a_file_that_changed_takes_the_place_of_the_former_one(here: Workspace, tmp_path: Path) -> None:
    child = Child(24, recordings={"AV": 1, "PV": 2})
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [child]))
    child.recordings["PV"] = 77
    child.outcome = "Abnormal"
    outcome = ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [child]))
    table = read_recordings()
    assert (outcome.recordings, outcome.new) == (2, 1)
    assert set(table["label_outcome"]) == {"Abnormal"}
    assert_data_is_whole()


def test_one_data_set_does_not_touch_another(here: Workspace, tmp_path: Path) -> None:
    def of(name: str, table: Path) -> pd.DataFrame:
        rows = pd.read_parquet(table)
        return rows[rows["dataset"] == name].dropna(axis="columns", how="all").reset_index(drop=True)

    pascal, circor = publisher_files.pascal(tmp_path / "pascal"), publisher_files.circor(tmp_path / "circor")
    (pascal / "set_a" / "artifact__201012172012.wav").write_bytes(b"no sound")
    (circor / "training_data" / "61_MV.wav").write_bytes(b"no sound")
    ingest.run("pascal", pascal)
    before = [of("pascal", paths.RECORDINGS), of("pascal", paths.QUARANTINE)]
    ingest.run("circor", circor)
    for old, new in zip(before, [of("pascal", paths.RECORDINGS), of("pascal", paths.QUARANTINE)], strict=True):
        pd.testing.assert_frame_equal(old, new)
    both = data_checksums()
    assert not ingest.run("pascal", pascal).changed
    assert not ingest.run("circor", circor).changed
    assert data_checksums() == both
    assert len(pd.read_parquet(paths.ANNOTATIONS)) == 2 + 55
    assert_data_is_whole()


def test_the_order_of_two_data_sets_does_not_show(here: Workspace, tmp_path: Path) -> None:
    folders = {"pascal": publisher_files.pascal(tmp_path / "pascal"),
               "circor": publisher_files.circor(tmp_path / "circor")}
    seen = []
    for order in (("pascal", "circor"), ("circor", "pascal")):
        for name in order:
            ingest.run(name, folders[name])
        seen.append(data_checksums())
        for name in ("data", "data.dvc", ".heartml"):
            shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    assert seen[0] == seen[1]


# Whatever happens on the way


def test_data_changed_by_hand_is_not_built_upon(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    files.write_parquet(paths.RECORDINGS, read_recordings().head(3))
    with pytest.raises(HeartMLError, match=r"dvc checkout --force data\.dvc"):
        ingest.run("circor", folder)
    assert len(read_recordings()) == 3


def test_on_a_clone_the_version_is_fetched_first(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    here.commit()
    subprocess.run(["dvc", "push", "-q", "data.dvc"], check=True, env=here.environment)
    for name in ("data", ".heartml", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(name)
    ingest.run("pascal", publisher_files.pascal(tmp_path / "pascal"))
    assert read_recordings()["dataset"].value_counts().to_dict() == {"circor": 12, "pascal": 13}


def test_a_fetch_that_was_killed_is_finished(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "circor")
    ingest.run("circor", folder)
    before = data_checksums()
    next(Path("data/audio").rglob("*.flac")).unlink()
    paths.RECORDINGS.unlink()
    version.RESTORING.touch()      # as it is while DVC puts files back
    assert not ingest.run("circor", folder).changed
    assert data_checksums() == before
    assert not version.RESTORING.exists()


def test_a_version_that_is_nowhere_is_an_error_and_not_an_empty_start(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    for name in ("data", ".dvc/cache"):
        shutil.rmtree(name)
    with pytest.raises(HeartMLError, match="DVC"):
        ingest.run("pascal", publisher_files.pascal(tmp_path / "pascal"))
    assert not paths.DATA.exists()


@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_a_cache_that_is_linked_is_built_upon(here: Workspace, tmp_path: Path, kind: str) -> None:
    subprocess.run(["dvc", "config", "cache.type", kind], check=True, env=here.environment)
    folder = publisher_files.circor(tmp_path / "publisher", publisher_files.children()[:3])
    ingest.run("circor", folder)
    first = version.POINTER.read_text()
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    assert_data_is_whole()
    second = data_checksums()
    for pointer in (first, version.POINTER.read_text()):
        version.POINTER.write_text(pointer)
        subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=here.environment)
        assert_data_is_whole()
    assert data_checksums() == second


def test_data_in_an_older_layout_are_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths.audio("0123").parent.mkdir(parents=True)
    version.restore()
    (paths.DATA / "audio/01").mkdir()
    with pytest.raises(version.VersionError, match=r"older layout, audio lies in data/audio/0/ .* ingest anew"):
        version.restore()
