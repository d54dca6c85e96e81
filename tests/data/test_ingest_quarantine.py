"""What must not come in is refused with its reason, and takes no other file with it."""

import io
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from support import publisher_files
from support.ingested_data import (
    ADDED_FILE,
    assert_data_is_whole,
    data_checksums,
    quarantine_reasons,
    read_recordings,
    write_pascal_with_one_more,
)
from support.publisher_files import RATE_HZ, Child, beating_noise, wav_bytes
from support.workspaces import Workspace

from heartml.audio import sound_files
from heartml.core import paths
from heartml.data import ingest

pytestmark = pytest.mark.timeout(600)


# What must not come in


def encoded(samples: np.ndarray, kind: str, subtype: str) -> bytes:
    memory = io.BytesIO()
    soundfile.write(memory, samples, RATE_HZ, format=kind, subtype=subtype)
    return memory.getvalue()


def floats(seed: int = 900) -> np.ndarray:
    return beating_noise(seed).astype(np.float64) / 32768


def with_nan() -> np.ndarray:
    samples = floats().copy()
    samples[100] = np.nan
    return samples


BAD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "truncated": ("truncated", lambda: wav_bytes(beating_noise(900))[:-1000]),
    "header alone": ("truncated", lambda: wav_bytes(beating_noise(900))[:44]),
    "promises four gigabytes": (
        "truncated", lambda: wav_bytes(beating_noise(900))[:40] + struct.pack("<I", 0xFFFFFFF0) + bytes(99)),
    "no samples": ("empty", lambda: wav_bytes(beating_noise(900)[:0])),
    "no bytes": ("empty", lambda: b""),
    "all zero": ("silent", lambda: wav_bytes(np.zeros(RATE_HZ, np.int16))),
    "constant": ("silent", lambda: wav_bytes(np.full(RATE_HZ, 9000, np.int16))),
    "one step of noise": ("silent", lambda: wav_bytes((np.arange(RATE_HZ) % 2).astype(np.int16))),
    "not a number": ("nan", lambda: encoded(with_nan(), "WAV", "FLOAT")),
    "two ears": ("stereo", lambda: encoded(np.stack([floats(900), floats(901)], axis=1), "WAV", "PCM_16")),
    "a third of a second": ("short", lambda: wav_bytes(beating_noise(900, 0.3))),
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
    "a LIST chunk before": lambda: wav_bytes(beating_noise(900), before=publisher_files.list_chunk()),
    "a LIST chunk behind": lambda: wav_bytes(beating_noise(900), behind=publisher_files.list_chunk()),
}


def only_refused(folder: Path, dataset: str = "pascal") -> str:
    """Ingest; everything but one file became a recording. The reason of the one."""
    outcome = ingest.run(dataset, folder)
    assert outcome.recordings == {"pascal": 13, "circor": 11}[dataset]
    assert_data_is_whole()
    (reason,) = outcome.quarantined
    assert outcome.quarantined[reason] == 1
    row = pd.read_parquet(paths.QUARANTINE).iloc[0]
    assert row["detail"]
    assert row["source_file"] not in set(read_recordings()["source_file"])
    return reason


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_with_its_reason_and_takes_no_other_with_it(
    here: Workspace, tmp_path: Path, kind: str
) -> None:
    reason, make = BAD[kind]
    write_pascal_with_one_more(tmp_path / "publisher").write_bytes(make())
    assert only_refused(tmp_path / "publisher") in reason.split("|")


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_of_another_form_with_one_sound_in_it_comes_in(here: Workspace, tmp_path: Path, kind: str) -> None:
    write_pascal_with_one_more(tmp_path / "publisher").write_bytes(GOOD[kind]())
    outcome = ingest.run("pascal", tmp_path / "publisher")
    assert outcome.recordings == 14, quarantine_reasons()
    name = read_recordings().set_index("source_file").loc[ADDED_FILE, "recording_id"]
    kept = sound_files.read(paths.audio(name)).floats
    assert np.abs(kept - floats()).max() < 0.01
    assert_data_is_whole()


