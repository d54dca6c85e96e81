"""Leave one collection out: nothing of it is learnt from, and what is told of it is told beside what else is known."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import support.publisher_layouts as made
from support import small_project, workspaces
from support.workspaces import Workspace

from heartml.core import config, folds, paths
from heartml.core.system import hashing
from heartml.core.tasks import TASKS
from heartml.evaluation.leave_out import rounds, scratch
from heartml.metrics.scores import LabelledPredictions, metric_intervals, task_metrics

pytestmark = pytest.mark.timeout(1800)
NAME = "clinic+ward-murmur"
SPLIT = config.load(Path(__file__).parents[2] / "params.yaml").split.model_copy(update={"folds": 3})


# Who is left out when


def units(count: int = 24) -> pd.DataFrame:
    """Recordings of patients in three data sets; every fifth patient was in two of them under two ids."""
    rng, rows = np.random.default_rng(0), []
    for k in range(count):
        for dataset in ("a", "b", "c") if k % 5 == 0 else ("abc"[k % 3],):
            known = (f"{dataset}-{k}", f"person-{k}", "yn"[k % 2], "0", dataset, None if k % 7 == 0 else f"s{k % 2}")
            rows += [(f"{dataset}{k}r{recording}", *known) for recording in range(int(rng.integers(1, 4)))]
    columns = ["recording_id", "unit_id", "group_id", "label", "part", "dataset", "source"]
    return pd.DataFrame(rows, columns=columns).astype("string")


@pytest.mark.parametrize("by", ["dataset", "source"])
def test_no_group_of_what_is_left_out_is_learnt_from(by: str) -> None:
    table = units()
    for one in rounds.plan(table, by, SPLIT, 0):
        folds.check_folds(one.folds)
        test = one.folds[one.folds["part"] == folds.TEST]
        rest = one.folds[one.folds["part"] != folds.TEST]
        assert not set(test["group_id"]) & set(rest["group_id"])
        where = table.set_index("recording_id")[by].fillna(rounds.NOT_GIVEN)
        assert set(where[test["recording_id"]]) == {one.value}
        assert one.value not in set(where[rest["recording_id"]])
        assert one.trained_on == {"units": rest["unit_id"].nunique(), "groups": rest["group_id"].nunique()}


def test_every_unit_is_left_out_once() -> None:
    table = units()
    planned = rounds.plan(table, "dataset", SPLIT, 0)
    left_out = [unit for one in planned
                for unit in one.folds.loc[one.folds["part"] == folds.TEST, "unit_id"].unique()]
    assert sorted(left_out) == sorted(table["unit_id"].unique())
    assert [one.value for one in planned] == ["a", "b", "c"]


def test_a_unit_of_two_sources_is_left_out_with_its_first_and_not_learnt_from_with_the_other() -> None:
    table = units().assign(source="s0")
    table.loc[table["unit_id"].str[0] == "b", "source"] = "s1"
    mixed = table["unit_id"] == "c-2"
    table = pd.concat([table, table[mixed].head(1).assign(recording_id="c2z", source="s1")], ignore_index=True)
    first, second = rounds.plan(table, "source", SPLIT, 0)
    assert "c-2" in set(first.folds.loc[first.folds["part"] == folds.TEST, "unit_id"])
    assert "c-2" not in set(second.folds["unit_id"])


def test_a_class_that_only_the_left_out_has_is_named() -> None:
    table = units()
    table.loc[(table["dataset"] == "b") & (table["unit_id"] != "b-0"), "label"] = "only here"
    assert {one.value: one.unseen_classes for one in rounds.plan(table, "dataset", SPLIT, 0)} == {
        "a": (), "b": ("only here",), "c": ()}


# The command


STAGES = f"""
from heartml.stages import ensemble, evaluate, features, robustness, search, split, validate
validate.run()
split.run({NAME!r})
features.run({NAME!r}, "logspec")
for stage in (search, ensemble, evaluate, robustness):
    stage.run({NAME!r})
