"""`heartml init`: a folder becomes a collection; what is guessed has a reason, what cannot be guessed a way out."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from heartml.cli.init import init
from heartml.data import new_collection
from heartml.data.datasets import generic
from heartml.data.new_collection import CollectionFolderError, guesses, mapping_text, survey
from heartml.data.new_collection.words import classes_of

GERMAN = ["Datei;Patienten-ID;Befund;Ort;Alter;Geschlecht;Gerät",
          *(f"töne/{p}_{ort}.wav;P{p};{'Mitralklick' if p % 2 else 'unauffällig'};{ort};{20 + p};{'wm'[p % 2]};Littmann"
            for p in range(12) for ort in ("Apex", "Aorta"))]


def touch(folder: Path, *names: str) -> Path:
    """Empty files: no sound is read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(folder: Path, lines: list[str], name: str = "recordings.csv", column: int = 0, separator: str = ",") -> Path:
    """A table and the files that its column names."""
    touch(folder, *(line.split(separator)[column] for line in lines[1:]))
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def plain(folder: Path, classes: str = "click none", per_class: int = 12) -> Path:
    """A table with a path and a label alone."""
    return table(folder, ["file,finding", *(f"r{k}.wav,{classes.split()[k % len(classes.split())]}"
                                           for k in range(per_class * len(classes.split())))])


