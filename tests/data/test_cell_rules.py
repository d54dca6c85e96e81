"""Tables as clinics and spreadsheets write them: every adapter reads them by one rule, or refuses the row by name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import publisher_files, publisher_layouts

from heartml.data.datasets import Layout, LayoutError, bmdhs, circor, generic, pascal, physionet2016
from heartml.data.datasets.nearby import Nearby

MAPPING = """title: T
citation: C
licence: CC0-1.0
table: recordings.csv
columns: {path: file, patient: subject, age: age, sex: sex}
labels:
  murmur: {column: diagnosis, classes: {0: Absent, 1: Present}}
"""
HEAD = "file,subject,age,sex,diagnosis"
COLUMNS = {name: n for n, name in enumerate(HEAD.split(","))}
Rows = list[list[str]]


def plain() -> Rows:
    return [[f"r{n}.wav", f"p{n}", str(30 + n), "Female" if n % 3 else "Male", "Present" if n % 2 else "Absent"]
            for n in range(4)]


def with_column(name: str, *values: str) -> Rows:
    rows = plain()
    for row, value in zip(rows, values, strict=True):
        row[COLUMNS[name]] = value
    return rows


def clinic(folder: Path, rows: Rows, head: str = HEAD, separator: str = ",", encoding: str = "utf-8") -> Layout:
    """Files that are empty (nothing here decodes them), a table and its mapping file, as they are read."""
    for n in range(4):
        (folder / f"r{n}.wav").touch()
    text = "\n".join([head.replace(",", separator), *(separator.join(row) for row in rows)]) + "\n"
    (folder / "recordings.csv").write_bytes(text.encode(encoding))
    (folder / "clinic.yaml").write_text(MAPPING)
    return generic.read(folder)


def refused(layout: Layout) -> dict[str, str]:
    return dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))


def column(layout: Layout, name: str) -> list[str | None]:
    return layout.recordings[name].astype(object).where(layout.recordings[name].notna(), None).tolist()


@pytest.mark.parametrize(("head", "separator", "encoding"), [
    (HEAD, ",", "utf-8-sig"), (HEAD, ";", "utf-8"), (HEAD, "\t", "utf-8"), ("sep=,\n" + HEAD, ",", "utf-8"),
    (HEAD + "\u00a0", ",", "utf-8"), ("\u200b" + HEAD, ",", "utf-8"), (HEAD.title(), ",", "utf-8"),
    (HEAD + "," + ",".join(f"c{n}" for n in range(2000)), ",", "utf-8"),
])
def test_every_way_to_write_the_table_gives_the_same(tmp_path: Path, head: str, separator: str, encoding: str) -> None:
    layout = clinic(tmp_path, [*plain(), ["", "", "", "", ""]], head, separator, encoding)
    assert layout.refused.empty
    assert column(layout, "patient_id") == ["clinic-p0", "clinic-p1", "clinic-p2", "clinic-p3"]
    assert column(layout, "label_murmur") == ["Absent", "Present", "Absent", "Present"]
    assert column(layout, "age_group") == ["30-39"] * 4


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_table_in_another_encoding_is_refused_as_a_whole(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(LayoutError, match="not UTF-8") as told:
        clinic(tmp_path, with_column("subject", "M\u00fcller", "M\u00f6ller", "p2", "p3"), encoding=encoding)
    assert "CSV UTF-8" in str(told.value)


def test_a_line_above_the_names_of_the_columns_is_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"'file' is no column of recordings\.csv, there are # exported 2026"):
        clinic(tmp_path, plain(), "# exported 2026-01-01\n" + HEAD)


@pytest.mark.parametrize("word", ["nan", "NA", "NULL", "None", "#N/A", "-", ""])
def test_people_whom_nobody_knows_are_not_one_person(tmp_path: Path, word: str) -> None:
    layout = clinic(tmp_path, with_column("subject", word, word, "p2", "p3"))
    assert column(layout, "patient_id") == [None, None, "clinic-p2", "clinic-p3"]
    assert layout.recordings["group"].is_unique


@pytest.mark.parametrize(("rows", "expected"), [
    (with_column("subject", "unknown", "Unknown", "p2", "p3"), {"r0.wav": "unknown_value", "r1.wav": "unknown_value"}),
    (with_column("subject", "12.0", "12", "0012", "p3"), dict.fromkeys(["r0.wav", "r1.wav", "r2.wav"], "ambiguous_id")),
    (with_column("subject", "P1", "p1", "p2", "p3 "), dict.fromkeys(["r0.wav", "r1.wav"], "ambiguous_id")),
    ([["r0.wav", "12", "45y", "", ""], ["r1.wav", "12.0", *"   "], ["r2.wav", "p2", *"   "], ["r3.wav", "p3", *"   "]],
     {"r0.wav": "unknown_value", "r1.wav": "ambiguous_id"}),      # the wrong age does not hide the other spelling
    (with_column("age", "45y", "4 months", "-1", "450"), {f"r{n}.wav": "unknown_value" for n in range(4)}),
    (with_column("age", '"45,5"', "45.0", "nan", "0.5"), {}),
    (with_column("sex", "F", "female", "nan", "x"), {"r3.wav": "unknown_value"}),
    (with_column("diagnosis", "absent", "PRESENT ", "0.0", "1.0"), {}),
    (with_column("file", "r0.wav ", "./r1.wav", ".\\r2.wav", "r3.wav"), {}),
    (with_column("file", "R0.WAV", "r1", "r2.wav", "r3.wav"),
     {"R0.WAV": "missing_file", "r1": "missing_file", "r0.wav": "missing_row", "r1.wav": "missing_row"}),
    ([*plain(), plain()[0], [*plain()[1][:4], "Absent"]], {"r1.wav": "contradiction"}),
])
def test_what_cannot_be_used_is_refused_with_its_row_and_nothing_else(
    tmp_path: Path, rows: Rows, expected: dict[str, str]
) -> None:
    layout = clinic(tmp_path, rows)
    assert refused(layout) == expected
    assert set(layout.recordings["source_file"]) == {f"r{n}.wav" for n in range(4)} - set(expected) - {
        name for name in ("r0.wav", "r1.wav") if "R0.WAV" in expected}


def test_a_refused_row_is_told_with_line_value_and_way_out(tmp_path: Path) -> None:
    layout = clinic(tmp_path, [["r0.wav", "p0", "45y", "", ""], ["R1.wav", "p1", "", "", ""], ["r2.wav", "12", *"  "],
                               ["r3.wav", "12.0", *"  "]])
    told = dict(zip(layout.refused["source_file"], layout.refused["detail"], strict=True))
    assert told["r0.wav"].startswith("recordings.csv, line 2: age '45y' is neither years from 0 to 120")
    assert told["R1.wav"].endswith("there is no such file: is r1.wav meant?")
    assert "id '12' here, '12.0' at r3.wav" in told["r2.wav"]


def test_a_word_to_which_the_mapping_gives_a_meaning_has_it(tmp_path: Path) -> None:
    clinic(tmp_path, with_column("diagnosis", "none", "NA", "loud", "-"))
    (tmp_path / "clinic.yaml").write_text(MAPPING.replace("{0: Absent, 1: Present}", "{None: Absent, loud: Present}"))
    assert column(generic.read(tmp_path), "label_murmur") == ["Absent", None, "Present", None]


# Publishers' tables that a program wrote again


def rewritten(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text("utf-8-sig")), "utf-8")
    for sums in (*path.parent.glob("*SHA256SUMS*"), *path.parent.parent.glob("*SHA256SUMS*")):
        sums.unlink()


def same_recordings(first: Layout, second: Layout) -> None:
    checked = [name for name in first.recordings if not name.endswith("sha256")]
    left, right = (one.recordings[checked].astype(object).fillna("-").to_dict("records") for one in (first, second))
    assert left == right
    assert second.refused.empty, second.refused.to_string()


CIRCOR = {
    "booleans of a spreadsheet": lambda text: text.replace("False", "FALSE").replace("True", "TRUE"),
    "ids as pandas writes them": lambda text: re.sub(r"(?m)^(\d+),", r"\1.0,", text),
    "nothing for nan": lambda text: re.sub(r"(?<=,)nan(?=[,\r\n])", "", text),
    "semicolons": lambda text: text.replace(",", ";"),
    "other case": lambda text: text.replace("Patient ID", "patient_id").replace("Murmur,", "MURMUR,"),
}


@pytest.mark.parametrize("change", CIRCOR.values(), ids=CIRCOR)
def test_circors_table_may_have_gone_through_a_spreadsheet(tmp_path: Path, change: Callable[[str], str]) -> None:
    before = circor.read(publisher_files.circor(tmp_path))
    rewritten(tmp_path / "training_data.csv", change)
    same_recordings(before, circor.read(tmp_path))


def test_circors_table_must_still_agree_with_each_patients_file(tmp_path: Path) -> None:
    publisher_files.circor(tmp_path)
    rewritten(tmp_path / "training_data.csv", lambda text: text.replace("False", "TRUE", 1))
    assert set(refused(circor.read(tmp_path)).values()) == {"contradiction"}


def bmdhs_folder(folder: Path, marks: str = "1,0,0,0,0") -> Path:
    (folder / "train").mkdir()
    for name in ("AS_001_sup_Mit", "N_002_sup_Mit"):
        (folder / "train" / f"{name}.wav").touch()
    (folder / "train.csv").write_text("patient_id,AS,AR,MR,MS,N,recording_1\n"
                                      f"patient_001,{marks},AS_001_sup_Mit\npatient_002,0,0,0,0,1,N_002_sup_Mit\n")
    return folder


@pytest.mark.parametrize("marks", ["1,0,0,0,0", "1.0,0.0,0.0,0.0,0.0", "TRUE,FALSE,FALSE,FALSE,FALSE"])
def test_bmdhs_answers_are_read_in_every_form(tmp_path: Path, marks: str) -> None:
    layout = bmdhs.read(bmdhs_folder(tmp_path, marks))
    assert column(layout, "label_disease") == ["Diseased", "Normal"]
    assert column(layout, "label_aortic_stenosis") == ["Present", "Absent"]


@pytest.mark.parametrize("marks", ["2,0,0,0,0", "yes,0,0,0,0", "1,,0,0,0", "1,0,0,0,N/A"])
def test_bmdhs_answers_that_are_none_are_refused_and_not_left_out(tmp_path: Path, marks: str) -> None:
    layout = bmdhs.read(bmdhs_folder(tmp_path, marks))
    assert refused(layout) == {"train/AS_001_sup_Mit.wav": "unknown_label"}
    assert "train.csv, line 2" in layout.refused["detail"][0]


def test_bmdhs_metadata_that_cannot_be_used_refuse_the_patient(tmp_path: Path) -> None:
    (bmdhs_folder(tmp_path) / "additional_metadata.csv").write_text("Patient ID,age,GENDER\npatient_001,450,F\n")
    assert refused(bmdhs.read(tmp_path)) == {"train/AS_001_sup_Mit.wav": "unknown_value"}


def test_pascals_tables_may_have_other_heads_and_numbers(tmp_path: Path) -> None:
    before = pascal.read(publisher_files.pascal(tmp_path))
    (tmp_path / "PCM_SHA256SUMS.txt").unlink(missing_ok=True)
    rewritten(tmp_path / "set_a.csv", lambda text: text.replace("fname", "FName").replace(",", ";"))
    timing = tmp_path / "set_a_timing.csv"
    rewritten(timing, lambda text: re.sub(r"(?m),(\d+)$", r",\1.0", text))
    after = pascal.read(tmp_path)
    assert column(after, "label_sound") == column(before, "label_sound")
    assert after.annotations.equals(before.annotations)
    rewritten(timing, lambda text: re.sub(r"(?m),(\d+)\.0$", ",soon", text, count=1))
    assert refused(pascal.read(tmp_path)) == {"set_a_timing.csv, line 2": "unknown_value"}


def test_physionets_answers_and_ages_are_read_in_every_form(tmp_path: Path) -> None:
    before = physionet2016.read(publisher_layouts.physionet2016(tmp_path))
    for part in tmp_path.glob("training-?"):
        rewritten(part / "REFERENCE.csv", lambda text: re.sub(r"(?m)(1)$", r"\1.0", text))
    appendix = tmp_path / "annotations" / "Online_Appendix_training_set.csv"
    rewritten(appendix, lambda text: text.replace("Subject ID", "subject_id").replace(",Male", ",MALE"))
    same_recordings(before, physionet2016.read(tmp_path))
    rewritten(appendix, lambda text: text.replace(",61.5,F", ",61.5 y,F"))
    assert refused(physionet2016.read(tmp_path)) == {"training-b/b0003.wav": "unknown_value"}


@pytest.mark.parametrize(("named", "hint"), [
    ("sounds/A.wav", ": is a.wav meant?"), ("a", ": is a.wav meant?"),
    ("Ka\u0308the.WAV", ": is sub/K\u00e4the.wav meant?"),
    ("a.flac", ": is a.wav meant?"), ("b.wav", ""),
])
def test_a_file_that_may_be_meant_is_named(tmp_path: Path, named: str, hint: str) -> None:
    (tmp_path / "sub").mkdir()
    for file in ("a.wav", "sub/K\u00e4the.wav"):
        (tmp_path / file).touch()
    assert Nearby(tmp_path).hint(named) == hint
