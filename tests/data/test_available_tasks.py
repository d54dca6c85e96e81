"""`heartml tasks`: what the data can teach, alone and together, and how that gets into params.yaml."""

import json
from pathlib import Path

import pytest
import support.publisher_layouts as made
from support.workspaces import Workspace

from heartml.cli import tables
from heartml.core import config
from heartml.core.tasks import GROUPS, TASKS, TaskError, expand_groups, resolve
from heartml.data.ingest import available_tasks


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project with BMD-HS and two clinics. Do not write here, `copy` it."""
    from support import workspaces

    root = tmp_path_factory.mktemp("three")
    project = workspaces.make(root / "project")
    project.run("ingest", "bmdhs", made.bmdhs(root / "bmdhs"))
    project.run("ingest", "generic", made.generic(root / "a", "clinic"))
    project.run("ingest", "generic", made.generic(root / "b", "ward", first=420))
    return project


@pytest.fixture
def here(three: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    mine = three.copy(tmp_path / "mine")
    monkeypatch.chdir(mine.root)
    return mine


def test_tasks_of_one_data_set_then_those_of_several_together(here: Workspace) -> None:
    listed = json.loads(here.run("tasks", "--json").stdout)
    diseases = [f"bmdhs-{name}" for name in GROUPS["diseases"]]
    assert [task["name"] for task in listed] == [
        "bmdhs-disease", *diseases, "clinic-murmur", "ward-murmur", "clinic+ward-murmur"]
    together = listed[-1]
    assert {entry["name"]: entry["units"] for entry in together["classes"]} == {"Present": 6, "Unknown": 0, "Absent": 6}
    assert {task["name"] for task in listed if task["group"] == "bmdhs-diseases"} == set(diseases)


def test_a_group_is_told_with_the_number_of_its_tasks(here: Workspace) -> None:
    assert "bmdhs-diseases stands for 4 of these: heartml tasks --use bmdhs-diseases" in here.run("tasks").stdout


def test_use_writes_tasks_with_groups_replaced_by_their_tasks(here: Workspace) -> None:
    printed = here.run("tasks", "--use", "clinic+ward-murmur", "bmdhs-diseases").stdout
    assert config.load().tasks == ("clinic+ward-murmur", *(f"bmdhs-{name}" for name in GROUPS["diseases"]))
    assert "bmdhs-aortic_stenosis *" in printed
    assert f"params.yaml: tasks is now [{', '.join(config.load().tasks)}]\n" in printed
    assert "Left out" not in printed


@pytest.mark.parametrize(("names", "words"), [
    (("--use", "pascal-sounds"), "pascal-sounds: no pascal in data/: `heartml ingest pascal DIR` brings it"),
    (("--use", "clinic+wart-murmur"), "no wart in data/, where there are bmdhs, clinic, ward. Did you mean ward?"),
    (("--use", "clinic-normal"), "clinic-normal: fewer than two classes"),
    (("--use", "clinic-murmurs"), "no task 'clinic-murmurs'"),
    (("clinic-murmur",), "to choose tasks, write --use clinic-murmur;"),
])
def test_what_the_data_cannot_teach_is_not_written(here: Workspace, names: tuple[str, ...], words: str) -> None:
    before = config.load().tasks
    done = here.run("tasks", *names, check=False)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert config.load().tasks == before


NARROW = available_tasks.AvailableTask("simulated-systolic_quality", "patient", tuple(
    available_tasks.ClassCount(name, units, groups) for name, units, groups in
    (("Blowing", 140, 130), ("Early-systolic", 14, 12), ("Musical", 3, 1))), 1075, "simulated-descriptors")
LOST = available_tasks.AvailableTask(
    "simulated-systolic_shape", "patient", NARROW.classes[1:], 7, "simulated-descriptors")


def test_a_terminal_of_80_columns_shows_every_name_and_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    tables.tasks([NARROW, LOST], ["simulated-systolic_quality"], 10)
    table, _, words = capsys.readouterr().out.partition("* in tasks")
    assert max(map(len, table.splitlines())) <= 80
    for shown in ("simulated-systolic_quality *", "Early-systolic", "patient", "units", "groups", "1075", " 14 "):
        assert shown in table
    assert "simulated-descriptors stands for 1 of these" in words, "the other cannot be taught"


def test_what_was_written_and_what_was_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    tables.chosen_tasks(["simulated-systolic_quality"], ["simulated-systolic_shape"])
    assert capsys.readouterr().out == (
        "params.yaml: tasks is now [simulated-systolic_quality]\n"
        "Left out, because two classes with enough groups are missing: simulated-systolic_shape\n")


def test_of_a_group_only_what_the_data_can_teach_is_chosen(here: Workspace) -> None:
    import pandas as pd

    from heartml.core import paths

    table = pd.read_parquet(paths.RECORDINGS)
    assert len(available_tasks.select_from(["bmdhs-diseases"], table, 1)) == 4
    nobody = table.assign(label_aortic_stenosis=pd.array(["Absent"] * len(table), dtype="string"))
    others = tuple(f"bmdhs-{name}" for name in GROUPS["diseases"][1:])
    assert available_tasks.select_from(["bmdhs-diseases"], nobody, 1) == others


def test_a_group_is_no_task_and_its_name_leads_to_the_command() -> None:
    with pytest.raises(TaskError, match=r"heartml tasks --use bmdhs-diseases` writes bmdhs-aortic_stenosis"):
        resolve("bmdhs-diseases")


def test_groups_hold_tasks_and_no_task_has_a_groups_name() -> None:
    assert not set(GROUPS) & set(TASKS)
    for group, tasks in GROUPS.items():
        assert expand_groups([f"circor-{group}"]) == tuple(f"circor-{name}" for name in tasks)


def test_a_joint_task_needs_its_label_in_every_member() -> None:
    import pandas as pd

    table = pd.DataFrame({
        "recording_id": list("abcdef"), "dataset": ["clinic"] * 4 + ["ward"] * 2, "patient_id": list("abcdef"),
        "group_id": list("abcdef"), "label_murmur": ["Present", "Absent"] * 2 + [None] * 2,
        "label_normal": ["Normal"] * 4 + ["Normal", "Abnormal"],
    }).astype("string")
    with pytest.raises(TaskError, match=r"clinic\+ward-murmur: ward has no label murmur: `heartml tasks --use clinic-"):
        available_tasks.select_from(["clinic+ward-murmur"], table, 1)
    assert available_tasks.select_from(["clinic+ward-normal"], table, 1) == ("clinic+ward-normal",)
    assert available_tasks.select_from(["clinic-murmur"], table, 1) == ("clinic-murmur",)