"""


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two clinics in one project, learnt together; the ward is unsure of some. Do not write here, `copy` it."""
    root = tmp_path_factory.mktemp("learnt")
    project = workspaces.make(root / "project")
    small_project._shrink(project / "params.yaml")
    one_encoder = (project / "params.yaml").read_text().replace("- logspec\n- random_conv\n", "- logspec\n")
    (project / "params.yaml").write_text(one_encoder)
    ward = made.generic(root / "b", "ward", patients=20, first=540, labels={"murmur": {"column": "murmur", "classes": {
        "yes": "Present", "no": "Absent", "unclear": "Unknown"}}})
    lines = (ward / "recordings.csv").read_text().splitlines()
    lines = [line.replace(",no", ",unclear") if line.split(",")[1] in ("P1", "P3", "P5", "P7") else line
             for line in lines]
    (ward / "recordings.csv").write_text("\n".join(lines) + "\n")
    project.run("ingest", "generic", made.generic(root / "a", "clinic", patients=20, first=500))
    project.run("ingest", "generic", ward)
    project.run("tasks", "--use", NAME)
    done = subprocess.run([sys.executable, "-c", STAGES], cwd=project.root, env=project.environment, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture(scope="module")
def left(learnt: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same after `heartml leave-out --json out.json`; what it printed: `said`. Do not write here."""
    project = learnt.copy(tmp_path_factory.mktemp("left") / "project")
    (project / "said").write_text(project.run("leave-out", NAME, "--json", "out.json").stdout)
    return project


@pytest.fixture
def found(left: Workspace, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    """Collection -> its entry, with the project as the working folder."""
    monkeypatch.chdir(left.root)
    return {one["value"]: one for one in json.loads(Path("out.json").read_text())["left_out"]}


@pytest.mark.thorough("half a minute")
def test_several_collections_are_learnt_together(learnt: Workspace) -> None:
    table = pd.read_parquet(learnt / "artifacts" / NAME / "folds.parquet")
    assert {unit.split("-")[0] for unit in table["unit_id"]} == {"clinic", "ward"}
    metrics = json.loads((learnt / "artifacts" / NAME / "evaluation" / "metrics.json").read_text())
    assert metrics["assignment"] == NAME
    learnt.run("report", "--task", NAME)
    page = (learnt / "artifacts" / NAME / "report.html").read_text()
    assert page.count("Heart sounds of a clinic") >= 2, "both collections are cited"


def test_each_collection_is_scored_whole_with_intervals_and_floors(found: dict[str, dict]) -> None:
    assert {value: (one["units"], one["groups"]) for value, one in found.items()} == {
        "clinic": (20, 20), "ward": (20, 20)}
    for one in found.values():
        assert one["trained_on"] == {"units": 20, "groups": 20}
        for numbers in (one["scores"], one["in_collection"], one["floors"]["majority"]):
            assert numbers["uar"]["low"] <= numbers["uar"]["value"] <= numbers["uar"]["high"]
        assert one["per_class"]["Present"]["auc"]["value"] > 0.8, "a loud murmur is a loud murmur everywhere"


def test_a_class_that_nothing_else_carries_is_named_and_missed(found: dict[str, dict], left: Workspace) -> None:
    assert found["ward"]["unheard"] == ["Unknown"]
    assert found["clinic"]["unheard"] == []
    assert found["ward"]["per_class"]["Unknown"] == {"estimable": False, "groups": 4, "units": 4}
    assert "ward: no other collection has Unknown: it cannot be recognised" in (left / "said").read_text()


def test_beside_it_stands_what_the_tasks_own_model_says_of_the_same_units(found: dict[str, dict]) -> None:
    params, task = config.load(), TASKS["murmur"]
    own = pd.concat([pd.read_parquet(paths.out_of_fold(NAME)),
                     pd.read_parquet(paths.evaluation(NAME) / "predictions.parquet")])
    for value, one in found.items():
        scored = LabelledPredictions.from_table(own[own["unit_id"].str.startswith(f"{value}-")], task.classes)
        expected = metric_intervals(task_metrics(task), scored, scored.probabilities, params.evaluate, params.seed)
        for name, numbers in one["in_collection"].items():
            assert numbers == pytest.approx(expected[name])
        both = one["scores"][task.metric]["value"], one["in_collection"][task.metric]["value"]
        assert one["difference"]["value"] == pytest.approx(both[0] - both[1])


def test_the_projects_own_artifacts_are_untouched(left: Workspace, learnt: Workspace) -> None:
    for name in ("folds.parquet", "search", "model", "out_of_fold.parquet", "evaluation"):
        one, two = (project / f"artifacts/{NAME}/{name}" for project in (left, learnt))
        hashed = hashing.sha256_folder if one.is_dir() else hashing.sha256_file
        assert hashed(one) == hashed(two), name


def test_what_is_done_is_not_done_again_and_what_was_cut_short_is_finished(left: Workspace, tmp_path: Path) -> None:
    mine = left.copy(tmp_path / "mine")
    again = mine.run("leave-out", NAME, "--json", "again.json")
    assert "search@" not in again.stderr
    assert (mine / "again.json").read_bytes() == (mine / "out.json").read_bytes()
    cut = sorted((mine / ".heartml/leave-out").glob(f"{NAME}-dataset-*/done-evaluate"))[0]
    cut.unlink()
    again = mine.run("leave-out", NAME, "--json", "again.json")
    assert again.stderr.count("evaluate@") == 1
    assert "search@" not in again.stderr
    assert (mine / "again.json").read_bytes() == (mine / "out.json").read_bytes()


def test_other_parameters_are_another_run_and_the_old_one_is_swept_away(
    left: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(left.copy(tmp_path / "mine").root)
    params = config.load()
    done = sorted(scratch.FOLDER.glob(f"{NAME}-dataset-{'?' * 16}"))
    planned = [pd.read_parquet(root / paths.folds(NAME)) for root in done]
    made_before = planned_roots(planned, params)
    for name in made_before:
        (scratch.FOLDER / name).mkdir(exist_ok=True)
    scratch.remove_stale_rounds(NAME, "source", planned, params)
    scratch.remove_stale_rounds(NAME, "dataset", planned, params)
    assert {path.name for path in scratch.FOLDER.glob(f"{NAME}-dataset-{'?' * 16}")} == made_before
    assert len(made_before) == 2
    other = params.model_copy(update={"seed": params.seed + 1})
    assert not planned_roots(planned, other) & made_before
    with monkeypatch.context() as dying, pytest.raises(SystemExit):
        dying.setattr("shutil.rmtree", _die)
        scratch.remove_stale_rounds(NAME, "dataset", planned, other)
    assert len(list(scratch.FOLDER.glob(f"{NAME}-dataset-{'?' * 16}"))) == 1, "what is half removed is not there"
    scratch.remove_stale_rounds(NAME, "dataset", planned, other)
    assert not [*scratch.FOLDER.glob(f"{NAME}-dataset-{'?' * 16}"), *scratch.FOLDER.glob(f".{NAME}-*.tmp")]


def _die(*_: object, **__: object) -> None:
    raise SystemExit


def planned_roots(planned: list[pd.DataFrame], params: config.Params) -> set[str]:
    """Names of the folders that this code would work in."""
    return {scratch.round_folder(NAME, "dataset", table, params).name for table in planned}


@pytest.mark.parametrize(("arguments", "words"), [
    (("clinic-murmur",), "has no model to compare with"),
    ((NAME, "--by", "source"), "there is only one source (Littmann)"),
    (("clinic+ward-murmurs",), "no task"),
])
def test_what_cannot_be_left_out_is_told(
    left: Workspace, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = left.run("leave-out", *arguments, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_that_fails_is_named(left: Workspace, tmp_path: Path) -> None:
    mine = left.copy(tmp_path / "mine")
    text = (mine / "params.yaml").read_text()
    (mine / "params.yaml").write_text(text.replace("folds: 3", "folds: 30"))
    done = mine.run("leave-out", NAME, check=False)
    assert done.returncode == 1
    assert "do not fill 30 folds" in done.stderr
    assert "Traceback" not in done.stderr
