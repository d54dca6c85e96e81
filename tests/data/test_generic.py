"""Any labelled collection: a mapping file says what a CSV's columns are; a mistake in it is named by its key."""

import json
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
import support.publisher_layouts as made
from support.publisher_files import beating_noise, wav_bytes
from support.workspaces import Workspace

from heartml.audio import containers
from heartml.core import paths
from heartml.core.system import untrusted
from heartml.core.tasks import TASKS
from heartml.data import datasets, ingest
from heartml.data.datasets import Layout, LayoutError, generic, mapping_file
from heartml.data.ingest import available_tasks


def read(folder: Path) -> Layout:
    source, root = datasets.open_dataset("generic", folder)
    return source.read(root)


def reasons(layout: Layout) -> dict[str, str]:
    return dict(zip(layout.refused["source_file"], layout.refused["reason"], strict=True))


def with_key(path: str, value: object) -> dict[str, object]:
    """The mapping with one key, `labels.murmur.column`, set to a value, or taken out (`None`)."""
    mapping = json.loads(json.dumps(made.MAPPING))
    *above, last = path.split(".")
    inner = mapping
    for key in above:
        inner = inner.setdefault(key, {})
    if value is None:
        inner.pop(last)
    else:
        inner[last] = value
    return mapping


def test_columns_and_values_mean_what_the_mapping_says(tmp_path: Path) -> None:
    row = read(made.generic(tmp_path, "clinic")).recordings.set_index("source_file").loc["sounds/1_apex.wav"]
    assert row.drop(["file_sha256", "pcm_sha256", "samples"]).to_dict() == {
        "patient_id": "clinic-P1", "group": "clinic-P1", "source": "Littmann", "location": "MV", "age_group": "30-39",
        "sex": "Male", "session": None, "publisher_quality": None, "label_murmur": "Absent",
        "label_murmur_here": "Absent",
    }


def test_without_a_patient_every_recording_is_a_group_of_its_own(tmp_path: Path) -> None:
    labels = {"normal": {"column": "murmur", "classes": {"yes": "Abnormal", "no": "Normal"}}}
    table = read(made.generic(tmp_path, columns={"path": "file"}, labels=labels)).recordings
    assert table["patient_id"].isna().all()
    assert table["group"].is_unique
    assert set(table["label_normal"]) == {"Abnormal", "Normal"}


def test_a_group_may_be_more_than_a_patient(tmp_path: Path) -> None:
    columns = {"path": "file", "patient": "subject", "group": "device"}
    assert read(made.generic(tmp_path, columns=columns)).recordings["group"].unique().tolist() == ["generic-Littmann"]


def test_yes_and_1_are_words_of_the_table(tmp_path: Path) -> None:
    text = (made.generic(tmp_path) / "generic.yaml").read_text()
    (tmp_path / "generic.yaml").write_text(text.replace("'yes': Present", "yes: Present").replace("'no':", "no:"))
    assert set(read(tmp_path).recordings["label_murmur"]) == {"Present", "Absent"}


@pytest.mark.parametrize(("key", "value", "words"), [
    ("title", None, "title: Field required"),
    ("colums", {}, "colums: Extra inputs are not permitted"),
    ("columns.pathh", "file", "columns.pathh: Extra inputs"),
    ("columns.path", "fille", r"columns.path: 'fille' is no column of recordings.csv, there are file, subject"),
    ("labels.murmur.column", "heart", r"labels.murmur.column: 'heart' is no column"),
    ("labels", {}, "labels: "),
    ("labels.murmurs", {"column": "murmur"}, "labels.murmurs: no such task, there are murmur, outcome"),
    ("labels.murmur.classes", {"yes": "Loud"}, "labels.murmur.classes: 'Loud' is none of Present, Unknown, Absent"),
    ("columns.patient", None, "columns.patient: labels.murmur is about patients"),
    ("values.location", {"apex": "apical"}, "values.location: 'apical' is none of AV, PV, TV, MV, Phc"),
    ("values.place", {}, "values.place: Extra inputs"),
    ("table", "../recordings.csv", "table: no file ../recordings.csv"),
])
def test_a_mistake_in_the_mapping_is_named_by_its_key(tmp_path: Path, key: str, value: object, words: str) -> None:
    folder = made.generic(tmp_path)
    (folder / "generic.yaml").write_text(json.dumps(with_key(key, value)))     # JSON is YAML
    with pytest.raises(LayoutError, match=words):
        read(folder)


