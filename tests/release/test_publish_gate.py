"""The gate where it meets the registry: who is judged on which units, each criterion, a rollback, a death."""

import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache as places
from support.finished_project import TASK
from support.mortal_client import Killed, MortalClient
from support.published_project import evaluate_with_skill, publish_model, run_states, version_states

from heartml.core import config, paths, tasks
from heartml.core.system import files
from heartml.registry import champions, tracking, version_cautions, versions
from heartml.registry.version_cautions import RETIRED
from heartml.registry.versions import CHALLENGER, CHAMPION, PROMOTED, REFUSED
from heartml.release import champion_comparison, gate_inputs, looks, overrides, publish
from heartml.release.publish import NOTHING_NEW
from heartml.reporting import task_report


def test_the_champion_is_asked_about_units_that_came_after_it(project: Path) -> None:
    folds = pd.read_parquet(paths.folds(TASK))
    late = folds.loc[folds["part"] == "test", "group_id"].unique()[:3]
    evaluate_with_skill(skill=12, keep=lambda table: ~table["group_id"].isin(late))
    assert publish_model().state == PROMOTED
    files.write_parquet(paths.folds(TASK), folds)
    evaluate_with_skill(skill=12)
    params, client = config.load(), tracking.connect()
    champion = versions.champion(client, TASK)
    assert champion
    unasked = params.model_copy(update={"gate": params.gate.model_copy(update={"catch_up_recordings": 0})})
    units = folds["unit_id"].nunique()
    came_later = folds.loc[folds["group_id"].isin(late), "unit_id"].nunique()
    for given, unknown in ((params, 0), (unasked, came_later)):
        comparison = gate_inputs.judge(client, TASK, champion, given, looks.take(1, 0.95)).comparison
        assert comparison
        assert (comparison.unknown, comparison.units) == (unknown, units - unknown)
        assert comparison.evidence["new"] == came_later - unknown


def test_units_in_the_champions_training_are_left_out(project: Path) -> None:
    publish_model()
    folds = pd.read_parquet(paths.folds(TASK))
    swapped = folds.assign(part=folds["part"].map({"test": "0", "0": "test"}).fillna(folds["part"]))
    client, task = tracking.connect(), tasks.resolve(TASK).task
    champion = versions.champion(client, TASK)
    assert champion
    held = gate_inputs.load_challenger(tasks.resolve(TASK))
    challenger = gate_inputs.ChallengerInputs(held.predictions, swapped, held.units, {})
    rival = gate_inputs.load_champion(client, champion, task, challenger, 0)
    held_out_units = folds.loc[folds["part"] == "test", "unit_id"].nunique()
    assert len(champion_comparison.units_not_trained_on(folds, rival.trained_on)) == held_out_units
    assert len(champion_comparison.units_not_trained_on(swapped, rival.trained_on)) == 0


def verdicts() -> dict[str, str]:
    """Criterion -> what stands on the newest version."""
    tags = versions.list_versions(tracking.connect(), TASK)[-1].tags
    return {tag.removeprefix("heartml.gate."): words for tag, words in tags.items() if tag.startswith("heartml.gate.")}


def overstate(temperature: float) -> None:
    """The same answers, said with another confidence."""
    path = paths.evaluation(TASK) / "predictions.parquet"
    table = pd.read_parquet(path)
    said = [column for column in table if column.startswith("c_")]
    sharp = table[said] ** (1 / temperature)
    files.write_parquet(path, table.assign(**sharp.div(sharp.sum(axis=1), axis=0)))
    metrics = files.read_json(paths.evaluation(TASK) / "metrics.json")
    metrics["held_out"]["ece"] = {"value": 0.4, "low": 0.3, "high": 0.5}
    files.write_json(paths.evaluation(TASK) / "metrics.json", metrics)


