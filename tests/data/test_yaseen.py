"""Yaseen 2018: the class stands in the folder and in the name; nobody knows the persons, and nothing pretends to."""

from pathlib import Path

import pandas as pd
import pytest
import support.publisher_layouts as made
from support.workspaces import Workspace

from heartml.core import paths
from heartml.data import ingest
from heartml.data.datasets import Layout, yaseen


def reasons(layout: Layout) -> dict[str, str]:
    return dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))


def test_every_class_comes_from_its_folder_whatever_else_it_is_called(tmp_path: Path) -> None:
    table = yaseen.read(made.yaseen(tmp_path)).recordings
    assert table["label_valve"].value_counts().to_dict() == dict.fromkeys(made.CLASSES_2018, 3)
    assert "MR_New_3주기/New_MR_001.wav" in set(table["source_file"])


def test_nobody_is_a_patient_and_each_recording_is_a_group_of_its_own(tmp_path: Path) -> None:
    table = yaseen.read(made.yaseen(tmp_path)).recordings
    assert table["patient_id"].isna().all()
    assert table["group"].is_unique


def test_a_file_in_another_classs_folder_is_refused(tmp_path: Path) -> None:
    folder = made.yaseen(tmp_path)
    (folder / "AS" / "New_AS_002.wav").rename(folder / "MS" / "New_AS_002.wav")
    (folder / "N" / "notes.txt").write_text("where they are from")
    assert reasons(yaseen.read(folder)) == {"MS/New_AS_002.wav": "contradiction", "N/notes.txt": "missing_row"}


def test_files_one_folder_deeper_are_found(tmp_path: Path) -> None:
    folder = made.yaseen(tmp_path)
    (folder / "AS").rename(folder / "inner")
    (folder / "AS").mkdir()
    (folder / "inner").rename(folder / "AS" / "AS_New")
    assert (yaseen.read(folder).recordings["label_valve"] == "AS").sum() == 3


def test_nearly_the_same_audio_joins_groups_and_under_two_classes_is_refused(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made.yaseen(tmp_path / "publisher")
    quieter = (made.draw_heart_sound(381, "PV").astype(float) * 0.7).astype("int16")
    (folder / "N" / "New_N_009.wav").write_bytes(made.wav_bytes(made.resample(quieter, 8000), 8000))
    (folder / "AS" / "New_AS_009.wav").write_bytes((folder / "MVP" / "New_MVP_002.wav").read_bytes())
    monkeypatch.chdir(workspace.root)
    outcome = ingest.run("yaseen", folder)
    assert outcome.quarantined == {"contradiction": 2}
    assert outcome.persons.startswith(
        f"None of the {outcome.recordings} recordings names its person, so they count as {outcome.groups} groups (")
    groups = pd.read_parquet(paths.RECORDINGS).set_index("source_file")["group_id"]
    assert groups["N/New_N_009.wav"] == groups["N/New_N_001.wav"]
    assert groups.nunique() == len(groups) - 1
