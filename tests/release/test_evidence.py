"""What a comparison rests on: which units count, how often they were asked, and what a refresh has to show."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support.compared_models import PARAMS, TASK, UNITS, answers, compare, folds, known, verdict

from heartml.metrics import METRICS, paired_bootstrap
from heartml.metrics.scores import LabelledPredictions
from heartml.release import champion_comparison, looks, refresh
from heartml.release.champion_comparison import LOSS, Champion
from heartml.release.champion_criteria import Policy
from heartml.release.gate import NOT_WORSE


def in_folds(scored: LabelledPredictions, held_out: slice, part: str = "0") -> LabelledPredictions:
    """The same predictions, held out for the units of the slice and out of fold for the others."""
    parts = np.full(UNITS, part, dtype="<U4")
    parts[held_out] = "test"
    return replace(scored, parts=parts)


def test_every_unit_counts_that_neither_model_was_trained_on_and_each_kind_is_said() -> None:
    challenger = in_folds(answers(0.9, seed=1), slice(0, 24))
    champion = in_folds(answers(0.6, seed=2), slice(0, 20), part="3")
    later = frozenset(str(unit) for unit in champion.unit_ids[:4])
    comparison = compare(challenger, champion, new=later)
    assert comparison
    assert comparison.evidence == {"held_out": 16, "out_of_fold": 96, "mixed": 4, "new": 4}
    assert (comparison.units, comparison.trained) == (UNITS, 0)
    assert "(16 held out, 96 out of fold, 4 held out for one and out of fold for the other, 4 new to the champion)" in (
        verdict(comparison).reason)


def test_an_out_of_fold_prediction_whose_model_saw_the_group_does_not_count() -> None:
    """Two ids that nobody knew to be one person were in two folds of the champion; now they are one group."""
    challenger, champion = (in_folds(answers(skill, seed=seed), slice(0, 24)) for skill, seed in ((0.9, 1), (0.6, 2)))
    comparison = compare(challenger, champion, frozenset({"unit-100-0"}))
    assert comparison
    assert (comparison.trained, comparison.units) == (2, UNITS - 2)


def test_a_champion_without_out_of_fold_predictions_is_compared_on_held_out_units_alone() -> None:
    challenger, champion = (in_folds(answers(skill, seed=seed), slice(0, 24)) for skill, seed in ((0.9, 1), (0.6, 2)))
    own = folds(champion)[["recording_id", "part"]]
    comparison = champion_comparison.compare(
        TASK, challenger, Champion("3", champion.take(champion.parts == "test"), own), folds(challenger),
        known(challenger), PARAMS, np.random.default_rng(0), looks.take(1, 0.95))
    assert comparison
    assert comparison.evidence == {"held_out": 24, "out_of_fold": 0, "mixed": 0, "new": 0}
    assert comparison.trained == UNITS - 24
    assert comparison.champion_held_out == comparison.champion


def test_each_look_needs_more_and_all_together_err_no_more_than_the_first_would() -> None:
    spent = [1 - looks.take(k, 0.95).confidence for k in range(1, 10_001)]
    assert sorted(spent, reverse=True) == spent
    assert 0.0499 < sum(spent) < 0.05
    challenger, champion = answers(0.75, seed=1, right=np.arange(UNITS) < 20), answers(0.72, seed=1)
    lows = [-found.loss.high for k in (1, 2, 30) if (found := compare(challenger, champion, look=k))]
    assert lows == sorted(lows, reverse=True) and lows[0] > lows[2]


def version(number: str, compared_with: str | None) -> SimpleNamespace:
    return SimpleNamespace(number=number, tags={"heartml.compared_with": compared_with} if compared_with else {})


def test_versions_that_were_judged_before_are_looks_whichever_champion_it_was() -> None:
    others = [version("1", "none"), version("2", "1"), version("3", "2"), version("4", None), version("5", "2")]
    assert looks.next_look(others, "5", 0.95, first=False).number == 3, "its own earlier judgement is no other look"
    assert looks.next_look(others, "6", 0.95, first=False).number == 4
    assert looks.next_look(others, "6", 0.95, first=True).number == 2
    assert looks.next_look([], "1", 0.95, first=True) == looks.take(1, 0.95)


def test_of_ten_looks_at_equal_models_at_most_one_in_twenty_promotes_any() -> None:
    """Forty series of ten challengers that are as good as the champion, on the same 60 units."""
    rng, promoted = np.random.default_rng(3), 0
    for series in range(40):
        champion = answers(0.7, seed=1000 + series).take(np.arange(60))
        challengers = [answers(0.7, seed=int(rng.integers(1 << 30))).take(np.arange(60)) for _ in range(10)]
        promoted += any(paired_bootstrap(
            METRICS[LOSS], champion.labels, (own.calibrated, own.decisions), (champion.calibrated, champion.decisions),
            champion.classes, champion.groups, resamples=200, confidence=looks.take(look, 0.95).confidence,
            rng=np.random.default_rng(0)).high < 0 for look, own in enumerate(challengers, start=1))
    assert promoted <= 4, "two are expected at most; five or more would be seen in one of twenty cases"


def test_a_refresh_need_only_be_shown_not_to_be_worse() -> None:
    champion = answers(0.8, seed=1)
    same = compare(champion, champion)
    refreshed = Policy(NOT_WORSE, "the same recipe and 12 more recordings to train on")
    said = verdict(same, policy=refreshed)
    assert said.promote and not verdict(same).promote
    assert "not worse is enough, by at most 0.050 (the same recipe and 12 more recordings to train on)" in said.reason
    worse = compare(answers(0.55, seed=4), champion)
    refused = verdict(worse, policy=refreshed)
    assert {c.name for c in refused.criteria if not c.passed} >= {"better", "metric"}


@pytest.mark.parametrize(("asked", "others", "recordings", "kind", "why"), [
    ("not_worse", {"seed": 2, "search": {"trials": 4}}, 3, NOT_WORSE, "the same recipe and 1 more recordings"),
    ("not_worse", {"search": {"trials": 8}}, 3, "better", "other parameters in `search`"),
    ("not_worse", {"search": {"trials": 4}}, 2, "better", "not more recordings"),
    ("not_worse", None, 3, "better", "keeps no parameters"),
    ("better", {"search": {"trials": 4}}, 3, "better", "")])
def test_a_refresh_has_the_same_recipe_and_more_recordings(
    asked: str, others: dict | None, recordings: int, kind: str, why: str
) -> None:
    own, theirs = (pd.DataFrame({"recording_id": list("abcd")[:n + 1], "part": ["test", *"012"][:n + 1]})
                   for n in (recordings, 2))
    found = refresh.policy(asked, {"seed": 1, "search": {"trials": 4}}, others, own, theirs)
    assert found.kind == kind and why in found.why