def test_each_criterion_stands_on_the_version_with_its_number_and_refuses_when_it_is_broken(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    files.write_json(paths.VALIDATION / "validation.json", {"success": False, "errors": ["no"], "warnings": []})
    overstate(0.3)
    params = config.load()
    strict = params.model_copy(update={"gate": params.gate.model_copy(update={"first_model": "certain"})})
    assert publish_model(strict).state == REFUSED
    first = verdicts()
    failed = {name for name, words in first.items() if words.startswith("failed")}
    assert failed == {"calibration", "floors", "validation"}
    assert "on 13 units held out and 52 out of fold, an interval that contains zero: `hear" in first["floors"]
    assert first["calibration"].startswith("failed (0.3): calibration error 0.400 [0.300, 0.500], refused where")
    assert first["validation"].startswith("failed (1): the data did not pass")
    files.write_json(paths.VALIDATION / "validation.json", {"success": True, "errors": [], "warnings": []})
    evaluate_with_skill(skill=1.5)
    assert publish_model().state == PROMOTED
    assert set(verdicts()) == {"calibration", "floors", "validation", "lineage"}
    assert verdicts()["floors"].endswith("(`gate.first_model: value`)") and "(look 2)" in verdicts()["floors"]
    evaluate_with_skill(skill=0.0, seed=8)
    overstate(0.05)
    assert publish_model().state == REFUSED
    worse = verdicts()
    assert set(worse) == {"better", "metric", "subgroups", "calibration", "floors", "validation", "lineage"}
    assert versions.list_versions(tracking.connect(), TASK)[-1].tags["heartml.look"] == "1"
    assert {name for name, words in worse.items() if words.startswith("failed")} >= {"better", "calibration", "floors"}
    assert all(re.match(r"(passed|failed)( \(-?[\d.e+-]+\))?: .", words) for words in worse.values())


def test_a_retraining_leaves_a_rollback_alone_and_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    publish_model()
    evaluate_with_skill(skill=12)
    assert publish_model().version == "2"
    overrides.roll_back(TASK, None, "false alarms at the new clinic")
    for _ in range(2):
        outcome = publish_model()
        assert outcome.state == NOTHING_NEW
        assert "version 1 serves" in outcome.reason
        assert "false alarms at the new clinic" in outcome.reason
    assert version_states() == [("1", PROMOTED, (CHAMPION,)), ("2", PROMOTED, ())]
    evaluate_with_skill(skill=12, seed=3)
    third = publish_model()
    assert third.state == PROMOTED
    assert "until now version 1 serves" in third.reason


def test_after_a_retirement_nothing_is_promoted_until_a_person_does_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    publish_model()
    overrides.retire(TASK, "false alarms at the new clinic")
    same = publish_model()
    assert same.state == NOTHING_NEW
    assert "version 1 was retired by " in same.reason
    evaluate_with_skill(skill=12)
    better = publish_model()
    assert better.state == REFUSED
    assert better.reason.startswith("refused: retired: no version serves since ")
    assert better.reason.count("false alarms at the new clinic") == 1
    assert {name for name, words in verdicts().items() if words.startswith("failed")} == {RETIRED}
    assert version_states() == [("1", PROMOTED, ()), ("2", REFUSED, (CHALLENGER,))]
    overrides.promote(f"{TASK}/2", "no false alarms there any more")
    client = tracking.connect()
    version = versions.get(client, TASK)
    assert version.number == "2"
    assert version_cautions.of(version, champions.read(client, TASK)) == (), "the gate had left it to a person"
    assert versions.retirement(client, TASK) is None, "the gate compares and decides again"


def registered_only(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A champion, and a better challenger whose run died right after it was registered."""
    monkeypatch.setattr(task_report, "render", lambda *_: "a page")
    publish_model()
    evaluate_with_skill(skill=12)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_judge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish_model()


def facts(root: Path) -> Any:
    client = tracking.connect()
    kept = [{item.path for item in client.list_artifacts(v.run_id)} for v in versions.list_versions(client, TASK)]
    tags = [{k: w for k, w in v.tags.items() if k != "heartml.process"} for v in versions.list_versions(client, TASK)]
    told = [(e.decision, e.counts, e.followed) for e in champions.read(client, TASK)]
    return version_states(), tags, told, kept, run_states(), (root / "reports" / f"{TASK}.html").read_text()


def test_a_death_at_any_write_after_registration_ends_as_if_undisturbed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered_only(project, monkeypatch)
    params = config.load()
    quick = params.model_copy(update={"gate": params.gate.model_copy(update={"bootstrap": 100})})
    verdict = gate_inputs.judge(tracking.connect(), TASK, versions.champion(tracking.connect(), TASK), quick,
                                looks.take(1, 0.95))
    monkeypatch.setattr(gate_inputs, "judge", lambda *_: verdict)       # every run would come to the same
    connect = tracking.connect

    def run(name: str, lives: float) -> MortalClient:
        shutil.copytree(project, tmp_path / name, symlinks=True)
        monkeypatch.chdir(tmp_path / name)
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / name}/.heartml/mlflow.db")   # what storing a model left behind
        monkeypatch.delenv("MLFLOW_TRACKING_URI")                                    # and what that sets
        places.clear()                                                               # of the same run elsewhere
        client = MortalClient(connect(), lives)
        with monkeypatch.context() as patch:
            patch.setattr(tracking, "connect", lambda **_: client)
            publish_model(quick)
        return client

    writes = run("undisturbed", float("inf")).writes
    expected = facts(tmp_path / "undisturbed")
    assert expected[0] == [("1", PROMOTED, ()), ("2", PROMOTED, (CHAMPION,))]
    assert writes > 15
    for lives in range(0, writes, 5):      # every single one: tests/registry/test_champions.py
        with pytest.raises(Killed, match=f"write {lives + 1}"):
            run(f"killed{lives}", lives)
        publish_model(quick)
        assert facts(tmp_path / f"killed{lives}") == expected, f"killed before write {lives + 1} of {writes}"
        shutil.rmtree(tmp_path / f"killed{lives}")
