"""PhysioNet 2016: persons where the appendix tells them, every list held against the others."""

from pathlib import Path

import pandas as pd
import pytest
import support.publisher_layouts as made
from support.publisher_files import beating_noise, wav_bytes
from support.workspaces import Workspace

from heartml.core import paths
from heartml.data import ingest
from heartml.data.datasets import Layout, physionet2016


def by_record(layout: Layout) -> pd.DataFrame:
    table = layout.recordings
    return table.assign(record=[Path(file).stem for file in table["source_file"]]).set_index("record")


def reasons(layout: Layout) -> dict[str, str]:
    return dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))


def test_answers_and_databases(tmp_path: Path) -> None:
    table = by_record(physionet2016.read(made.physionet2016(tmp_path)))
    expected = {name: "Abnormal" if answer == 1 else "Normal" for name, (answer, *_) in made.RECORDS_2016.items()}
    assert table["label_normal"].to_dict() == expected
    assert table["source"].to_dict() == {name: f"training-{name[0]}" for name in expected}


def test_the_publishers_quality_is_a_column_where_it_is_given(here: Workspace, tmp_path: Path) -> None:
    folder = made.physionet2016(tmp_path / "challenge", appendix=False)
    assert by_record(physionet2016.read(folder))["publisher_quality"].isna().all()
    ingest.run("physionet2016", folder)
    assert "publisher_quality" not in pd.read_parquet(paths.RECORDINGS)
    (folder / "training-a" / "REFERENCE-SQI.csv").write_text("a0001,1,1\r\na0002,-1,0\r\n")
    ingest.run("physionet2016", folder)
    table = pd.read_parquet(paths.RECORDINGS).set_index("source_file")["publisher_quality"].dropna()
    assert table.to_dict() == {"training-a/a0001.wav": "good", "training-a/a0002.wav": "poor"}


def test_persons_are_known_where_the_appendix_tells_them(tmp_path: Path) -> None:
    groups = by_record(physionet2016.read(made.physionet2016(tmp_path)))["group"].str.removeprefix("physionet2016-")
    assert groups["a0001"] == groups["a0002"] == "a-C45"                 # C45S1, C45S2b
    assert groups["b0001"] == groups["b0002"] == "b-S34"                 # 34.0 and 34
    assert groups["c0001"] == groups["c0002"] == "c-ID17"
    assert groups["e00001"] == groups["e00002"]                          # pieces of raw record 14
    assert groups[["d0001", "e00004", "f0001"]].tolist() == ["d0001", "e00004", "f0001"]


def test_raw_records_of_two_cohorts_with_one_number_are_two_persons(tmp_path: Path) -> None:
    groups = by_record(physionet2016.read(made.physionet2016(tmp_path)))["group"]
    assert groups[["e00001", "e00003"]].tolist() == ["physionet2016-e-healthy14", "physionet2016-e-patient14"]


def test_without_the_appendix_every_recording_is_a_group_of_its_own(tmp_path: Path) -> None:
    table = physionet2016.read(made.physionet2016(tmp_path, appendix=False)).recordings
    assert table["patient_id"].isna().all()
    assert table["group"].is_unique


def test_age_and_sex_come_from_the_appendix(tmp_path: Path) -> None:
    table = by_record(physionet2016.read(made.physionet2016(tmp_path)))
    assert table.loc["b0003", ["age_group", "sex"]].tolist() == ["60-69", "Female"]
    assert table.loc["e00001", ["age_group", "sex"]].tolist() == ["20-29", "Male"]
    assert table.loc["a0001", ["age_group", "sex"]].isna().all()


def test_the_repeated_recordings_are_not_read(tmp_path: Path) -> None:
    files = physionet2016.read(made.physionet2016(tmp_path)).recordings["source_file"]
    assert not files.str.startswith("validation").any()


def test_lists_that_contradict_the_answers_are_refused(tmp_path: Path) -> None:
    part = made.physionet2016(tmp_path, appendix=False) / "training-b"
    (part / "SHA256SUMS").unlink()
    (part / "RECORDS-abnormal").write_text("b0001\nb0003\n")
    assert reasons(physionet2016.read(tmp_path)) == {"training-b/b0001.wav": "contradiction"}


def test_an_appendix_that_contradicts_the_answers_is_refused(tmp_path: Path) -> None:
    path = made.physionet2016(tmp_path) / "annotations" / "Online_Appendix_training_set.csv"
    text = path.read_text(encoding="utf-8-sig").replace("S35f1_data,,1", "S35f1_data,,-1")
    path.rename(path.with_name("Online Appendix_training set.csv")).write_text(text, encoding="utf-8-sig")
    assert reasons(physionet2016.read(tmp_path)) == {"training-b/b0003.wav": "contradiction"}


def test_a_list_that_was_edited_is_refused_and_not_believed(tmp_path: Path) -> None:
    (made.physionet2016(tmp_path) / "training-d" / "REFERENCE.csv").write_text("d0001,1\nd0002,-1\n")
    found = reasons(physionet2016.read(tmp_path))
    assert found["training-d/REFERENCE.csv"] == "checksum"
    assert found["training-d/d0001.wav"] == "missing_row"


def test_missing_rows_and_files_and_wrong_extensions_are_seen(tmp_path: Path) -> None:
    part = made.physionet2016(tmp_path) / "training-f"
    (part / "f0001.wav").unlink()
    (part / "f0003.wav").write_bytes(wav_bytes(beating_noise(1)))
    (part / "f0002.wav").rename(part / "f0002.mp3")
    layout = physionet2016.read(tmp_path)
    assert reasons(layout) == {"training-f/f0001.wav": "missing_file", "training-f/f0003.wav": "missing_row"}
    assert "training-f/f0002.mp3" in set(layout.recordings["source_file"])


def test_an_answer_that_is_none_is_named_at_ingest(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made.physionet2016(tmp_path / "publisher", appendix=False)
    made.physionet2016_lists(folder, {name: row[0] for name, row in made.RECORDS_2016.items()} | {"d0001": 0})
    monkeypatch.chdir(workspace.root)
    assert ingest.run("physionet2016", folder).quarantined == {"unknown_label": 1}
    refused = pd.read_parquet(paths.QUARANTINE)
    assert "normal is '0'" in refused["detail"][0]


def test_a_row_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    part = made.physionet2016(tmp_path) / "training-c"
    (part / "SHA256SUMS").unlink()
    with (part / "REFERENCE.csv").open("a") as file:
        file.write("../../c0009,1\n")
    assert reasons(physionet2016.read(tmp_path)) == {"training-c/../../c0009": "outside"}


def test_any_of_the_six_is_enough(tmp_path: Path) -> None:
    made.physionet2016(tmp_path)
    for letter in "abcdf":
        (tmp_path / f"training-{letter}" / "REFERENCE.csv").unlink()
    assert set(physionet2016.read(tmp_path).recordings["source"]) == {"training-e"}
