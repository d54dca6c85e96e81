"""HLS-CMDS: rows and files that call one sound otherwise, copies in the folder of mixtures, and no patient anywhere."""

from pathlib import Path

import pandas as pd
import pytest
import support.lung_layouts as made
from support.workspaces import REAL_DATA, Workspace

from heartml.core import paths
from heartml.data import ingest
from heartml.data.datasets import Layout, hls_cmds
from heartml.data.ingest import available_tasks


def reasons(layout: Layout) -> dict[str, str]:
    return dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))


def edited(tmp_path: Path, table: str, old: str, new: str) -> Layout:
    """The layout after one word of a table was changed."""
    path = made.hls_cmds(tmp_path) / table
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    return hls_cmds.read(tmp_path)


def test_crackles_are_found_although_their_rows_name_other_files(tmp_path: Path) -> None:
    table = hls_cmds.read(made.hls_cmds(tmp_path)).recordings.set_index("source_file")
    assert table.loc["LS/M_CC_RLA.wav", ["label_lung_sound", "location"]].tolist() == ["Coarse Crackles", "Ar lower"]
    assert table.loc["LS/F_FC_RUA.wav", "label_lung_sound"] == "Fine Crackles"
    assert table.loc["HS/M_S3_A.wav", ["label_heart_sound", "location"]].tolist() == ["S3", "MV"]


def test_a_manikin_is_no_patient(tmp_path: Path) -> None:
    table = hls_cmds.read(made.hls_cmds(tmp_path)).recordings
    assert table[["patient_id", "sex", "age_group"]].isna().all(axis=None)
    assert table["group"].is_unique
    assert set(table["source"]) == {"female manikin", "male manikin", "mixture"}


def test_a_mixture_has_labels_that_no_task_uses_and_what_it_is_made_of_has_its_own(tmp_path: Path) -> None:
    table = hls_cmds.read(made.hls_cmds(tmp_path)).recordings.set_index("source_file")
    labels = table[[column for column in table if column.startswith("label_")]]
    assert labels.loc["Mix/M0001.wav"].dropna().to_dict() == {
        "label_mixed_heart_sound": "S3", "label_mixed_lung_sound": "Wheezing"}
    assert labels.loc["Mix/H0001.wav"].dropna().to_dict() == {"label_heart_sound": "S3"}
    assert labels.loc["Mix/L0001.wav"].dropna().to_dict() == {"label_lung_sound": "Wheezing"}
    assert table.loc[["Mix/H0001.wav", "Mix/L0001.wav"], "location"].isna().all()      # several places have its samples


def test_a_row_that_says_another_place_than_its_files_name_is_kept_without_a_place(tmp_path: Path) -> None:
    layout = edited(tmp_path, "HS.csv", "M,Normal,LLSB", "M,Normal,RUSB")
    assert layout.refused.empty
    row = layout.recordings.set_index("source_file").loc["HS/M_N_LLSB.wav"]
    assert row["label_heart_sound"] == "Normal"
    assert pd.isna(row["location"])


@pytest.mark.parametrize(("table", "old", "new", "refused"), [
    ("HS.csv", "F,S3,LUSB", "F,S4,LUSB", {"HS/F_S3_LUSB.wav": "contradiction"}),
    ("LS.csv", "M,Wheezing", "M,Stridor", {"LS/M_W_LMA.wav": "unknown_label"}),
    ("HS.csv", "F,Normal,RC", "X,Normal,RC", {"HS/F_N_RC.wav": "unknown_value"}),
    ("Mix.csv", "H0002", "H0001", {"Mix/H0002.wav": "missing_row"}),
    ("Mix.csv", "M,S3,Normal,RC,H0002", "M,S4,Normal,RC,H0001",
     {"Mix/H0001.wav": "contradiction", "Mix/H0002.wav": "missing_row"}),
    ("Mix.csv", "L0002", "../L0002", {"Mix/../L0002.wav": "outside", "Mix/L0002.wav": "missing_row"}),
])
def test_what_does_not_fit_is_refused_by_name(
    tmp_path: Path, table: str, old: str, new: str, refused: dict[str, str]
) -> None:
    assert reasons(edited(tmp_path, table, old, new)) == refused


def test_any_of_the_three_tables_can_be_read_alone(tmp_path: Path) -> None:
    folder = made.hls_cmds(tmp_path)
    (folder / "HS.csv").unlink()
    (folder / "Mix.csv").unlink()
    assert set(hls_cmds.read(folder).recordings["label_lung_sound"].dropna()) == {
        "Normal", "Wheezing", "Fine Crackles", "Coarse Crackles"}


def test_the_same_samples_are_ingested_once_and_both_tasks_are_there(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made.hls_cmds(tmp_path / "publisher")
    monkeypatch.chdir(workspace.root)
    outcome = ingest.run("hls-cmds", folder)
    assert outcome.quarantined == {"duplicate": 1}
    found = pd.read_parquet(paths.RECORDINGS)
    own = found[found["dataset"] == "hls-cmds"]
    assert "Mix/H0002.wav" not in set(own["source_file"])
    assert len(own) == outcome.recordings == 15
    assert {"hls-cmds-heart_sounds", "hls-cmds-lung_sounds"} <= {one.name for one in available_tasks.read()}


@pytest.mark.real
def test_of_the_real_tables_every_row_has_its_file(tmp_path: Path) -> None:
    real = REAL_DATA / "hls-cmds"
    if not real.is_dir():
        pytest.skip(f"left out: the real recordings are not here (no {real})")
    for path in (path for path in real.rglob("*") if path.suffix in {".csv", ".flac"}):
        named = tmp_path / path.relative_to(real).with_suffix(".wav" if path.suffix == ".flac" else ".csv")
        named.parent.mkdir(parents=True, exist_ok=True)
        named.write_bytes(path.read_bytes() if path.suffix == ".csv" else b"")      # names alone are read
    layout = hls_cmds.read(tmp_path)
    assert layout.refused.empty
    assert layout.recordings["label_lung_sound"].count() == layout.recordings["label_heart_sound"].count() == 80
    assert layout.recordings["label_mixed_lung_sound"].count() == 30
