"""The page about all features of a murmur: every number is an evaluation's, and what cannot be estimated has none."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import finished_project
from support.small_project import TASK
from support.workspaces import Done, Workspace

from heartml.core import paths
from heartml.core.schema import label_column
from heartml.core.system import files
from heartml.release import murmur_pages
from heartml.release.publish import ReleaseOutcome, failure
from heartml.reporting import murmur_features as page
from heartml.reporting.number_format import figure, span

QUALITY = "simulated-systolic_quality"


class Words(HTMLParser):
    """All visible text, one space between pieces."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.pieces += data.split()

    def __str__(self) -> str:
        return " ".join(self.pieces)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project whose murmurs are described in three ways, two of them evaluated; the working folder of this module."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("described")
        found = finished_project.write_evaluated_project(root, patch, children=100, seconds=1.0)
        recordings = pd.read_parquet(paths.RECORDINGS)
        present = recordings["label_murmur"] == "Present"
        order = recordings.loc[present, "patient_id"].rank(method="dense").reindex(recordings.index)
        quality = order.map(lambda n: "Musical" if n == 1 else ("Harsh", "Blowing")[int(n) % 2], na_action="ignore")
        files.write_parquet(paths.RECORDINGS, recordings.assign(**{
            label_column("systolic_murmur_quality"): quality.astype("string"),
            label_column("diastolic_murmur_pitch"): order.map({1: "Low"}).astype("string"),
        }))
        yield {TASK: found, QUALITY: {**found, "assignment": QUALITY}}


def outcome(task: str, evaluation: dict[str, Any]) -> ReleaseOutcome:
    return ReleaseOutcome(task, "promoted", "", "1", "0", None, evaluation, {})


def test_each_evaluated_feature_stands_there_with_its_interval_and_its_best_floor(evaluations: dict[str, Any]) -> None:
    words = str(Words(page.render("simulated", evaluations)))
    for part, floors in (("out_of_fold", "floors_out_of_fold"), ("held_out", "floors")):
        for found in evaluations.values():
            for metric in ("uar", "macro_f1"):
                floor = max((one[metric] for one in found[floors].values()), key=lambda number: number["value"])
                for number in (found[part][metric], floor):
                    assert f"{figure(number['value'])} {span(number)}" in words
            units = found["counts"][part]
            assert f"{units['units']} ({units['groups']})" in words
    assert "best baseline" in words


def test_rare_classes_are_named_apart_and_features_of_nobody_are_missing(evaluations: dict[str, Any]) -> None:
    text = page.render("simulated", evaluations)
    cells = r'Systolic quality</th>\s*<td>(.*?)</td>\s*<td class="quiet">(.*?)</td>'
    row = re.search(cells, text)
    assert row
    assert re.fullmatch(r"Blowing \d+ \(\d+\), Harsh \d+ \(\d+\)", row[1])
    assert row[2] == "Musical 1 (1)"
    assert "Systolic timing" not in text, "the data have no such label"


def test_a_feature_without_two_classes_has_a_reason_and_no_number(evaluations: dict[str, Any]) -> None:
    by_title = {feature.title: feature for feature in page.gather("simulated", evaluations, 10)}
    assert by_title["Diastolic pitch"].note.startswith("not estimable: fewer than two classes")
    unevaluated = {f.title: f for f in page.gather("simulated", {TASK: evaluations[TASK]}, 10)}["Systolic quality"]
    assert unevaluated.note == f"not evaluated: {QUALITY} is not among the trained tasks"
    table = page.scores(list(by_title.values()), "held_out")
    assert [row.cells for row in table.rows if row.name == "Diastolic pitch"] == [()]
    assert [row.note for row in table.rows if row.name == "Diastolic pitch"] == [by_title["Diastolic pitch"].note]


def test_the_same_outcomes_give_the_same_bytes_and_only_descriptors_call_for_a_page(
    evaluations: dict[str, Any]
) -> None:
    outcomes = [outcome(name, found) for name, found in evaluations.items()]
    described = Path("reports/simulated-descriptors.html")
    murmur_pages.write(outcomes[:1])
    murmur_pages.write([outcomes[0], failure(QUALITY, "no")])
    assert not described.exists()
    assert murmur_pages.pages(outcomes[:1]) == []
    murmur_pages.write(outcomes)
    assert murmur_pages.pages(outcomes) == [described]
    first = described.read_bytes()
    murmur_pages.write(outcomes)
    assert described.read_bytes() == first


def choose(project: Workspace, *tasks: str) -> None:
    """Three groups are enough for a class here, one encoder for a model, and these are the tasks to train."""
    params = re.sub(r"min_class_groups: \d+", "min_class_groups: 3", (project / "params.yaml").read_text())
    for name, values in (("tasks", tasks), ("encoders", ["logspec"])):
        params, found = re.subn(rf"(?m)^{name}:\n(- .*\n)+", f"{name}: [{', '.join(values)}]\n", params)
        assert found == 1
    (project / "params.yaml").write_text(params)


def failed_alone(done: Done) -> None:
    """The task that cannot be estimated has failed, and the way out is named."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "simulated-diastolic_timing: failed" in done.stdout
    assert re.search(r"is not estimable: fewer than two of its classes have \d+ groups", done.stdout)
    assert "Take it out of `tasks` in params.yaml" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_task_that_cannot_be_estimated_is_no_hindrance_to_another(retrained: Workspace, tmp_path: Path) -> None:
    mine = retrained.copy(tmp_path / "project")
    params = (mine / "params.yaml").read_text()
    (mine / "params.yaml").write_text(params.replace(f"- {TASK}\n", f"- {TASK}\n- simulated-diastolic_timing\n"))
    done = mine.run("retrain", check=False)
    failed_alone(done)
    assert f"{TASK}: nothing new, version 1" in done.stdout


@pytest.mark.thorough("it trains a second task")
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_other_tasks_of_the_same_retraining_are_trained(retrained: Workspace, tmp_path: Path) -> None:
    mine = retrained.copy(tmp_path / "project")
    choose(mine, "simulated-systolic_pitch", "simulated-diastolic_timing")
    done = mine.run("retrain", check=False, timeout_s=3500)
    failed_alone(done)
    assert re.search(r"simulated-systolic_pitch: (promoted|refused), version 1", done.stdout)
    assert "all features of the murmur: reports/simulated-descriptors.html" in done.stdout
    words = str(Words((mine / "reports/simulated-descriptors.html").read_text()))
    assert "not estimable: fewer than two classes have 3 groups" in words
