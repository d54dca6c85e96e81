"""Two versions are compared on the units that both can be judged on."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.finished_project import TASK
from support.published_project import evaluate_with_skill, publish_model

from heartml.core import config, paths
from heartml.core.system import files
from heartml.registry import tracking, versions
from heartml.release import comparison, comparison_page, publish


def test_two_versions_are_compared_on_what_both_can_be_judged_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    folds = pd.read_parquet(paths.folds(TASK))
    late = folds.loc[folds["part"] == "test", "group_id"].unique()[:2]
    evaluate_with_skill(skill=0.5, keep=lambda table: ~table["group_id"].isin(late))
    publish_model()
    files.write_parquet(paths.folds(TASK), folds)
    evaluate_with_skill(skill=12)
    publish_model()
    client, params = tracking.connect(), config.load()
    params = params.model_copy(update={"gate": params.gate.model_copy(update={"confidence": 0.8})})     # few units
    one, two = (comparison.load(client, versions.get(client, f"{TASK}/{n}")) for n in "12")
    found = comparison.compare(one, two, params)
    units = folds.loc[(folds["part"] == "test") & ~folds["group_id"].isin(late), "unit_id"].nunique()
    late_units = folds.loc[folds["group_id"].isin(late), "unit_id"].nunique()
    assert (found["units"], found["left_out"]["second_alone"]) == (units, late_units)
    metric = found["metrics"]["weighted_accuracy_and_uar"]
    assert metric["better"] == "second"
    assert metric["difference"]["value"] == pytest.approx(metric["second"]["value"] - metric["first"]["value"])
    back = comparison.compare(two, one, params)["metrics"]["weighted_accuracy_and_uar"]
    assert back["better"] == "first"
    assert back["difference"]["value"] == pytest.approx(-metric["difference"]["value"])
    same = comparison.compare(one, one, params)
    assert {of["better"] for of in same["metrics"].values()} == {"neither"}
    assert same["params"] == {} == same["environment"]
    assert (found["data"]["moved"], found["data"]["second_alone"]) == (0, int(folds["group_id"].isin(late).sum()))
    assert {of["division"] for of in found["subgroups"]} == {"source", "age_group", "sex"}
    assert sum(found["decisions"].values()) == len(found["by_unit"]) == units
    page = comparison_page.render(found)
    assert "Version 2 is better" in page
    assert "src=" not in page
    assert "://" not in page
    assert page.count("<circle") >= units
    fewer = params.gate.model_copy(update={"min_groups": found["groups"] + 1})
    unclear = comparison.compare(one, two, params.model_copy(update={"gate": fewer}))
    assert {of["better"] for of in unclear["metrics"].values()} == {"too few groups"}
    assert f"On {found['groups']} groups nobody can tell" in comparison_page.headline(unclear)
    assert 'class="unclear"' in comparison_page.render(unclear)


def test_a_unit_that_the_other_was_trained_on_is_not_compared(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_write_page", lambda *_: None)
    publish_model()
    client = tracking.connect()
    one = comparison.load(client, versions.get(client, f"{TASK}/1"))
    group = one.predictions.groups[0]
    heard = replace(one, folds=one.folds.assign(part=one.folds["part"].mask(one.folds["group_id"] == group, "0")))
    for first, second in ((one, heard), (heard, one)):
        paired = comparison.pair(first, second)
        assert group not in set(paired.second.groups)
        assert paired.trained == int((one.predictions.groups == group).sum())
    assert comparison.data_differences(one, heard)["moved"] == int((one.folds["group_id"] == group).sum())
