"""The features of a murmur as tasks: who has the label, which classes are learnt, and what becomes of the rare ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import finished_project
from support.workspaces import ROOT

from heartml.cli import tables as listing
from heartml.core import config, folds, paths
from heartml.core.schema import label_column
from heartml.core.stage import StageError
from heartml.core.system import files, hashing
from heartml.core.tasks import GROUPS, TASKS, estimable_classes, expand_groups, resolve
from heartml.data.datasets import load
from heartml.data.ingest import available_tasks
from heartml.data.validation import tables as fitness
from heartml.evaluation import inputs
from heartml.evaluation.assessment import left_out_classes
from heartml.models.heads import HEADS
from heartml.reporting.task_report import cautions, headline, tables
from heartml.stages import split

TIMING = resolve("circor-systolic_timing")
SEEN = {"Holosystolic": 24, "Early-systolic": 16, "Mid-systolic": 9, "Late-systolic": 1}


def described(counts: dict[str, int], column: str, without: int = 20) -> pd.DataFrame:
    """Two recordings of each of so many patients with each value, and of others whose murmur nobody described."""
    values = [value for value, count in counts.items() for _ in range(count)] + [None] * without
    rows = [(hashing.sha256(f"{n}{place}".encode()), "circor", f"circor-{n}", f"circor-{n}", "CC2015", place,
             f"{n}_{place}.wav", value) for n, value in enumerate(values) for place in ("AV", "MV")]
    columns = ["recording_id", "dataset", "patient_id", "group_id", "source", "location", "source_file", column]
    return pd.DataFrame(rows, columns=columns).astype("string")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """A working folder with fifty described murmurs; returns its recordings."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    recordings = described(SEEN, label_column(TIMING.task.label))
    recordings[label_column("diastolic_murmur_timing")] = pd.NA
    recordings.loc[:3, label_column("diastolic_murmur_timing")] = "Early-diastolic"
    files.write_parquet(paths.RECORDINGS, recordings)
    files.write_parquet(paths.VALIDATION / "groups.parquet", recordings[["recording_id", "group_id"]])
    files.write_json(paths.VALIDATION / "validation.json", {"success": True, "errors": []})
    return recordings


def test_ten_descriptors_stand_behind_one_name_and_the_data_set_knows_their_classes() -> None:
    names = expand_groups(["circor-murmur", "circor-descriptors"])
    assert len(names) == 11
    for task in (resolve(name).task for name in names[1:]):
        assert (task.unit, task.metric, task.official) == (
            "patient", "uar", ("macro_f1", "uar", "macro_auc", "accuracy"))
        for dataset in ("circor", "simulated"):
            assert load(dataset).LABELS[task.label] == task.classes
            assert task.name in load(dataset).TASKS


def test_a_data_set_puts_its_murmur_task_to_work_and_not_eleven() -> None:
    assert load("circor").TASKS[0] == "murmur"


def test_a_class_is_estimable_from_its_fewest_groups_on() -> None:
    task = TASKS["systolic_timing"]
    assert estimable_classes(task, SEEN, 10) == ("Early-systolic", "Holosystolic")
    assert estimable_classes(task, SEEN, 9) == ("Early-systolic", "Mid-systolic", "Holosystolic")
    assert estimable_classes(task, {}, 1) == ()


