"""A collection declares a task of its own: any classes; what is wrong is named, what changes is said."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import support.publisher_layouts as made
import yaml
from support.workspaces import Workspace

from heartml.core import config, paths, tasks
from heartml.core.system.files import write_json
from heartml.core.task_definition import DECIDING, REPORTED, Declared, Task
from heartml.core.tasks import TaskError
from heartml.data import datasets, ingest
from heartml.data.datasets import LayoutError, generic
from heartml.data.ingest import available_tasks, declared_tasks, version
from heartml.data.ingest.declared_tasks import DeclarationError
from heartml.data.validation import expectations, tables
from heartml.metrics import METRICS

PEDAL = {"column": "murmur", "classes": ["yes", "no", "perhaps"], "positive": "yes"}
SITES = {"column": "site", "classes": {"apex": "Clic mésosystolique", "tricuspid": "none"}, "metric": "macro_f1"}


def clinic(folder: Path, name: str = "clinic", **changed: Any) -> Path:
    """A clinic whose mapping file declares the task `pedal`; `changed` are keys of it, `None` takes one out."""
    own = {key: value for key, value in {**PEDAL, **changed}.items() if value is not None}
    return made.generic(folder, name, patients=2, first=400 if name == "clinic" else 420, labels={},
                        tasks={"pedal": own})


def read(folder: Path) -> pd.DataFrame:
    source, root = datasets.open_dataset("generic", folder)
    return source.read(root).recordings


def with_words(folder: Path, *pairs: tuple[str, str]) -> None:
    """Put other words into the rows of the table."""
    table = folder / "recordings.csv"
    text = table.read_text()
    for old, new in pairs:
        text = text.replace(old, new)
    table.write_text(text)


def test_classes_are_words_of_the_column_or_what_they_mean(tmp_path: Path) -> None:
    folder = made.generic(tmp_path, labels={}, tasks={"pedal": PEDAL, "place": SITES})
    with_words(folder, ("0_apex.wav,P0,apex,30,f,Littmann,yes", "0_apex.wav,P0,apex,30,f,Littmann, YES "),
               ("Littmann,no", "Littmann,maybe"))
    labels = read(folder).set_index("source_file")[["label_pedal", "label_place"]]
    assert labels.loc["sounds/0_apex.wav"].tolist() == ["yes", "Clic mésosystolique"]
    assert labels.loc["sounds/1_tricuspid.wav"].tolist() == ["maybe", "none"], "ingest refuses `maybe` by name"


def test_none_is_a_class_where_the_mapping_says_so_and_an_empty_class_is_no_label(tmp_path: Path) -> None:
    own = {"column": "murmur", "classes": {"yes": "", "no": "none", "perhaps": "click"}}
    folder = made.generic(tmp_path, labels={}, tasks={"pedal": own})
    assert set(read(folder)["label_pedal"].fillna("-")) == {"-", "none"}


@pytest.mark.parametrize(("name", "changed", "words"), [
    ("Pedal type", {}, r"tasks\.Pedal type: 'Pedal type' is no task's name: a small letter"),
    ("a-b", {}, "is no task's name"),
    ("sound", {}, "sound is the name of a published task or label"),
    ("diseases", {}, "diseases is the name of a published task or label"),
    ("normal", {}, r"tasks\.normal: this name is a published task's, with the classes Abnormal, Normal\. Give yours"),
    ("pedal", {"classes": ["yes"]}, r"tasks\.pedal\.classes: 1 named, and a task has 2 to 50 classes"),
    ("pedal", {"classes": ["yes", "yes"]}, r"tasks\.pedal\.classes: .*'yes' is there twice"),
    ("pedal", {"classes": ["yes", "Yes"]}, "'yes' and 'Yes' are one class in two spellings"),
    ("pedal", {"classes": ["yes", "REFER"]}, "'REFER' stands for a decision that is left to a human"),
    ("pedal", {"classes": ["yes", "ｒｅｆｅｒ"]}, "stands for a decision that is left to a human"),
    ("pedal", {"classes": [["yes"], "no"]}, r"tasks\.pedal\.classes: .*\['yes'\] is no word: write a list of words"),
    ("pedal", {"classes": [{"yes": "a"}, "no"]}, r"tasks\.pedal\.classes: .* is no word"),
    ("pedal", {"positive": None, "classes": {"yes": "a", "Yes": "b"}}, "one word in two spellings, and mean 'a' and"),
    ("pedal", {"official": ["uar", "uar"]}, r"tasks\.pedal\.official: 'uar' is there twice"),
    ("pedal", {"official": []}, r"tasks\.pedal\.official: there is none"),
    ("pedal", {"classes": ["yes", "=1+1"]}, "'=1\\+1' begins like a formula, which a spreadsheet would calculate"),
    ("pedal", {"classes": ["yes", "n" * 61]}, "is no class's name: 1 to 60 printable characters"),
    ("pedal", {"classes": ["yes", "no\nline"]}, "is no class's name"),
    ("pedal", {"classes": None}, r"tasks\.pedal\.classes: Field required"),
    ("pedal", {"positive": "gone"}, r"tasks\.pedal\.positive: 'gone' is none of yes, no, perhaps"),
    ("pedal", {"metric": "outcome_cost"}, r"tasks\.pedal\.metric: 'outcome_cost' is none of uar, accuracy, macro_f1"),
    ("pedal", {"official": ["brier"]}, r"tasks\.pedal\.official: 'brier' is none of"),
    ("pedal", {"unit": "heart"}, r"tasks\.pedal\.unit: Input should be 'recording' or 'patient'"),
    ("pedal", {"column": "gone"}, r"tasks\.pedal\.column: 'gone' is no column of recordings\.csv"),
    ("pedal", {"colum": "x"}, r"tasks\.pedal\.colum: Extra inputs"),
])
def test_a_mistake_in_a_declared_task_is_named(tmp_path: Path, name: str, changed: dict[str, Any], words: str) -> None:
    own = {key: value for key, value in {**PEDAL, **changed}.items() if value is not None}
    folder = made.generic(tmp_path, patients=1, labels={}, tasks={name: own})
    with pytest.raises(LayoutError, match=words):
        read(folder)


def test_a_task_about_patients_needs_patients(tmp_path: Path) -> None:
    folder = made.generic(tmp_path, patients=1, labels={}, columns={"path": "file"},
                          tasks={"pedal": {**PEDAL, "unit": "patient"}})
    with pytest.raises(LayoutError, match=r"columns\.patient: tasks\.pedal is about patients"):
        read(folder)


def test_a_published_task_with_its_own_classes_stays_the_published_one(tmp_path: Path) -> None:
    own = {"column": "murmur", "classes": {"yes": "Abnormal", "no": "Normal"}, "unit": "recording"}
    source, _ = datasets.open_dataset("generic", made.generic(tmp_path, labels={}, tasks={"normal": own}))
    assert source.TASKS == ("normal",)
    assert not generic.own_tasks(source)
    folder = made.generic(tmp_path, labels={}, tasks={"normal": {**own, "metric": "accuracy"}})
    with pytest.raises(LayoutError, match=r"tasks\.normal\.metric: 'accuracy', but normal is a published task"):
        read(folder)


def test_a_task_about_hearts_does_not_become_one_about_lungs_by_its_name(tmp_path: Path) -> None:
    """`sex` of a collection of hearts: its encoders and limits would be those of lungs, without a word."""
    own = {"column": "murmur", "classes": {"yes": "Female", "no": "Male"}, "unit": "recording"}
    with pytest.raises(LayoutError, match=r"tasks\.sex\.organ: 'heart', but sex .* Write `organ: lung`, or give"):
        read(made.generic(tmp_path / "a", labels={}, tasks={"sex": own}))
    folder = made.generic(tmp_path / "b", labels={}, tasks={"sex": {**own, "organ": "lung"}})
    assert datasets.open_dataset("generic", folder)[0].TASKS == ("sex",)


def test_what_was_declared_before_its_name_was_published_stays_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Task("sex", "sex", ("F", "M", "X"), "patient", "accuracy", tasks.TASKS["sex"].official)
    stored = Declared(own)
    write_json(paths.declared_tasks("clinic"), {"sex": stored.to_json()})
    assert tasks.resolve("clinic-sex").task == own
    assert tasks.resolve("coswara-sex").task.organ == "lung"


def test_metrics_of_declared_tasks_are_metrics_of_decisions() -> None:
    assert all(METRICS[name].kind == "decisions" and METRICS[name].greater_is_better for name in DECIDING)
    assert all(name in METRICS for name in REPORTED)


def test_ingest_stores_the_task_without_classes_that_nobody_has(here: Workspace, tmp_path: Path) -> None:
    outcome = ingest.run("generic", clinic(tmp_path / "a"))
    assert outcome.notes == ("clinic-pedal: recordings of yes 2, no 2; no recording is perhaps, which is left out.",)
    assert outcome.tasks == ("clinic-pedal",)
    found = tasks.resolve("clinic-pedal").task
    assert (found.classes, found.unit, found.metric, found.positive) == (("yes", "no"), "recording", "uar", "yes")
    stored = json.loads(paths.declared_tasks("clinic").read_text())
    assert stored["pedal"]["absent"] == ["perhaps"]
    assert [(task.name, [c.name for c in task.classes]) for task in available_tasks.read()] == [
        ("clinic-pedal", ["yes", "no"])]
    assert available_tasks.select_tasks(["clinic-pedal"], 10) == ("clinic-pedal",)
    assert not ingest.run("generic", tmp_path / "a").changed


def test_stages_notice_another_declaration_by_the_table_of_recordings(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    before = paths.RECORDINGS.read_bytes()
    assert version.TASKS_DIGEST.encode() in pq.read_schema(paths.RECORDINGS).metadata
    outcome = ingest.run("generic", clinic(tmp_path / "a", metric="accuracy"))
    assert outcome.notes[0] == "clinic-pedal has changed: metric uar and accuracy (before and now)."
    assert paths.RECORDINGS.read_bytes() != before
    pd.testing.assert_frame_equal(version.read().recordings, pd.read_parquet(paths.RECORDINGS))


def test_other_classes_are_refused_unless_the_folder_replaces_everything(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    before = paths.RECORDINGS.read_bytes()
    other = clinic(tmp_path / "b", classes=["yes", "no"])
    with pytest.raises(DeclarationError, match=r"other classes yes, no, perhaps and yes, no \(before and now\).*--"):
        ingest.run("generic", other)
    assert paths.RECORDINGS.read_bytes() == before
    assert ingest.run("generic", other, replace=True).notes[0].startswith("clinic-pedal has changed: classes yes, no")
    assert tasks.resolve("clinic-pedal").task.classes == ("yes", "no")


def test_a_later_ingest_brings_a_class_that_was_absent(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    more = made.generic(tmp_path / "b", "clinic", patients=3, labels={}, tasks={"pedal": PEDAL})
    rows = (more / "recordings.csv").read_text().splitlines()
    for row in rows[1:5]:
        (more / row.split(",")[0]).unlink()
    (more / "recordings.csv").write_text("\n".join([rows[0], *rows[5:]]).replace("Littmann,yes", "Littmann,perhaps"))
    outcome = ingest.run("clinic", more)     # with the mapping file that is stored
    assert outcome.notes == ("clinic-pedal: recordings of yes 2, no 2, perhaps 2.",)
    assert tasks.resolve("clinic-pedal").task.classes == ("yes", "no", "perhaps")


def test_a_task_with_one_class_left_changes_nothing_and_tells_the_way_out(here: Workspace, tmp_path: Path) -> None:
    folder = clinic(tmp_path / "a")
    with_words(folder, ("Littmann,no", "Littmann,yes"))
    with pytest.raises(DeclarationError, match=r"clinic-pedal: every labelled recording is yes, none is no or perhaps"):
        ingest.run("generic", folder)
    assert not paths.DATA.exists()
    assert not version.BUILD.exists()


def test_a_withdrawal_that_leaves_one_class_makes_the_task_an_error_with_a_way_out(
    here: Workspace, tmp_path: Path
) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    table = version.read()
    left = table.recordings[table.recordings["label_pedal"] == "yes"]
    version.publish(version.build(version.DatasetTables(left, table.annotations, table.quarantine, table.withdrawn),
                                  version.BUILD / "audio", {}))
    with pytest.raises(TaskError, match="clinic-pedal: only yes has recordings; a task needs two classes"):
        tasks.resolve("clinic-pedal")
    assert available_tasks.read() == []


def test_collections_that_declare_the_same_are_joined(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    ward = clinic(tmp_path / "b", "ward", classes=["no", "perhaps", "yes"])
    with_words(ward, ("Littmann,no", "Littmann,perhaps"))
    ingest.run("generic", ward)
    found = tasks.resolve("clinic+ward-pedal")
    assert (found.datasets, found.task.classes) == (("clinic", "ward"), ("yes", "no", "perhaps"))
    assert [task.name for task in available_tasks.read()] == ["clinic-pedal", "ward-pedal", "clinic+ward-pedal"]


def test_collections_that_declare_different_tasks_of_one_name_are_not_joined(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    ingest.run("generic", clinic(tmp_path / "b", "ward", classes=["yes", "no", "gone"], unit="patient"))
    with pytest.raises(TaskError, match=r"clinic and ward declare different tasks: classes yes, no, perhaps and yes, "
                                        r"no, gone; unit recording and patient\. Declare the same"):
        tasks.resolve("clinic+ward-pedal")
    assert [task.name for task in available_tasks.read()] == ["clinic-pedal", "ward-pedal"]
    with pytest.raises(TaskError, match=r"Did you mean clinic-pedal\?"):
        tasks.resolve("clinic-pedals")
    with pytest.raises(TaskError, match="pascal declares no task pedal"):
        tasks.resolve("clinic+pascal-pedal")
    with pytest.raises(TaskError, match=r"no pascal in data/: `heartml ingest pascal DIR` brings it"):
        available_tasks.select_tasks(["clinic+pascal-pedal"], 10)
    with pytest.raises(TaskError, match=r"tiny-pedal: no tiny in data/, where there are clinic, ward"):
        available_tasks.select_tasks(["tiny-pedal"], 10)
    own = tasks.declared_by(["clinic", "ward"])
    found = tables.patient_table(pd.read_parquet(paths.RECORDINGS).assign(
        label_pedal=["yes", "no"] * 4), own).set_index("dataset")
    assert found["contradiction"].notna().groupby("dataset").any().to_dict() == {"clinic": False, "ward": True}


def test_validation_knows_the_classes_of_declared_tasks(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    recordings, own = pd.read_parquet(paths.RECORDINGS), tasks.declared_by(["clinic"])
    counted = tables.class_table(recordings, recordings[["recording_id", "group_id"]], own)
    assert counted["value"].tolist() == ["yes", "no"]
    params = config.load()
    suite = expectations.suites(params.ingest, params.validate_, ["label_pedal"], own["clinic"])["recordings"]
    assert "label_pedal is yes, no or empty" in [one.description for one in suite]
    pair = pd.DataFrame({"recording_id_a": [recordings["recording_id"][0]], "recording_id_b": [
        recordings["recording_id"][2]], "correlation": [0.99]})
    assert tables.pair_table(recordings, pair, 0.95, own)["contradiction"].tolist() == ["label_pedal: yes / no"]


def test_a_damaged_declaration_is_one_line_with_the_way_out(here: Workspace, tmp_path: Path) -> None:
    ingest.run("generic", clinic(tmp_path / "a"))
    paths.declared_tasks("clinic").chmod(0o644)
    paths.declared_tasks("clinic").unlink()
    paths.declared_tasks("clinic").write_text('{"pedal": {}}')
    with pytest.raises(TaskError, match=r"data/tasks/clinic\.json: damaged \(KeyError\)\. `dvc checkout --force"):
        tasks.resolve("clinic-pedal")


def test_a_trial_says_what_is_not_filled_in(here: Workspace, tmp_path: Path) -> None:
    folder = clinic(tmp_path / "a")
    mapping = yaml.safe_load((folder / "clinic.yaml").read_text())
    (folder / "clinic.yaml").write_text(yaml.safe_dump({**mapping, "licence": "to be filled in"}))
    assert "licence is still 'to be filled in'" in ingest.run("generic", folder, dry_run=True).notes[-1]


def test_declarations_of_other_data_sets_stay() -> None:
    former = {"ward": {"pedal": declared_tasks.Declared(tasks.Task(
        "pedal", "pedal", ("a", "b"), "recording", "uar", ("uar",)))}}
    recordings = pd.DataFrame({"dataset": ["ward", "ward"], "label_pedal": ["a", "a"]})
    assert declared_tasks.next_declarations(former, {"clinic": {}}, recordings)["ward"]["pedal"].absent == ("b",)
    assert declared_tasks.digest({}) == ""