def run(*arguments: object, ask: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(init, list(map(str, arguments)), input=ask, catch_exceptions=True)
    if isinstance(done.exception, CollectionFolderError):
        return 1, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_a_german_table_with_semicolons_is_understood(tmp_path: Path) -> None:
    folder = table(tmp_path / "Klinik Süd", GERMAN, "Daten.csv", separator=";")
    code, said = run(folder)
    assert code == 0, said
    assert f"next: heartml ingest generic {folder}/klinik_sud.yaml && heartml retrain" in said
    collection = generic.read_collection(folder / "klinik_sud.yaml")
    columns, values = collection.description.columns, collection.description.values
    assert (columns.path, columns.patient, columns.location, columns.age, columns.sex, columns.source) == (
        "Datei", "Patienten-ID", "Ort", "Alter", "Geschlecht", "Gerät")
    assert (values.location, values.sex) == ({"Aorta": "AV", "Apex": "MV"}, {"w": "Female"})
    assert collection.own_tasks["befund"].classes == ("Mitralklick", "unauffällig")
    assert collection.own_tasks["befund"].positive == "Mitralklick"
    assert len(collection.read(folder).recordings) == 24
    assert "# its name" in (folder / "klinik_sud.yaml").read_text()


def test_folders_are_classes_and_patients_come_from_names(tmp_path: Path) -> None:
    folder = touch(tmp_path / "hearts", *(f"{name}/p{p}_{place}.wav" for k, name in enumerate(("Clic tardif", "none"))
                                          for p in range(20 * k, 20 * k + 5) for place in ("AV", "MV")))
    touch(folder, "notes.txt", ".hidden/x.wav", "apart.wav")
    made = new_collection.plan(folder, {})
    assert (dict(made.counts), made.positive) == ({"Clic tardif": 10, "none": 10}, "Clic tardif")
    assert len(set(made.patients.values())) == 10
    assert any("in no class's folder: 1, such as apart.wav" in note for note in made.notes)
    collection, root = generic.open_collection(new_collection.write(made))
    found = collection.read(root).recordings
    assert found.groupby("label_class")["patient_id"].nunique().to_dict() == {"Clic tardif": 5, "none": 5}
    assert found["patient_id"].iloc[0] == "hearts-p0"
    touch(folder, "none/p99_AV.wav")
    again = new_collection.plan(folder, {})
    assert again.counts["none"] == 11, "what `init` wrote is not taken for the user's table"


def test_a_table_without_patients_gets_them_from_names_and_stays_as_it_is(tmp_path: Path) -> None:
    lines = ["file,finding", *(f"p{k // 2}_{k % 2}.wav,{('click', 'none')[k % 4 // 2]}" for k in range(40))]
    folder = table(tmp_path / "clinic", lines)
    before = (folder / "recordings.csv").read_bytes()
    collection, root = generic.open_collection(new_collection.write(new_collection.plan(folder, {})))
    assert collection.description.table == "clinic_recordings.csv"
    assert collection.read(root).recordings["patient_id"].nunique() == 20
    assert (folder / "recordings.csv").read_bytes() == before
    without = new_collection.plan(folder, {"patient": new_collection.NOTHING})
    assert not without.patients
    assert mapping_text.table(without) is None


@pytest.mark.parametrize("names", [
    ["normal_1", "normal_2", "click_1", "click_2"],             # the classes
    ["p1", "p2", "p3", "p4"],                                   # no separator
    ["a1_x", "a2_x", "a3_x", "a4_x"],                           # each its own: says nothing
    ["2024_x", "2024_y", "2024_z", "2024_q"],                   # all the same
    ["anna_1", "anna_2", "ben_1", "ben_2", "cleo_1", "cleo_2"],     # words without a number may be anything
])
def test_a_pattern_that_is_not_plain_is_no_patient(tmp_path: Path, names: list[str]) -> None:
    folder = touch(tmp_path / "x", *(f"{('normal', 'click')[k % 2]}/{name}.wav" for k, name in enumerate(names)))
    made = new_collection.plan(folder, {})
    assert not made.patients
    assert any("nobody knows the patients: each recording is a group of its own" in note for note in made.notes)


def test_a_pattern_that_has_the_class_in_it_is_no_patient(tmp_path: Path) -> None:
    folder = touch(tmp_path / "x", *(f"{name}/{name}_{k}.wav" for name in ("S3", "S4") for k in range(2)),
                   *(f"S3/p{k}_{take}.wav" for k in range(4) for take in "ab"))
    assert not new_collection.plan(folder, {}).patients


def test_two_columns_that_could_be_the_label_are_named(tmp_path: Path) -> None:
    lines = ["file,rhythm,finding,loudness", *(f"r{k}.wav,{'ab'[k % 2]},{'xyz'[k % 3]},0.{k}" for k in range(12))]
    folder = table(tmp_path / "c", lines)
    made = new_collection.plan(folder, {})
    assert made.label == guesses.Guess("finding", "its name", ("rhythm",))
    assert "finding and rhythm could all be the label. finding is taken: its name; --label rhythm" in made.notes[0]
    assert list(new_collection.plan(folder, {"label": "RHYTHM"}).counts) == ["a", "b"]
    with pytest.raises(CollectionFolderError, match="'rythm' is no column: there are file, rhythm, finding"):
        new_collection.plan(folder, {"label": "rythm"})


def test_none_is_a_class_only_where_no_cell_is_empty() -> None:
    assert classes_of(["none", "a", "a"])[1] == {"a": 2, "none": 1}
    assert classes_of(["none", "a", "a", "b", ""])[1] == {"a": 2, "b": 1}
    assert classes_of(["N/A", "a", "b"])[1] == {"a": 1, "b": 1}


@pytest.mark.parametrize(("classes", "expected"), [
    ("click none", {"click": 12, "none": 12}),
    ("Click click none", {"Click": 24, "none": 12}),
    ("0 1", {"1": 12, "0": 12}),
    ("a b c d e f g", dict.fromkeys("abcdefg", 12)),
    ("+ -", {"positive": 12, "negative": 12}),
])
def test_what_is_written_is_read_as_it_was_meant(tmp_path: Path, classes: str, expected: dict[str, int]) -> None:
    made = new_collection.plan(plain(tmp_path / "clinic", classes), {})
    assert made.counts == expected
    collection, root = generic.open_collection(new_collection.write(made))
    assert collection.own_tasks["finding"].classes == tuple(expected)
    assert collection.read(root).recordings["label_finding"].value_counts().to_dict() == expected


@pytest.mark.parametrize("words", [("yes", "no"), ("a: b", "- c #"), ("{x}", "[y]"), ("null", "*a"), ("'q'", '"r"')])
def test_no_word_breaks_the_mapping_file(tmp_path: Path, words: tuple[str, str]) -> None:
    folder = touch(tmp_path / "c", *(f"r{k}.wav" for k in range(8)))
    quoted = [word.replace('"', '""') for word in words]
    text = "\n".join(['file,"find: #ing"', *(f'r{k}.wav,"{quoted[k % 2]}"' for k in range(8))])
    (folder / "t.csv").write_text(text)
    expected = [word for word in words if word != "null"]
    if len(expected) < 2:
        with pytest.raises(CollectionFolderError):
            new_collection.plan(folder, {"label": "find: #ing"})
        return
    collection, root = generic.open_collection(new_collection.write(new_collection.plan(folder, {})))
    assert set(collection.read(root).recordings["label_find_ing"]) == {word.removeprefix("- ") for word in expected}


def test_what_costs_something_is_said(tmp_path: Path) -> None:
    lines = ["file,finding,age", *(f"r{k}.wav,{'xy'[k > 0]},{k}y" for k in range(20)), "r1.wav,y,1y", "gone.wav,y,3y",
             "r0.wav,,2y"]
    folder = table(tmp_path / "c", lines)
    (folder / "gone.wav").unlink()
    touch(folder, "extra.wav")
    made = new_collection.plan(folder, {})
    said = "\n".join(made.notes)
    for words in ("rows without a label: 1", "few recordings of x (1)", "name no file that is here: 1 of 23",
                  "rows that repeat a file: 2", "that no row names: 1, such as extra.wav", "nobody knows the patients"):
        assert words in said
    assert made.columns["age"].reason == "age has '0y', and an age is years without a unit"


def test_few_persons_are_counted_not_recordings(tmp_path: Path) -> None:
    """Forty recordings of two persons with one class each: nobody can be tested on whom nobody was trained on."""
    lines = ["file,finding,patient", *(f"r{k}.wav,{'Xy'[k % 2]},p{k % 2}" for k in range(40)), "r40.wav,x,p0"]
    notes = "\n".join(new_collection.plan(table(tmp_path / "c", lines), {}).notes)
    assert "few patients of X (1), y (1)" in notes
    lines[1] = "r0.wav,X,NA"                                    # nobody, and no second person
    notes = "\n".join(new_collection.plan(table(tmp_path / "d", lines), {}).notes)
    assert "few patients of X (1), y (1)" in notes


def broken(folder: Path, kind: str) -> Path:
    folder.mkdir()
    if kind == "no sounds":
        (folder / "t.csv").write_text("file,label\n")
    if kind == "no rows":
        touch(folder, "a.wav")
        (folder / "t.csv").write_text("file,label\n")
    if kind == "other paths":
        touch(folder, "sounds/r1.wav", "more/r2.wav")
        (folder / "t.csv").write_text("file,label\nr1,a\nr2,b\n")
    if kind == "no path column":
        touch(folder, "a.wav", "b.wav")
        (folder / "t.csv").write_text("number,label\n7,x\n8,y\n")
    if kind == "latin":
        touch(folder, "a.wav")
        (folder / "t.csv").write_bytes("file,label\na.wav,Geräusch\n".encode("cp1252"))
    if kind == "spreadsheet":
        touch(folder, "a.wav", "t.xlsx")
    if kind == "flat":
        touch(folder, "a.wav", "b.wav")
    if kind == "one folder":
        touch(folder, "x/a.wav", "x/b.wav")
    if kind == "split":
        touch(folder, "train/a.wav", "Test/b.wav")
    if kind == "two tables":
        plain(folder)
        (folder / "second.csv").write_text((folder / "recordings.csv").read_text())
    if kind == "one class":
        plain(folder, "click")
    if kind == "no label":
        table(folder, ["file,note", *(f"r{k}.wav,word{k}" for k in range(9))])
    return folder


@pytest.mark.parametrize(("kind", "words"), [
    ("no sounds", "no sound files in it"), ("no rows", r"t\.csv: the table has no rows below"),
    ("other paths", r"column file names 0 of 2 sound files as they lie here\. Line 2: 'r1': is sounds/r1\.wav meant\?"),
    ("no path column", "no column names the sound files of this folder among number, label"),
    ("latin", r"t\.csv: not UTF-8: line 2, byte .* save it as UTF-8"),
    ("spreadsheet", r"t\.xlsx: a spreadsheet, which is not read: save it as CSV UTF-8"),
    ("flat", "no table, and its sound files lie side by side. Put the recordings of each class into a folder"),
    ("one folder", "no table, and all sound files lie in x/"),
    ("split", "Test, train look like parts of a split and not like classes"),
    ("two tables", r"2 tables name its sound files: choose one with --table recordings\.csv \(or second\.csv\)"),
    ("one class", r"no column can be the label: one with 2 to 30 words"),
    ("no label", r"no column can be the label: one with 2 to 30 words, each in several rows\. There are file, note"),
])
def test_a_folder_that_is_no_collection_gets_a_way_out(tmp_path: Path, kind: str, words: str) -> None:
    folder = broken(tmp_path / "c", kind)
    before = sorted(folder.rglob("*"))
    with pytest.raises(CollectionFolderError, match=words):
        new_collection.plan(folder, {})
    assert sorted(folder.rglob("*")) == before


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    folder = plain(tmp_path / "clinic")
    assert run(folder)[0] == 0
    written = (folder / "clinic.yaml").read_text()
    (folder / "clinic.yaml").write_text(written + "# my corrections\n")
    code, said = run(folder)
    assert (code, "nothing is overwritten without --force" in said) == (1, True)
    assert (folder / "clinic.yaml").read_text().endswith("# my corrections\n")
    assert run(folder, "--force")[0] == 0
    assert (folder / "clinic.yaml").read_text() == written
    assert run(folder, "--name", "Other")[1].startswith("--name 'Other': small letters")
    assert run(folder, "--name", "pascal")[0] == 1
    assert run(tmp_path / "gone")[1].endswith("gone: no such folder. Name the one with your sound files")


def test_json_has_every_guess_and_reason(tmp_path: Path) -> None:
    code, said = run(plain(tmp_path / "clinic"), "--json")
    found = json.loads(said)
    assert (code, found["task"], found["classes"]) == (0, "clinic-finding", {"click": 12, "none": 12})
    assert found["columns"]["path"] == {"column": "file", "reason": "names 24 files"}
    assert found["next"] == f"heartml ingest generic {tmp_path}/clinic/clinic.yaml"


def test_on_a_terminal_each_guess_can_be_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["file,who,rhythm,finding", *(f"p{k // 2}_{k % 2}.wav,w{k // 4},{'ab'[k % 2]},{'xy'[k // 2 % 2]}"
                                         for k in range(24))]
    folder = table(tmp_path / "c", lines)
    monkeypatch.setattr("heartml.cli.init._on_a_terminal", lambda: True)
    code, said = run(folder, ask="ward\nrhythm\nwho\n")
    assert code == 0, said
    assert "column with the classes (its name) [finding]" in said
    found = generic.read_collection(folder / "ward.yaml").description
    assert (found.columns.patient, list(found.tasks)) == ("who", ["rhythm"])
    code, said = run(folder, ask="other\n\n\nn\n")
    assert "is p0 the patient of p0_0.wav? [Y/n]" in said
    assert "you named it" not in said              # a guess that Enter takes keeps its reason
    assert generic.read_collection(folder / "other.yaml").description.columns.patient is None


def test_a_table_that_names_no_sound_gives_way_to_folders_and_is_named(tmp_path: Path) -> None:
    folder = touch(tmp_path / "c", *(f"{name}/{k}.wav" for name in "ab" for k in range(3)))
    (folder / "readme.csv").write_text("word,meaning\na,first\n")
    made = new_collection.plan(folder, {})
    assert made.survey.table is None
    assert any("readme.csv: no column names the sound files" in note for note in made.notes)
    with pytest.raises(CollectionFolderError, match=r"readme\.csv: no column names"):
        new_collection.plan(folder, {}, "readme.csv")
    with pytest.raises(CollectionFolderError, match="no such table in this folder"):
        survey.read(folder, "../x.csv")