def test_a_recording_with_a_wrong_extension_comes_in(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher") / "training_data"
    (folder / "61_MV.wav").rename(folder / "61_MV.mp3")
    ingest.run("circor", tmp_path / "publisher")
    assert "training_data/61_MV.mp3" in set(read_recordings()["source_file"])
    assert quarantine_reasons() == {"training_data/61_MV.wav": "missing_file"}


def test_the_same_file_twice_comes_in_once(here: Workspace, tmp_path: Path) -> None:
    new = write_pascal_with_one_more(tmp_path / "publisher")
    shutil.copyfile(tmp_path / "publisher" / "set_a" / "normal__201101051538.wav", new)
    assert only_refused(tmp_path / "publisher") == "duplicate"
    assert ADDED_FILE in quarantine_reasons()


def test_of_two_copies_the_labelled_one_stays(here: Workspace, tmp_path: Path) -> None:
    write_pascal_with_one_more(tmp_path / "publisher").write_bytes(wav_bytes(beating_noise(104)))
    only_refused(tmp_path / "publisher")
    assert quarantine_reasons() == {"set_a/Aunlabelledtest__2011040239.wav": "duplicate"}


def test_the_same_samples_under_two_labels_are_both_refused(here: Workspace, tmp_path: Path) -> None:
    same = wav_bytes(beating_noise(102))      # as murmur__201101051104
    write_pascal_with_one_more(tmp_path / "publisher").write_bytes(same)
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine_reasons() == {ADDED_FILE: "contradiction", "set_a/murmur__201101051104.wav": "contradiction"}
    assert_data_is_whole()


def test_nearly_the_same_sound_under_two_labels_is_refused_on_both_sides(here: Workspace, tmp_path: Path) -> None:
    later = beating_noise(102)[400:]
    fainter = (later * 0.5 + np.random.default_rng(0).normal(0, 30, len(later))).astype(np.int16)
    write_pascal_with_one_more(tmp_path / "publisher").write_bytes(wav_bytes(fainter))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine_reasons() == {ADDED_FILE: "contradiction", "set_a/murmur__201101051104.wav": "contradiction"}
    assert "murmur__201101051104.wav, which is labelled murmur" in pd.read_parquet(paths.QUARANTINE)["detail"][1]


def test_a_contradiction_that_comes_later_takes_the_earlier_recording_out(here: Workspace, tmp_path: Path) -> None:
    ingest.run("pascal", publisher_files.pascal(tmp_path / "publisher"))
    write_pascal_with_one_more(tmp_path / "publisher").write_bytes(wav_bytes(beating_noise(102)))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine_reasons() == {ADDED_FILE: "contradiction", "set_a/murmur__201101051104.wav": "contradiction"}
    before = data_checksums()
    assert not ingest.run("pascal", tmp_path / "publisher").changed
    assert data_checksums() == before


def test_the_same_sound_of_two_patients_makes_them_one_group(here: Workspace, tmp_path: Path) -> None:
    child = Child(70, recordings={"AV": 1})       # the samples of 24_AV, the same labels
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [*publisher_files.children(), child]))
    assert quarantine_reasons() == {"training_data/70_AV.wav": "duplicate"}
    child.recordings = {"PV": 13, "AV": 1}
    ingest.run("circor", publisher_files.circor(tmp_path / "publisher", [*publisher_files.children(), child]))
    table = read_recordings().set_index("source_file")
    assert table.loc["training_data/70_PV.wav", "group_id"] == "circor-24"


def test_the_same_samples_in_two_data_sets_stay_where_they_came_first(here: Workspace, tmp_path: Path) -> None:
    ingest.run("circor", publisher_files.circor(tmp_path / "circor"))
    write_pascal_with_one_more(tmp_path / "publisher").write_bytes(wav_bytes(beating_noise(1)))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine_reasons() == {ADDED_FILE: "duplicate"}
    assert read_recordings()["recording_id"].is_unique


