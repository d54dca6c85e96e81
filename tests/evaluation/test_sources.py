"""The score of a mean source, and the caution where most sources score below all together."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.scored_units import FAST, draw_scored_units

from heartml.core.tasks import TASKS
from heartml.evaluation.assessment import HELD_OUT, OUT_OF_FOLD
from heartml.evaluation.parts import AssessmentRules
from heartml.evaluation.sources import mean_over_sources
from heartml.metrics.scores import subgroups
from heartml.release import outcome
from heartml.reporting.task_report import cautions, headline

TASK = TASKS["normal"]
RULES = AssessmentRules(FAST, min_groups=10, seed=0)


def confounded(sizes: tuple[int, ...]):
    """Sources, each of nearly one class; the model knows the source and, of the first source, the heart."""
    rng = np.random.default_rng(0)
    source = np.repeat([f"clinic {k}" for k in range(len(sizes))], sizes)
    sick = np.repeat(np.arange(len(sizes)) % 2 == 0, sizes)
    labels = np.where(rng.random(len(source)) < 0.85, ~sick, sick).astype(np.int64)
    guessed = np.where(source == "clinic 0", labels, ~sick).astype(np.int64)
    guessed = np.where(rng.random(len(source)) < 0.1, 1 - guessed, guessed)
    units = np.array([f"u{k}" for k in range(len(source))])
    drawn = draw_scored_units(len(source), len(source), classes=TASK.classes)
    return replace(drawn, unit_ids=units, groups=units, labels=labels, decisions=guessed), source


def test_it_is_the_mean_of_the_scores_within_the_sources_that_have_enough_groups() -> None:
    scored, source = confounded((60, 40, 30, 5))
    of_each = subgroups(scored, {"source": source}, TASK, RULES.min_groups, FAST, 0)["source"]
    assert not of_each["clinic 3"]["estimable"]
    mean = mean_over_sources(scored, source, TASK, RULES)
    assert mean["sources"] == 3
    assert mean["value"] == pytest.approx(np.mean([of_each[f"clinic {k}"]["uar"]["value"] for k in range(3)]))
    assert mean["low"] < mean["value"] < mean["high"] < 1
    pooled = subgroups(scored, {"all": ["x"] * len(source)}, TASK, RULES.min_groups, FAST, 0)["all"]["x"]["uar"]
    assert mean["value"] < pooled["value"] - 0.1, "what telling the sources apart adds is not in it"


def test_one_source_has_no_mean() -> None:
    scored, source = confounded((60, 5))
    assert mean_over_sources(scored, source, TASK, RULES) is None
    assert mean_over_sources(scored, [None] * len(source), TASK, RULES) is None


def evaluation(scores: list[float], whole: float, few: float = 0.1) -> dict[str, object]:
    """What cautions, headline and terminal read; the last source has too few groups."""
    entries = {f"set {k}": {"estimable": True, "absent": [], "uar": {"value": score}} for k, score in enumerate(scores)}
    entries["few"] = {"estimable": False, "absent": [], "uar": {"value": few}}
    mean = {"value": float(np.mean(scores)), "low": 0.6, "high": 0.8, "sources": len(scores)}
    number = {"uar": {"value": whole, "low": whole - 0.02, "high": whole + 0.02}}
    return {"metric": "uar", "left_out": {}, HELD_OUT: number, OUT_OF_FOLD: number,
            "per_source": {HELD_OUT: {}, OUT_OF_FOLD: entries},
            "mean_over_sources": {HELD_OUT: None, OUT_OF_FOLD: mean}}


@pytest.mark.parametrize(("scores", "begins"), [
    ([0.99, 0.6, 0.7, 0.79, 0.65, 0.75], "5 of 6 sources alone score worse than all together."),
    ([0.9, 0.6, 0.7], "Each source alone scores worse than all together."),
    ([0.99, 0.95, 0.7], None), ([0.99, 0.7], None), ([0.7], None), ([], None),
])
def test_most_sources_below_the_whole_are_a_caution_although_the_largest_is_above(scores, begins) -> None:
    words = cautions._sources(evaluation(scores, whole=0.918) if scores else evaluation([0.95], 0.918))
    assert bool(words) == bool(begins)
    if begins:
        assert words[0].startswith(begins)
        assert f"(mean over {len(scores)} sources {np.mean(scores):.2f})" in words[0]
        assert "few" not in words[0]


def test_the_mean_stands_beside_the_pooled_score_on_page_and_terminal() -> None:
    found = evaluation([0.99, 0.6, 0.7, 0.79, 0.65, 0.75], whole=0.918)
    assert headline._mean_over_sources(found) == \
        "Mean over the sources, each counted once: out of fold 0.75 (0.60 to 0.80; 6 sources). "
    assert outcome.notes(SimpleNamespace(evaluation=found)) == [
        "Mean recall (UAR), out of fold: mean over 6 sources 0.747, all together 0.918."]
    older = {key: value for key, value in found.items() if key != "mean_over_sources"}
    assert headline._mean_over_sources(older) == ""
    assert outcome.notes(SimpleNamespace(evaluation=older)) == []
    assert "mean over" not in cautions._sources(older)[0]