@pytest.mark.parametrize("name", ["pascal", "my-clinic", "a+b", "Clinic", "7seas"])
def test_a_name_that_a_task_could_not_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayoutError, match="small letters"):
        read(made.generic(tmp_path, name))


def test_a_table_without_rows_is_named_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made.generic(tmp_path)
    table, reads = folder / "recordings.csv", []
    former = untrusted.read_text
    monkeypatch.setattr(untrusted, "read_text", lambda path, **how: reads.append(path) or former(path, **how))
    read(folder)
    assert reads.count(table) == 1
    table.write_text(table.read_text().partition("\n")[0] + "\n")
    with pytest.raises(LayoutError, match=r"recordings\.csv: the table has no rows below the names of its columns"):
        read(folder)


@pytest.mark.parametrize("text", ["title: [", "just words", "\x00"])
def test_what_is_no_mapping_is_told_plainly(tmp_path: Path, text: str) -> None:
    (made.generic(tmp_path) / "generic.yaml").write_text(text)
    with pytest.raises(LayoutError, match=r"generic\.yaml"):
        read(tmp_path)


def test_of_several_mapping_files_one_must_be_named(tmp_path: Path) -> None:
    made.generic(tmp_path, "one")
    made.generic(tmp_path, "two")
    with pytest.raises(LayoutError, match=r"2 mapping files: name one of one\.yaml, two\.yaml"):
        read(tmp_path)
    assert read(tmp_path / "two.yaml").recordings["group"].str.startswith("two-").all()


def test_rows_and_files_that_do_not_meet_are_refused(tmp_path: Path) -> None:
    folder = made.generic(tmp_path)
    (folder / "sounds" / "0_apex.wav").unlink()
    (folder / "sounds" / "forgotten.wav").write_bytes(wav_bytes(beating_noise(1)))
    (folder / "sounds" / "notes.txt").write_text("no sound, no matter")
    with (folder / "recordings.csv").open("a") as table:
        table.write("../secret.wav,P9,apex,30,f,Littmann,yes\n,P9,apex,30,f,Littmann,yes\n"
                    "sounds/1_apex.wav,P1,apex,37,m,Littmann,yes\nsounds/2_apex.wav,P2,apex,44,f,Littmann,yes\n")
    assert reasons(read(folder)) == {
        "sounds/0_apex.wav": "missing_file", "sounds/forgotten.wav": "missing_row", "../secret.wav": "outside",
        "recordings.csv": "missing_file", "sounds/1_apex.wav": "contradiction",
    }
    assert (read(folder).recordings["source_file"] == "sounds/2_apex.wav").sum() == 1, "the same row twice is one row"


def test_sound_of_every_form_that_no_row_names_is_refused_by_name(tmp_path: Path) -> None:
    folder = made.generic(tmp_path)
    for ending in containers.SUFFIXES:
        (folder / "sounds" / f"forgotten{ending.upper()}").write_bytes(b"never opened")
    found = {name: reason for name, reason in reasons(read(folder)).items() if "forgotten" in name}
    assert found == {f"sounds/forgotten{ending.upper()}": "missing_row" for ending in containers.SUFFIXES}


def test_a_name_in_the_other_unicode_form_is_the_same_file(tmp_path: Path) -> None:
    for table, disk in (("NFC", "NFD"), ("NFD", "NFC")):
        folder = made.generic(tmp_path / table)
        named, there = (unicodedata.normalize(form, "sounds/K\u00e4the.wav") for form in (table, disk))
        (folder / "sounds" / "1_apex.wav").rename(folder / there)
        text = (folder / "recordings.csv").read_text("utf-8").replace("sounds/1_apex.wav", named)
        (folder / "recordings.csv").write_text(text, "utf-8")
        assert there in set(read(folder).recordings["source_file"])
        assert reasons(read(folder)) == {}