def test_a_label_that_contradicts_the_files_name_is_refused(here: Workspace, tmp_path: Path) -> None:
    path = publisher_files.pascal(tmp_path / "publisher") / "set_b.csv"
    path.write_text(path.read_text().replace("_C2.wav,extrastole", "_C2.wav,murmur"))
    ingest.run("pascal", tmp_path / "publisher")
    assert quarantine_reasons() == {"set_b/extrastole__127_1306764300147_C2.wav": "contradiction"}


def test_a_typing_error_in_a_label_is_refused_by_name(here: Workspace, tmp_path: Path) -> None:
    children = publisher_files.children()
    children[5].murmur = "Presnt"
    assert only_refused(publisher_files.circor(tmp_path / "publisher", children), "circor") == "unknown_label"
    assert "'Presnt', not Present, Unknown, Absent" in pd.read_parquet(paths.QUARANTINE)["detail"][0]


def test_a_missing_row_is_refused(here: Workspace, tmp_path: Path) -> None:
    write_pascal_with_one_more(tmp_path / "publisher", row=False).write_bytes(wav_bytes(beating_noise(900)))
    assert only_refused(tmp_path / "publisher") == "missing_row"


def test_a_file_that_is_not_the_publishers_is_refused(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    (folder / "training_data" / "61_MV.wav").write_bytes(wav_bytes(beating_noise(901)))
    assert only_refused(folder, "circor") == "checksum"
    folder = publisher_files.pascal(tmp_path / "pascal")
    (folder / "set_a" / "normal__201101051538.wav").write_bytes(wav_bytes(beating_noise(902)))
    ingest.run("pascal", folder)
    assert quarantine_reasons()["set_a/normal__201101051538.wav"] == "checksum"


def test_fewer_samples_than_the_header_file_states_is_truncated(here: Workspace, tmp_path: Path) -> None:
    folder = publisher_files.circor(tmp_path / "publisher")
    (folder / "training_data" / "61_MV.wav").write_bytes(wav_bytes(beating_noise(12)[:-1]))
    publisher_files.write_checksums(folder)
    assert only_refused(folder, "circor") == "truncated"


def test_a_link_that_leads_out_of_the_folder_is_not_followed(here: Workspace, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(wav_bytes(beating_noise(900)))
    write_pascal_with_one_more(tmp_path / "publisher").symlink_to(tmp_path / "secret.wav")
    assert only_refused(tmp_path / "publisher") == "outside"


def test_a_pipe_or_a_folder_called_wav_does_not_stop_the_ingest(here: Workspace, tmp_path: Path) -> None:
    os.mkfifo(write_pascal_with_one_more(tmp_path / "publisher"))
    assert only_refused(tmp_path / "publisher") == "not_audio"
    (tmp_path / "publisher" / ADDED_FILE).unlink()
    (tmp_path / "publisher" / ADDED_FILE).mkdir()
    assert only_refused(tmp_path / "publisher") == "not_audio"


def test_other_limits_in_params_apply_to_files_that_were_ingested_before(here: Workspace, tmp_path: Path) -> None:
    longer = write_pascal_with_one_more(tmp_path / "publisher")
    longer.write_bytes(wav_bytes(beating_noise(900, seconds=2.0)))
    folder = tmp_path / "publisher"
    ingest.run("pascal", folder)
    text = paths.PARAMS.read_text()
    paths.PARAMS.write_text(text.replace("min_seconds: 0.5", "min_seconds: 1.5"))
    assert ingest.run("pascal", folder).quarantined == {"short": 13}
    paths.PARAMS.write_text(text)
    assert ingest.run("pascal", folder).recordings == 14
    assert_data_is_whole()
