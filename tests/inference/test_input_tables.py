"""The tables of predict, score and monitor: read by the rules of every table, or refused with the line."""

from pathlib import Path

import pytest

from heartml.inference import inputs
from heartml.inference.inputs import InputsError


def gathered(folder: Path, text: str, encoding: str = "utf-8") -> list[inputs.InputFile]:
    (folder / "visits.csv").write_bytes(text.encode(encoding))
    return inputs.gather([folder / "visits.csv"])


@pytest.mark.parametrize("text", [
    "path,Patient ID,LOCATION\na.wav,0012,mv\nb.wav,0012,nan\n",
    "sep=;\nPath;patient-id;location\na.wav;0012;MV\nb.wav;0012;\n",
    "path\tpatient_id\tlocation\r\na.wav\t0012\tMV\r\nb.wav\t0012\tN/A\r\n\t\t\r\n",
])
def test_a_table_is_read_whatever_its_heads_and_separators(tmp_path: Path, text: str) -> None:
    items = gathered(tmp_path, text)
    assert [(item.path.name, item.patient_id, item.location) for item in items] == [
        ("a.wav", "0012", "MV"), ("b.wav", "0012", None)]


@pytest.mark.parametrize("word", ["nan", "NA", "NULL", "None", "#N/A", "-", ""])
def test_recordings_of_unknown_people_are_patients_of_their_own(tmp_path: Path, word: str) -> None:
    items = gathered(tmp_path, f"path,patient_id\na.wav,{word}\nb.wav,{word}\n")
    assert [item.patient_id for item in items] == [None, None]
    assert len(set(inputs.units(items, "patient"))) == 2


@pytest.mark.parametrize(("text", "words"), [
    ("path,patient_id\na.wav,unknown\n", "line 2: 'unknown' is no id"),
    ("path,patient_id\na.wav,12\nb.wav,13\nc.wav,12.0\n", "line 2: id '12' here, '12.0' at line 4"),
    ("path,location\na.wav,MV\nb.wav,apex\n", "line 3: location 'apex' is none of AV"),
    ("path,patient_id\na.wav,1\nNA,2\n", "line 3: the column `path` is empty"),
    ("path,Patient\na.wav,1\n", "the column 'Patient' is not read: call it `patient_id`"),
    ("path,patient_id,PatientID\na.wav,1,2\n", None),
])
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, words: str | None) -> None:
    if words is None:
        assert gathered(tmp_path, text)[0].patient_id == "1", "the exact name goes first"
        return
    with pytest.raises(InputsError, match=words):
        gathered(tmp_path, text)


def test_a_table_in_another_encoding_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(InputsError, match=r"line 2, byte 17 .*CSV UTF-8"):
        gathered(tmp_path, "path,patient_id\nM\u00fcller.wav,1\n", "latin-1")


def test_columns_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gathered(tmp_path, "path,age,notes\na.wav,1,x\n")
    assert "columns that are not read: age, notes" in capsys.readouterr().err
    gathered(tmp_path, "path\na.wav\n")
    assert not capsys.readouterr().err


def test_a_table_with_tabs_may_be_called_so_and_a_spreadsheet_is_named(tmp_path: Path) -> None:
    (tmp_path / "visits.TSV").write_text("\npath\tpatient_id\na.wav\t7\n")
    assert [item.patient_id for item in inputs.gather([tmp_path / "visits.TSV"])] == ["7"]
    with pytest.raises(InputsError, match=r"visits\.xlsx: a spreadsheet, which is not read: save it as CSV UTF-8"):
        inputs.gather([tmp_path / "visits.xlsx"])


def test_a_file_in_two_rows_of_a_patient_counts_once_and_has_one_location(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(gathered(tmp_path, "path,patient_id,location\na.wav,1,MV\nb.wav,1,AV\na.wav,1,mv\n")) == 2
    assert "visits.csv, line 2, 4: a.wav stands there 2 times and counts once" in capsys.readouterr().err
    with pytest.raises(InputsError, match=r"line 2, 3: a\.wav has the locations MV and AV: leave the row that is true"):
        gathered(tmp_path, "path,patient_id,location\na.wav,1,MV\na.wav,1,AV\n")