def test_rare_classes_and_patients_without_a_description_are_in_no_fold(
    project: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    split.run(TIMING.name)
    found = folds.load(paths.folds(TIMING.name))
    units = found.drop_duplicates("unit_id")["label"].value_counts()
    assert units.to_dict() == {"Holosystolic": 24, "Early-systolic": 16}
    said = capsys.readouterr().err
    assert "Late-systolic left out: 1 patients" in said
    assert "Mid-systolic left out: 9 patients" in said
    assert "warning" not in said


def test_groups_are_counted_as_validation_joined_them(project: pd.DataFrame) -> None:
    early = project.loc[project[label_column(TIMING.task.label)] == "Early-systolic", "group_id"].unique()[:7]
    joined = project["group_id"].where(~project["group_id"].isin(early), early[0])
    files.write_parquet(paths.VALIDATION / "groups.parquet", project[["recording_id"]].assign(group_id=joined))
    split.run(TIMING.name)      # 16 patients in 10 groups
    files.write_parquet(paths.VALIDATION / "groups.parquet", project[["recording_id"]].assign(
        group_id=joined.where(joined != "circor-31", early[0])))
    with pytest.raises(StageError, match="Early-systolic 9"):
        split.run(TIMING.name)


def test_a_task_without_two_estimable_classes_is_refused_with_the_way_out(project: pd.DataFrame) -> None:
    with pytest.raises(StageError, match=r"not estimable.*Early-diastolic 2.*Take it out of `tasks`"):
        split.run("circor-diastolic_timing")
    nobody = project.assign(**{label_column("diastolic_murmur_timing"): pd.array([None] * len(project), "string")})
    files.write_parquet(paths.RECORDINGS, nobody)
    with pytest.raises(StageError, match=r"not estimable.*Early-diastolic 0.*Take it out of `tasks`"):
        split.run("circor-diastolic_timing")
    assert not paths.folds("circor-diastolic_timing").exists()


def test_what_is_left_out_is_named_with_its_counts(project: pd.DataFrame) -> None:
    groups = project[["recording_id", "group_id"]]
    table = project.drop(columns="group_id")
    found = left_out_classes(table, groups, TIMING, {"Holosystolic", "Early-systolic"})
    assert found == {"Mid-systolic": {"units": 9, "groups": 9}, "Late-systolic": {"units": 1, "groups": 1}}
    assert inputs.read_left_out_classes(TIMING.name, {"Holosystolic", "Early-systolic"}) == found
    murmur = table.rename(columns={label_column(TIMING.task.label): "label_murmur"})
    assert left_out_classes(murmur, groups, resolve("circor-murmur"), set()) == {}, "kept: it has a place in the tables"


def test_the_page_names_what_is_left_out_once_and_asks_about_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finished_project.write_evaluated_project(tmp_path, monkeypatch, children=40, seconds=1.0)
    assert found["left_out"] == {}
    assert not any("Not estimable" in words for words in cautions.warnings(found))
    told = {**found, "left_out": {"Unknown": {"units": 3, "groups": 2}}}
    words = [line for line in cautions.warnings(told) if "Unknown" in line]
    assert len(words) == 1
    assert words[0].startswith("Not estimable: Unknown (2), with fewer than 10 groups in all the data.")
    assert "Unknown" not in headline.performance(told, "A model", "data")[0]
    for part in ("held_out", "out_of_fold"):
        assert [row.name for row in tables.classes(told, part).rows] == ["Present", "Absent"]
        assert not any("no Unknown" in row.name for _, table in tables.subgroups(told, part) for row in table.rows)


def test_rare_descriptor_classes_do_not_drown_validation_in_warnings(project: pd.DataFrame) -> None:
    labels = fitness.class_table(project.assign(label_murmur="Present"), project[["recording_id", "group_id"]])
    assert {"Late-systolic", "Holodiastolic"} <= set(labels["value"]), "they are counted"
    assert set(fitness.classes_to_warn_of(labels)["label"]) == {"murmur"}


def test_a_section_may_be_changed_for_all_tasks_that_a_pattern_fits() -> None:
    search = config.load(ROOT / "params.yaml").search
    own = search.model_copy(update={"tasks": {"*-systolic_*": {"trials": 3}, "circor-*": {"batch": 2}}})
    assert (own.for_task("circor-systolic_pitch").trials, own.for_task("circor-systolic_pitch").batch) == (3, 2)
    assert (own.for_task("circor-murmur").trials, own.for_task("circor-murmur").batch) == (search.trials, 2)
    assert own.for_task("pascal-sounds") == search.model_copy(update={"tasks": {}})
    with pytest.raises(ValueError, match="trials"):
        config.SearchParams.model_validate({**search.model_dump(), "tasks": {"*-systolic_*": {"trials": 0}}})


def test_no_descriptor_of_the_projects_parameters_trains_a_network() -> None:
    search = config.load(ROOT / "params.yaml").search
    for dataset in ("circor", "simulated"):
        heads = {head for name in GROUPS["descriptors"] for head in search.for_task(f"{dataset}-{name}").heads}
        assert {HEADS[head]().TAKES for head in heads} == {"vectors"}


def test_a_descriptor_metric_is_a_mean_over_the_classes_that_are_there() -> None:
    from heartml.metrics import METRICS

    classes = TIMING.task.classes
    labels = np.array([0, 0, 3, 3])
    right = np.array([0, 3, 3, 3])
    certain = np.eye(4)[right]
    assert METRICS["uar"].function(labels, certain, right, classes) == 0.75
    assert METRICS["macro_f1"].function(labels, certain, right, classes) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_the_list_of_tasks_says_which_are_not_estimable(
    project: pd.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    both = project.copy()
    both.loc[:1, label_column("diastolic_murmur_timing")] = "Mid-diastolic"
    allowed = [task for task in available_tasks.find_available(both) if task.name.endswith("_timing")]
    listing.tasks(allowed, (), 10)
    said = capsys.readouterr().out
    assert "circor-systolic_timing" in said.split("circor-diastolic_timing")[0]
    lines = {line.split(" │ ")[0].strip(): line.rstrip() for line in said.splitlines() if " │ " in line}
    assert not lines["circor-systolic_timing"].endswith("few")
    assert "without a label" in said and said.split("circor-diastolic_timing")[1].split("*")[0].rstrip().endswith("few")


def test_choosing_all_descriptors_leaves_out_what_cannot_be_estimated(project: pd.DataFrame) -> None:
    assert available_tasks.select_tasks(["circor-descriptors"], 10) == ("circor-systolic_timing",)
    learnt = ("circor-systolic_timing",)     # diastolic: one class alone
    assert available_tasks.select_tasks(["circor-descriptors"], 1) == learnt
