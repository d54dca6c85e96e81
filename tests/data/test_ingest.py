"""Ingest: every file becomes a recording or a row of the quarantine; nothing is lost, whatever happens on the way."""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from support import publisher_files, workspaces
from support.publisher_files import RATE_HZ, Child, sound, wav
from support.publisher_layouts import BUILDERS
from support.workspaces import Workspace

from heartml import cli
from heartml.audio import entry_checks, quality, sound_files
from heartml.core import command, config, paths, schema
from heartml.core.system import files, hashing
from heartml.core.system.errors import HeartMLError
from heartml.data import ingest
from heartml.data.datasets import DATASETS, bind
from heartml.data.ingest import available_tasks, version

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def here(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project, and this process inside it."""
    monkeypatch.chdir(workspace.root)
    return workspace


def recordings() -> pd.DataFrame:
    return pd.read_parquet(paths.RECORDINGS)


def quarantine() -> dict[str, str]:
    """Source file -> reason."""
    table = pd.read_parquet(paths.QUARANTINE)
    return dict(zip(table["source_file"], table["reason"], strict=True))


def state(root: Path = Path()) -> dict[str, str]:
    """Name -> checksum of everything in `data/`, and of what names its version."""
    found = {p.relative_to(root).as_posix(): hashing.sha256_file(p) for p in (root / "data").rglob("*") if p.is_file()}
    return {**found, "data.dvc": hashing.sha256_file(root / "data.dvc")}


def assert_whole(root: Path = Path()) -> None:
    """`data/` is one version: its tables agree, its audio is there and is what the tables say."""
    table = pd.read_parquet(root / "data" / "recordings.parquet")
    on_disk = {p.stem for p in (root / "data" / "audio").rglob("*.flac")}
    assert on_disk == set(table["recording_id"])
    annotations = pd.read_parquet(root / "data" / "annotations.parquet")
    assert set(annotations["recording_id"]) <= on_disk
    for recording_id in sorted(on_disk)[:5]:
        assert sound_files.read(root / paths.audio(recording_id)).recording_id == recording_id


# What comes out


@pytest.mark.parametrize("name", DATASETS)
def test_the_tables_follow_the_schema_and_carry_every_file(here: Workspace, tmp_path: Path, name: str) -> None:
    folder = BUILDERS[name](tmp_path / "publisher")
    outcome = ingest.run(name, folder)
    source, _ = bind(name, folder)
    table, layout = recordings(), source.read(folder)
    pd.testing.assert_frame_equal(table, schema.conform(table, schema.RECORDINGS, "recordings"))
    assert set(table["source_file"]) | set(quarantine()) == set(layout.recordings["source_file"])
    assert table["recording_id"].is_unique
    assert set(table["dataset"]) == {name}
    assert set(table["licence"]) == {source.LICENCE}
    lengths_s = [soundfile.info(folder / file).duration for file in table["source_file"]]
    assert table["seconds"].tolist() == pytest.approx(lengths_s)
    for row in table.itertuples():
        assert row.source_sha256 == hashing.sha256_file(folder / row.source_file)
    assert_whole()
    assert outcome.recordings == outcome.new == len(table)
    assert not outcome.quarantined
    assert outcome.changed


def test_a_session_is_kept_where_the_publisher_tells_and_costs_no_column_elsewhere(
    here: Workspace, tmp_path: Path
) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    assert schema.SESSION not in recordings(), "data sets that know no session keep the bytes they had"
    ingest.run("pascal", publisher_files.pascal(tmp_path / "pascal"))
    sessions = recordings().set_index("source_file").groupby("dataset")[schema.SESSION]
    assert sessions.count().to_dict() == {"circor": 0, "pascal": (recordings()["dataset"] == "pascal").sum()}
    before = state()
    assert not ingest.run("circor", tmp_path / "circor").changed
    assert not ingest.run("pascal", tmp_path / "pascal").changed
    assert state() == before


def test_a_log_is_told_how_much_is_decoded_and_nothing_where_all_is_known(
    here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = publisher_files.pascal(tmp_path / "pascal")
    ingest.run("pascal", folder)
    files_there = len(bind("pascal", folder)[0].read(folder).recordings)
    assert f"{folder}: decoding {files_there} of {files_there} files\n" in capsys.readouterr().err
    ingest.run("pascal", folder)
    assert "decoding" not in capsys.readouterr().err


def test_the_recording_is_named_by_its_samples_and_kept_without_loss(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    table = recordings().set_index("source_file")
    pcm = sound(1)
    name = table.loc["training_data/24_AV.wav", "recording_id"]
    assert name == hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest()
    kept, rate_hz = soundfile.read(paths.audio(name), dtype="int16")
    assert rate_hz == RATE_HZ
    np.testing.assert_array_equal(kept, pcm)


def test_twins_are_one_group_and_others_are_not(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    groups = recordings().groupby("patient_id")["group_id"].unique().map(list).to_dict()
    assert groups["circor-36"] == groups["circor-49"] == ["circor-36"]
    assert all(groups[name] == [name] for name in ("circor-24", "circor-29", "circor-50", "circor-61"))


def test_heart_states_belong_to_recordings(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    states = pd.read_parquet(paths.ANNOTATIONS)
    assert (states.groupby("recording_id")["state"].apply(list).map(tuple)
            == ("unannotated", "S1", "systole", "S2", "diastole")).all()
    assert set(states["recording_id"]) == set(recordings()["recording_id"])


def test_the_version_is_in_dvcs_cache_and_comes_back_from_there(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    before = state()
    shutil.rmtree("data")
    subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=here.environment)
    assert state() == before


# Again, more, less


def test_ingesting_again_changes_nothing_and_decodes_nothing(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    before, inodes = state(), {p: p.stat().st_ino for p in Path("data").rglob("*")}
    monkeypatch.setattr(entry_checks, "examine", None)
    outcome = ingest.run("circor", folder)
    assert (outcome.changed, outcome.new) == (False, 0)
    assert state() == before
    assert {p: p.stat().st_ino for p in Path("data").rglob("*")} == inodes


def test_the_caches_do_not_show_in_the_result(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.pascal(tmp_path / "publisher")
    ingest.run("pascal", folder)
    before = state()
    shutil.rmtree(paths.cache())
    assert not ingest.run("pascal", folder).changed
    assert state() == before


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
    added = state()
    for name in ("data", "data.dvc", ".heartml"):
        shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    ingest.run("circor", tmp_path / "publisher")
    assert state() == added


def test_a_second_folder_keeps_what_the_first_brought(here: Workspace, tmp_path: Path) -> None:
    first, second = publisher_files.children()[:3], publisher_files.children()[3:]
    ingest.run("circor", publisher_files.circor(tmp_path / "first", first))
    before = recordings()
    outcome = ingest.run("circor", publisher_files.circor(tmp_path / "second", second))
    after = recordings()
    assert outcome.recordings == 12
    old = after[after["source_file"].isin(before["source_file"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before)
    twins = after[after["patient_id"].isin(["circor-36", "circor-49"])]
    assert set(twins["group_id"]) == {"circor-36"}, "a twin who comes later joins the group"
    assert len(pd.read_parquet(paths.ANNOTATIONS)) == 60
    assert_whole()


def test_replace_drops_what_the_folder_does_not_hold(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "first"))
    ingest.run("circor", publisher_files.circor(tmp_path / "second", publisher_files.children()[:1]), replace=True)
    assert recordings()["patient_id"].unique().tolist() == ["circor-24"]
    assert_whole()


def test_a_file_that_changed_takes_the_place_of_the_former_one(here: Workspace, tmp_path: Path) -> None:
    child = Child(24, recordings={"AV": 1, "PV": 2})
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [child]))
    child.recordings["PV"] = 77
    child.outcome = "Abnormal"
    outcome = ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [child]))
    table = recordings()
    assert (outcome.recordings, outcome.new) == (2, 1)
    assert set(table["label_outcome"]) == {"Abnormal"}
    assert_whole()


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
    both = state()
    assert not ingest.run("pascal", pascal).changed
    assert not ingest.run("circor", circor).changed
    assert state() == both
    assert len(pd.read_parquet(paths.ANNOTATIONS)) == 2 + 55
    assert_whole()


def test_the_order_of_two_data_sets_does_not_show(here: Workspace, tmp_path: Path) -> None:
    folders = {"pascal": publisher_files.pascal(tmp_path / "pascal"),
               "circor": publisher_files.circor(tmp_path / "circor")}
    seen = []
    for order in (("pascal", "circor"), ("circor", "pascal")):
        for name in order:
            ingest.run(name, folders[name])
        seen.append(state())
        for name in ("data", "data.dvc", ".heartml"):
            shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    assert seen[0] == seen[1]


# What must not come in


def encoded(samples: np.ndarray, kind: str, subtype: str) -> bytes:
    memory = io.BytesIO()
    soundfile.write(memory, samples, RATE_HZ, format=kind, subtype=subtype)
    return memory.getvalue()


def floats(seed: int = 900) -> np.ndarray:
    return sound(seed).astype(np.float64) / 32768


def with_nan() -> np.ndarray:
    samples = floats().copy()
    samples[100] = np.nan
    return samples


BAD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "truncated": ("truncated", lambda: wav(sound(900))[:-1000]),
    "header alone": ("truncated", lambda: wav(sound(900))[:44]),
    "promises four gigabytes": ("truncated", lambda: wav(sound(900))[:40] + struct.pack("<I", 0xFFFFFFF0) + bytes(99)),
    "no samples": ("empty", lambda: wav(sound(900)[:0])),
    "no bytes": ("empty", lambda: b""),
    "all zero": ("silent", lambda: wav(np.zeros(RATE_HZ, np.int16))),
    "constant": ("silent", lambda: wav(np.full(RATE_HZ, 9000, np.int16))),
    "one step of noise": ("silent", lambda: wav((np.arange(RATE_HZ) % 2).astype(np.int16))),
    "not a number": ("nan", lambda: encoded(with_nan(), "WAV", "FLOAT")),
    "two ears": ("stereo", lambda: encoded(np.stack([floats(900), floats(901)], axis=1), "WAV", "PCM_16")),
    "a third of a second": ("short", lambda: wav(sound(900, 0.3))),
    "text": ("not_audio", lambda: b"patient 9 did not come\n" * 50),
    "half a FLAC": ("unreadable|truncated", lambda: encoded(floats(), "FLAC", "PCM_16")[:3000]),
}
GOOD: dict[str, Callable[[], bytes]] = {
    "eight bits": lambda: encoded(floats(), "WAV", "PCM_U8"),
    "24 bits": lambda: encoded(floats(), "WAV", "PCM_24"),
    "32 bits": lambda: encoded(floats(), "WAV", "PCM_32"),
    "float": lambda: encoded(floats(), "WAV", "FLOAT"),
    "the same on both ears": lambda: encoded(np.stack([floats()] * 2, axis=1), "WAV", "PCM_16"),
    "a FLAC called .wav": lambda: encoded(floats(), "FLAC", "PCM_16"),
    "a LIST chunk before": lambda: wav(sound(900), before=publisher_files.list_chunk()),
    "a LIST chunk behind": lambda: wav(sound(900), behind=publisher_files.list_chunk()),
}
NEW = "set_a/normal__201201010000.wav"


def pascal_with(folder: Path, row: bool = True, label: str = "normal") -> Path:
    """PASCAL with a row for one more file, `NEW`; returns where it belongs."""
    publisher_files.pascal(folder)
    if row:
        with (folder / "set_a.csv").open("a") as file:
            file.write(f"a,{NEW},{label},\n")
    return folder / NEW


def only_refused(folder: Path, dataset: str = "pascal") -> str:
    """Ingest; everything but one file became a recording. The reason of the one."""
    outcome = ingest.run(dataset, folder)
    assert outcome.recordings == {"pascal": 13, "circor": 11}[dataset]
    assert_whole()
    (reason,) = outcome.quarantined
    assert outcome.quarantined[reason] == 1
    row = pd.read_parquet(paths.QUARANTINE).iloc[0]
    assert row["detail"]
    assert row["source_file"] not in set(recordings()["source_file"])
    return reason


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_with_its_reason_and_takes_no_other_with_it(
    here: Workspace, tmp_path: Path, kind: str
) -> None:
    reason, make = BAD[kind]
    pascal_with(tmp_path / "publisher").write_bytes(make())
    assert only_refused(tmp_path / "publisher") in reason.split("|")


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_of_another_form_with_one_sound_in_it_comes_in(here: Workspace, tmp_path: Path, kind: str) -> None:
    pascal_with(tmp_path / "publisher").write_bytes(GOOD[kind]())
    outcome = ingest.run("pascal", tmp_path / "publisher")
    assert outcome.recordings == 14, quarantine()
    name = recordings().set_index("source_file").loc[NEW, "recording_id"]
    kept = sound_files.read(paths.audio(name)).floats
    assert np.abs(kept - floats()).max() < 0.01
    assert_whole()


def test_a_recording_with_a_wrong_extension_comes_in(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher") / "training_data"
    (folder / "61_MV.wav").rename(folder / "61_MV.mp3")
    ingest.run("circor", tmp_path / "publisher")
    assert "training_data/61_MV.mp3" in set(recordings()["source_file"])
    assert quarantine() == {"training_data/61_MV.wav": "missing_file"}


def test_the_same_file_twice_comes_in_once(here: Workspace, tmp_path: Path) -> None:
    new = pascal_with(tmp_path / "publisher")
    shutil.copyfile(tmp_path / "publisher" / "set_a" / "normal__201101051538.wav", new)
    assert only_refused(tmp_path / "publisher") == "duplicate"
    assert NEW in quarantine()


def test_of_two_copies_the_labelled_one_stays(here: Workspace, tmp_path: Path) -> None:
    pascal_with(tmp_path / "publisher").write_bytes(wav(sound(104)))
    only_refused(tmp_path / "publisher")
    assert quarantine() == {"set_a/Aunlabelledtest__2011040239.wav": "duplicate"}


def test_the_same_samples_under_two_labels_are_both_refused(here: Workspace, tmp_path: Path) -> None:
    pascal_with(tmp_path / "publisher").write_bytes(wav(sound(102)))      # as murmur__201101051104
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine() == {NEW: "contradiction", "set_a/murmur__201101051104.wav": "contradiction"}
    assert_whole()


def test_nearly_the_same_sound_under_two_labels_is_refused_on_both_sides(here: Workspace, tmp_path: Path) -> None:
    fainter = (sound(102)[400:] * 0.5 + np.random.default_rng(0).normal(0, 30, len(sound(102)) - 400)).astype(np.int16)
    pascal_with(tmp_path / "publisher").write_bytes(wav(fainter))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine() == {NEW: "contradiction", "set_a/murmur__201101051104.wav": "contradiction"}
    assert "murmur__201101051104.wav, which is labelled murmur" in pd.read_parquet(paths.QUARANTINE)["detail"][1]


def test_a_contradiction_that_comes_later_takes_the_earlier_recording_out(here: Workspace, tmp_path: Path) -> None:
    ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher"))
    pascal_with(tmp_path / "publisher").write_bytes(wav(sound(102)))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine() == {NEW: "contradiction", "set_a/murmur__201101051104.wav": "contradiction"}
    before = state()
    assert not ingest.run("pascal", tmp_path / "publisher").changed
    assert state() == before


def test_the_same_sound_of_two_patients_makes_them_one_group(here: Workspace, tmp_path: Path) -> None:
    child = Child(70, recordings={"AV": 1})       # the samples of 24_AV, the same labels
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [*publisher_files.children(), child]))
    assert quarantine() == {"training_data/70_AV.wav": "duplicate"}
    child.recordings = {"PV": 13, "AV": 1}
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [*publisher_files.children(), child]))
    table = recordings().set_index("source_file")
    assert table.loc["training_data/70_PV.wav", "group_id"] == "circor-24"


def test_the_same_samples_in_two_data_sets_stay_where_they_came_first(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    pascal_with(tmp_path / "publisher").write_bytes(wav(sound(1)))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine() == {NEW: "duplicate"}
    assert recordings()["recording_id"].is_unique


def test_a_label_that_contradicts_the_files_name_is_refused(here: Workspace, tmp_path: Path) -> None:
    path = publisher_files.pascal(tmp_path / "publisher") / "set_b.csv"
    path.write_text(path.read_text().replace("_C2.wav,extrastole", "_C2.wav,murmur"))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine() == {"set_b/extrastole__127_1306764300147_C2.wav": "contradiction"}


def test_a_typing_error_in_a_label_is_refused_by_name(here: Workspace, tmp_path: Path) -> None:
    children = publisher_files.children()
    children[5].murmur = "Presnt"
    assert only_refused(publisher_files.circor(tmp_path / "publisher", children), "circor") == "unknown_label"
    assert "'Presnt', not Present, Unknown, Absent" in pd.read_parquet(paths.QUARANTINE)["detail"][0]


def test_a_missing_row_is_refused(here: Workspace, tmp_path: Path) -> None:
    pascal_with(tmp_path / "publisher", row=False).write_bytes(wav(sound(900)))
    assert only_refused(tmp_path / "publisher") == "missing_row"


def test_a_file_that_is_not_the_publishers_is_refused(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    (folder / "training_data" / "61_MV.wav").write_bytes(wav(sound(901)))
    assert only_refused(folder, "circor") == "checksum"
    folder = publisher_files.pascal(tmp_path / "pascal")
    (folder / "set_a" / "normal__201101051538.wav").write_bytes(wav(sound(902)))
    ingest.run("pascal", folder)
    assert quarantine()["set_a/normal__201101051538.wav"] == "checksum"


def test_fewer_samples_than_the_header_file_states_is_truncated(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    (folder / "training_data" / "61_MV.wav").write_bytes(wav(sound(12)[:-1]))
    publisher_files.seal(folder)
    assert only_refused(folder, "circor") == "truncated"


def test_a_link_that_leads_out_of_the_folder_is_not_followed(here: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(sound(900)))
    pascal_with(tmp_path / "publisher").symlink_to(tmp_path / "secret.wav")
    assert only_refused(tmp_path / "publisher") == "outside"


def test_a_pipe_or_a_folder_called_wav_does_not_stop_the_ingest(here: Workspace, tmp_path: Path) -> None:
    os.mkfifo(pascal_with(tmp_path / "publisher"))
    assert only_refused(tmp_path / "publisher") == "not_audio"
    (tmp_path / "publisher" / NEW).unlink()
    (tmp_path / "publisher" / NEW).mkdir()
    assert only_refused(tmp_path / "publisher") == "not_audio"


def test_other_limits_in_params_apply_to_files_that_were_ingested_before(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.pascal(tmp_path / "publisher")
    ingest.run("pascal", folder)
    text = paths.PARAMS.read_text()
    paths.PARAMS.write_text(text.replace("min_seconds: 0.5", "min_seconds: 1.5"))
    assert ingest.run("pascal", folder).quarantined == {"short": 13}
    paths.PARAMS.write_text(text)
    assert ingest.run("pascal", folder).recordings == 13
    assert_whole()


# Whatever happens on the way


def test_data_changed_by_hand_is_not_built_upon(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    files.write_parquet(paths.RECORDINGS, recordings().head(3))
    with pytest.raises(HeartMLError, match=r"dvc checkout data\.dvc"):
        ingest.run("circor", folder)
    assert len(recordings()) == 3


def test_on_a_clone_the_version_is_fetched_first(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    here.commit()
    subprocess.run(["dvc", "push", "-q", "data.dvc"], check=True, env=here.environment)
    for name in ("data", ".heartml", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(name)
    ingest.run("pascal", publisher_files.pascal(tmp_path / "pascal"))
    assert recordings()["dataset"].value_counts().to_dict() == {"circor": 12, "pascal": 13}


def test_a_fetch_that_was_killed_is_finished(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "circor")
    ingest.run("circor", folder)
    before = state()
    next(Path("data/audio").rglob("*.flac")).unlink()
    paths.RECORDINGS.unlink()
    version.RESTORING.touch()      # as it is while DVC puts files back
    assert not ingest.run("circor", folder).changed
    assert state() == before
    assert not version.RESTORING.exists()


def test_a_version_that_is_nowhere_is_an_error_and_not_an_empty_start(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    for name in ("data", ".dvc/cache"):
        shutil.rmtree(name)
    with pytest.raises(HeartMLError, match="DVC"):
        ingest.run("pascal", publisher_files.pascal(tmp_path / "pascal"))
    assert not paths.DATA.exists()


def test_a_missing_folder_is_told_plainly(here: Workspace) -> None:
    with pytest.raises(HeartMLError, match="no such folder"):
        ingest.run("pascal", Path("nowhere"))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "decoding": lambda root: any((root / version.BUILD / "audio").rglob("*.flac")),
    "building": lambda root: (root / version.BUILD / "data").exists(),
    "before recording": lambda root: (root / version.PUBLISHING).exists(),
    "while recording": lambda root: (root / version.PUBLISHING).exists() and cached(root) > 25,
}


def cached(root: Path) -> int:
    return sum(1 for p in (root / ".dvc" / "cache").rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path, dict[str, str]]:
    """A project with 15 recordings, a folder that holds 45 (enough for worker processes), and what is to come out."""
    at = tmp_path_factory.mktemp("growing")
    many = [Child(100 + n, recordings={"AV": 3 * n, "PV": 3 * n + 1, "MV": 3 * n + 2}) for n in range(15)]
    project = workspaces.make(at / "project")
    project.run("ingest", "circor", publisher_files.circor(at / "publisher", many[:5]))
    undisturbed = project.copy(at / "undisturbed")
    undisturbed.run("ingest", "circor", publisher_files.circor(at / "publisher", many))
    shutil.rmtree(project / ".heartml" / "cache")      # so that all 45 are decoded
    return project, at / "publisher", state(undisturbed.root)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_one_version_is_whole_and_the_next_run_finishes(
    growing: tuple[Workspace, Path, dict[str, str]], tmp_path: Path, moment: str
) -> None:
    original, folder, expected = growing
    project = original.copy(tmp_path / "project")
    former, pointer = state(project.root), (project / "data.dvc").read_text()
    process = project.start("ingest", "circor", folder)
    while not MOMENTS[moment](project.root) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was killed in time"
    assert_whole(project.root)
    if moment in ("decoding", "building"):
        assert state(project.root) == former
    assert (project / "data.dvc").read_text() == pointer
    assert json.loads(project.run("ingest", "circor", folder, "--json").stdout)["changed"]
    assert state(project.root) == expected
    assert not (project / str(version.BUILD)).exists()
    assert not (project / str(version.PUBLISHING)).exists()


def test_a_data_dvc_cut_short_by_a_kill_is_written_anew(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    before = state()
    whole = version.POINTER.read_text()
    for length in (0, 5, 20, len(whole) - 3):
        version.POINTER.write_text(whole[:length])
        version.PUBLISHING.touch()      # as it is while DVC writes
        assert ingest.run("circor", folder).changed
        assert state() == before


@pytest.mark.parametrize("kind", ["copy, as DVC has it", "hardlink", "symlink"])
def test_a_kill_while_dvc_links_files_to_its_cache_leaves_no_hole(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from dvc.repo import Repo
    from dvc_data.hashfile import checkout

    linked = kind in ("hardlink", "symlink")
    if linked:
        subprocess.run(["dvc", "config", "cache.type", kind], check=True, env=here.environment)
    folder = publisher_files.circor(tmp_path / "publisher")
    ingest.run("circor", folder)
    version.PUBLISHING.touch()      # as after a kill before DVC recorded: what is built then shares files with data/
    removed = []

    def remove_and_die(*given: object, **options: object) -> None:
        removed.append(next(Path("data/audio").rglob("*.flac")))
        removed[-1].unlink()
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(checkout, "_remove", remove_and_die)
        dying.setattr(Repo, "checkout", remove_and_die)
        with pytest.raises(SystemExit) if linked else contextlib.nullcontext():
            ingest.run("circor", folder)
    assert len(removed) == linked
    assert not ingest.run("circor", folder).changed
    assert_whole()
    assert all(path.is_symlink() == (kind == "symlink") for path in Path("data").rglob("*.flac"))
    assert not version.RESTORING.exists() and not version.PUBLISHING.exists()


@pytest.mark.parametrize(("fault", "words", "fetched"), [
    (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk", False),
    (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk", True),
    (ValueError("odd"), "DVC could not copy a file: odd", False),
])
def test_a_file_that_dvc_could_not_copy_is_told_and_copied_by_the_next_run(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    fault: Exception, words: str, fetched: bool,
) -> None:
    """DVC itself logs that, and goes on as if the file were in its cache, or takes away what it has fetched."""
    from dvc_objects.fs.base import FileSystem

    folder = publisher_files.circor(tmp_path / "publisher")
    if fetched:
        ingest.run("circor", folder)
        shutil.rmtree("data")
        capfd.readouterr()
    put, refused = FileSystem.put_file, []

    def refuse_one(self: FileSystem, source: str, target: str, *given: object, **options: object) -> None:
        if not refused and (fetched or source.endswith(".flac")):
            refused.append(source)
            raise fault
        put(self, source, target, *given, **options)

    monkeypatch.setattr("sys.argv", ["heartml", "ingest", "circor", str(folder)])
    with monkeypatch.context() as full:
        full.setattr(FileSystem, "put_file", refuse_one)
        assert command.run(cli.cli) == 1
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith(str(folder))]
    assert refused and len(said) == 1
    assert said[0].startswith(f"heartml: {words}")
    ingest.run("circor", folder)
    assert_whole()
    status = subprocess.run(["dvc", "status", "data.dvc"], check=True, env=here.environment, capture_output=True)
    assert b"up to date" in status.stdout, "no file is missing from the cache"


def test_two_ingests_at_once_take_turns(workspace: Workspace, tmp_path: Path) -> None:
    folders = {"pascal": publisher_files.pascal(tmp_path / "pascal"),
               "circor": publisher_files.circor(tmp_path / "circor")}
    running = [workspace.start("ingest", name, folder) for name, folder in folders.items()]
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    table = pd.read_parquet(workspace / "data" / "recordings.parquet")
    assert table["dataset"].value_counts().to_dict() == {"circor": 12, "pascal": 13}
    assert_whole(workspace.root)


# The command


def test_the_command_says_what_it_did_and_makes_the_data_trainable(workspace: Workspace, tmp_path: Path) -> None:
    folder = pascal_with(tmp_path / "publisher").parents[1]
    (folder / NEW).write_bytes(b"no sound")
    before = (workspace / "params.yaml").read_text()
    printed = workspace.run("ingest", "pascal", folder).stdout
    assert "recordings                    │     13" in printed
    assert "not_audio                   │      1" in printed
    assert "tasks is now [pascal-sounds]" in printed
    after = (workspace / "params.yaml").read_text()
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1].startswith("tasks: [pascal-sounds] ")
    assert changed[0][0].split("#")[1] == changed[0][1].split("#")[1], "the comment stays"
    told = json.loads(workspace.run("ingest", "pascal", folder, "--json").stdout)
    assert told["recordings"] == 13
    assert told["quarantined"] == {"not_audio": 1}
    assert (told["changed"], told["new"], told["tasks"], told["tasks_changed"]) == (False, 0, ["pascal-sounds"], False)
    listed = json.loads(workspace.run("tasks", "--json").stdout)
    assert [task["name"] for task in listed] == ["pascal-sounds"]
    assert "pascal-sounds *" in workspace.run("tasks").stdout


def test_a_task_that_uses_the_data_set_already_stays(here: Workspace, tmp_path: Path) -> None:
    config.set_tasks(("circor-outcome", "pascal-sounds"))
    assert not ingest.run("circor", publisher_files.circor(tmp_path / "publisher")).tasks_changed
    assert config.load().tasks == ("circor-outcome", "pascal-sounds")


def test_keep_tasks_leaves_the_parameters_alone(here: Workspace, tmp_path: Path) -> None:
    before = paths.PARAMS.read_text()
    assert not ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher"), keep_tasks=True).tasks_changed
    assert paths.PARAMS.read_text() == before


@pytest.mark.parametrize("written", ["tasks: [a-b]   # why", "tasks:\n- a-b   # why\n- c-d", "tasks: [\n  a-b,\n]"])
def test_tasks_are_set_in_whatever_way_they_are_written(here: Workspace, written: str) -> None:
    lines = paths.PARAMS.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("tasks:"))
    lines[at] = written + "\n"
    paths.PARAMS.write_text("".join(lines))
    config.set_tasks(("pascal-sounds", "circor-murmur"))
    after = paths.PARAMS.read_text()
    assert config.load().tasks == ("pascal-sounds", "circor-murmur")
    assert after.endswith("".join(lines[at + 1 :]))
    assert after.startswith("".join(lines[:at]))


def test_nothing_that_passes_is_an_error(workspace: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher", [Child(24, recordings={"AV": 1})])
    (folder / "training_data" / "24_AV.wav").write_bytes(b"")
    done = workspace.run("ingest", "circor", folder, check=False)
    assert done.returncode == 1
    assert "no recording of circor passed the checks" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("pascal",), ("pascal", "folder", "--download")])
def test_the_command_wants_a_folder_or_a_download(workspace: Workspace, arguments: tuple[str, ...]) -> None:
    done = workspace.run("ingest", *arguments, check=False)
    assert done.returncode == 2
    assert "FOLDER, or --download" in done.stderr


def test_tasks_count_units_and_groups(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    (murmur, outcome) = available_tasks.read()
    assert (murmur.name, murmur.unit, outcome.name) == ("circor-murmur", "patient", "circor-outcome")
    counts = {entry.name: (entry.units, entry.groups) for entry in murmur.classes}
    assert counts == {"Present": (1, 1), "Unknown": (1, 1), "Absent": (4, 3)}


def test_without_prefect_the_command_starts_no_server(workspace: Workspace, tmp_path: Path) -> None:
    code = ("import sys; from heartml.data import ingest; from pathlib import Path; "
            f"ingest.run('pascal', Path({str(publisher_files.pascal(tmp_path / 'p'))!r})); "
            "sys.exit(' '.join(m for m in ('prefect', 'torch', 'mlflow') if m in sys.modules) or 0)")
    done = subprocess.run([workspace.command()[0], "-c", code], cwd=workspace.root, env=workspace.environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The flow


@pytest.fixture
def prefect_api(workspace: Workspace, empty_history: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a Prefect server that dies with this test."""
    (tmp_path / "prefect").mkdir()
    shutil.copy(empty_history, tmp_path / "prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "flows.support.private_server", str(port), str(os.getpid())]
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_URL": address}
    with subprocess.Popen(command, cwd=workspace.root, env={**workspace.environment, **home},
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(0.2)
        yield address
        server.kill()


def asked(address: str, what: str) -> list[dict[str, object]]:
    request = urllib.request.Request(f"{address}/{what}/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@pytest.mark.slow
def test_with_a_server_the_command_is_a_flow_that_shows_there_and_does_the_same(
    workspace: Workspace, prefect_api: str, tmp_path: Path
) -> None:
    folder, plain = publisher_files.pascal(tmp_path / "publisher"), workspace.copy(tmp_path / "plain")
    plain.run("ingest", "pascal", folder)
    workspace.run("ingest", "pascal", folder, PREFECT_API_URL=prefect_api, PREFECT_HOME=str(tmp_path / "prefect"))
    assert state(workspace.root) == state(plain.root)
    runs, artifacts = asked(prefect_api, "flow_runs"), asked(prefect_api, "artifacts")
    assert [(run["state_type"], run["parameters"]["dataset"]) for run in runs] == [("COMPLETED", "pascal")]
    assert [artifact["key"] for artifact in artifacts] == ["ingest-pascal"]
    assert {"what": "recordings", "number": 13} in json.loads(artifacts[0]["data"])
    failed = workspace.run("ingest", "pascal", tmp_path, check=False, PREFECT_API_URL=prefect_api,
                           PREFECT_HOME=str(tmp_path / "prefect"))
    assert failed.returncode == 1
    assert "Name the folder above" in failed.stderr.splitlines()[-1]
    assert {run["state_type"] for run in asked(prefect_api, "flow_runs")} == {"COMPLETED", "FAILED"}
    assert all(run["run_count"] == 1 for run in asked(prefect_api, "task_runs")), "nothing was retried"


@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_a_cache_that_is_linked_is_built_upon(here: Workspace, tmp_path: Path, kind: str) -> None:
    subprocess.run(["dvc", "config", "cache.type", kind], check=True, env=here.environment)
    folder = publisher_files.circor(tmp_path / "publisher", publisher_files.children()[:3])
    ingest.run("circor", folder)
    first = version.POINTER.read_text()
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher"))
    assert_whole()
    second = state()
    for pointer in (first, version.POINTER.read_text()):
        version.POINTER.write_text(pointer)
        subprocess.run(["dvc", "checkout", "-q", "data.dvc"], check=True, env=here.environment)
        assert_whole()
    assert state() == second


# The real recordings, by the faults that they have


def table_of(project: Workspace, name: str = "recordings") -> pd.DataFrame:
    return pd.read_parquet(project / "data" / f"{name}.parquet")


def test_data_in_an_older_layout_are_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths.audio("0123").parent.mkdir(parents=True)
    version.restore()
    (paths.DATA / "audio/01").mkdir()
    with pytest.raises(version.VersionError, match=r"older layout, audio lies in data/audio/0/ .* ingest anew"):
        version.restore()


@pytest.mark.real
def test_real_pascal_two_sounds_under_two_labels_are_refused_on_both_sides(ingested_pascal: Workspace) -> None:
    refused = table_of(ingested_pascal, "quarantine").set_index("source_file")
    doubted = refused[refused["reason"] == "contradiction"]
    assert set(doubted.index) == {
        "set_a/murmur__201104021355.wav", "set_a/extrahls__201104021355.wav",
        "set_a/normal__201106141148.wav", "set_a/murmur__201106141148.wav",
    }
    assert "correlation 1.000" in doubted.loc["set_a/murmur__201104021355.wav", "detail"]
    assert "labelled normal" in doubted.loc["set_a/murmur__201106141148.wav", "detail"]


@pytest.mark.real
def test_real_pascal_every_file_is_a_recording_or_refused(ingested_pascal: Workspace) -> None:
    table, refused = table_of(ingested_pascal), table_of(ingested_pascal, "quarantine")
    assert len(table) + len(refused) == 832
    assert refused["reason"].value_counts().to_dict() == {"contradiction": 4, "silent": 1}
    assert table["label_sound"].notna().sum() == 581
    assert_whole(ingested_pascal.root)


@pytest.mark.real
def test_real_pascal_samples_are_the_publishers(ingested_pascal: Workspace, real_pascal: Path) -> None:
    pairs = (line.split() for line in (real_pascal / "PCM_SHA256SUMS.txt").read_text().splitlines())
    sums = {name: digest for digest, name in pairs}
    table = table_of(ingested_pascal)
    assert all(sums[file] == i for file, i in zip(table["source_file"], table["recording_id"], strict=True))


@pytest.mark.real
def test_real_pascal_ids_101_103_and_146_are_one_group(ingested_pascal: Workspace) -> None:
    table = table_of(ingested_pascal)
    one = table[table["patient_id"].isin(["pascal-101", "pascal-103", "pascal-146"])]
    assert set(one["group_id"]) == {"pascal-101"}
    assert set(table.loc[table["group_id"] == "pascal-101", "patient_id"]) == set(one["patient_id"])
    others = table.dropna(subset=["patient_id"]).drop(one.index)
    assert (others["group_id"] == others["patient_id"]).all()


@pytest.mark.real
def test_real_pascal_set_a_is_grouped_by_day(ingested_pascal: Workspace) -> None:
    table = table_of(ingested_pascal)
    days = table.loc[table["source"] == "set_a", ["source_file", "group_id"]]
    stamps = days["source_file"].str.extract(r"__(\d{8})")[0]
    assert days.groupby(stamps)["group_id"].nunique().max() == 1
    session = days[days["source_file"].str.contains("__20110822")]
    assert session["group_id"].nunique() == 1


@pytest.mark.real
def test_real_pascal_signal_faults_are_seen(ingested_pascal: Workspace, real_pascal: Path) -> None:
    table = table_of(ingested_pascal)
    measured = {
        file: quality.measure((s := sound_files.read(real_pascal / file)).floats, s.sample_rate_hz)
        for file in (p.relative_to(real_pascal).as_posix() for p in sorted(real_pascal.glob("set_?/*.wav")))
    }
    assert len(measured) == 832
    assert sum(q.seconds < 1.5 for q in measured.values()) == 34
    assert sum(q.clipped_share > 0.01 for q in measured.values()) == 11
    assert sum(q.peak < 0.02 for file, q in measured.items() if file.startswith("set_a")) == 6
    assert table["seconds"].min() > 0.5


@pytest.mark.real
def test_real_pascal_ingested_again_changes_nothing(ingested_pascal: Workspace, real_pascal: Path) -> None:
    before = state(ingested_pascal.root)
    told = json.loads(ingested_pascal.run("ingest", "pascal", real_pascal, "--json").stdout)
    assert (told["changed"], told["new"]) == (False, 0)
    assert state(ingested_pascal.root) == before


@pytest.mark.real
def test_real_circor_comes_in_whole_with_twins_in_one_group(ingested_circor: Workspace, real_circor: Path) -> None:
    table = table_of(ingested_circor)
    assert (len(table), table["patient_id"].nunique(), table["group_id"].nunique()) == (1393, 421, 392)
    assert table_of(ingested_circor, "quarantine").empty
    rows = pd.read_csv(real_circor / "training_data.csv").dropna(subset=["Additional ID"])
    groups = table.drop_duplicates("patient_id").set_index("patient_id")["group_id"]
    for a, b in zip(rows["Patient ID"], rows["Additional ID"].astype(int), strict=True):
        assert groups[f"circor-{a}"] == groups[f"circor-{b}"]
    assert (table["sample_rate_hz"] == 4000).all()
    assert table["seconds"].between(4.8, 80.4).all()


@pytest.mark.real
def test_real_circor_files_are_the_publishers(ingested_circor: Workspace, real_circor: Path) -> None:
    pairs = (line.split() for line in (real_circor / "SHA256SUMS.txt").read_text().splitlines())
    sums = {name: digest for digest, name in pairs}
    table = table_of(ingested_circor)
    assert all(sums[file] == i for file, i in zip(table["source_file"], table["source_sha256"], strict=True))


@pytest.mark.real
def test_real_circor_every_recording_has_heart_states_inside_it(ingested_circor: Workspace) -> None:
    table, states = table_of(ingested_circor).set_index("recording_id"), table_of(ingested_circor, "annotations")
    assert set(states["recording_id"]) == set(table.index)
    assert (states["end_s"] <= states["recording_id"].map(table["seconds"]) + 0.01).all()


@pytest.mark.real
def test_real_circor_one_more_child_costs_one_childs_work(
    ingested_circor: Workspace, real_circor: Path, tmp_path: Path
) -> None:
    project = ingested_circor.copy(tmp_path / "project")
    former = {p.relative_to(project.root): p.stat().st_ino for p in (project / "data").rglob("*.flac")}
    folder = publisher_files.circor(tmp_path / "one more", [Child(99, recordings={"AV": 1, "PV": 2})])
    told = json.loads(project.run("ingest", "circor", folder, "--json").stdout)
    assert (told["recordings"], told["new"], told["patients"]) == (1395, 2, 422)
    now = {p.relative_to(project.root): p.stat().st_ino for p in (project / "data").rglob("*.flac")}
    assert former.items() <= now.items()