def test_an_answer_without_a_meaning_is_refused_by_name(here: Workspace, tmp_path: Path) -> None:
    folder = made.generic(tmp_path / "clinic", "clinic")
    table = folder / "recordings.csv"
    text = table.read_text().replace("Littmann,yes", "Littmann,perhaps", 1)
    table.write_text(text.replace("Littmann,no", "Littmann,", 1))
    outcome = ingest.run("generic", folder)
    assert outcome.quarantined == {"unknown_label": 1}
    assert "murmur is 'perhaps'" in pd.read_parquet(paths.QUARANTINE)["detail"][0]
    assert (outcome.recordings, outcome.labelled) == (11, 10)


def test_several_collections_live_in_one_data(here: Workspace, tmp_path: Path) -> None:
    first = made.generic(tmp_path / "a", "clinic")
    second = made.generic(tmp_path / "b", "ward", first=420, title="Another clinic", licence="CC0-1.0")
    assert ingest.run("generic", first).dataset == "clinic"
    before = pd.read_parquet(paths.RECORDINGS)
    ingest.run("generic", second / "ward.yaml")
    table = pd.read_parquet(paths.RECORDINGS)
    pd.testing.assert_frame_equal(table[table["dataset"] == "clinic"].reset_index(drop=True), before)
    assert table.groupby("dataset")["licence"].first().to_dict() == {"clinic": "CC-BY-4.0", "ward": "CC0-1.0"}
    assert [task.name for task in available_tasks.read()] == ["clinic-murmur", "ward-murmur", "clinic+ward-murmur"]
    assert datasets.load("ward").TITLE == "Another clinic"
    assert not ingest.run("generic", first).changed
    assert not ingest.run("generic", second).changed


def test_a_collections_mapping_is_part_of_the_version(here: Workspace, tmp_path: Path) -> None:
    folder = made.generic(tmp_path / "a", "clinic")
    ingest.run("generic", folder)
    assert paths.collection("clinic").read_text() == (folder / "clinic.yaml").read_text()
    made.generic(tmp_path / "a", "clinic", title="A better title")
    assert ingest.run("generic", folder).changed
    assert datasets.load("clinic").TITLE == "A better title"


def test_more_recordings_of_a_known_collection_need_no_mapping_file(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", made.generic(tmp_path / "a", "clinic"))
    more = made.generic(tmp_path / "b", "clinic", patients=8)
    (more / "clinic.yaml").unlink()
    outcome = ingest.run("clinic", more)
    assert (outcome.recordings, outcome.new) == (16, 4)


def test_the_command_takes_the_mapping_file_and_says_what_is_wrong(here: Workspace, tmp_path: Path) -> None:
    folder = made.generic(tmp_path / "a", "clinic")
    printed = here.run("ingest", "generic", folder / "clinic.yaml").stdout
    assert "data set clinic" in printed
    assert "tasks is now [clinic-murmur]" in printed
    (folder / "clinic.yaml").write_text("title: x\n")
    done = here.run("ingest", "generic", folder, check=False)
    assert done.returncode == 1
    assert "clinic.yaml: citation: Field required; licence: Field required" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_names_every_key_of_a_mapping_file(here: Workspace) -> None:
    told = here.run("ingest", "--help").stdout
    keys = {*mapping_file.CollectionMapping.model_fields, *mapping_file.Columns.model_fields} - {"publisher"}
    assert all(f"{key}:" in told for key in keys), sorted(key for key in keys if f"{key}:" not in told)


def test_every_task_can_be_a_collections(tmp_path: Path) -> None:
    for name, task in TASKS.items():
        folder = made.generic(tmp_path / name, patients=1, labels={name: {"column": "murmur", "classes": {
            "yes": task.classes[0]}}})
        assert set(read(folder).recordings[f"label_{task.label}"]) == {task.classes[0]}


def test_a_table_in_the_place_of_the_mapping_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"recordings.csv: this is a table; give the mapping file"):
        generic.open_collection(made.generic(tmp_path, "clinic") / "recordings.csv")
