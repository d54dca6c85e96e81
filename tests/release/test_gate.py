"""The gate: better beyond chance on the same held-out groups, no subgroup worse, floors beaten; all in numbers."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from heartml.core.config import GateParams
from heartml.core.tasks import TASKS
from heartml.evaluation.baselines import BASELINES
from heartml.metrics import METRICS
from heartml.metrics.scores import LabelledPredictions
from heartml.release import champion_comparison, gate
from heartml.release.champion_comparison import Champion

TASK = TASKS["murmur"]
PARAMS = GateParams(confidence=0.95, bootstrap=500, min_groups=5, subgroup_margin=0.05, min_subgroup_groups=10,
                    calibration_margin=0.05, calibration_limit=0.15, catch_up_recordings=0)
UNITS = 120
TITLES = {name: floor.title for name, floor in BASELINES.items()}


def answers(
    skill: float, *, seed: int, wrong: np.ndarray | None = None, right: np.ndarray | None = None
) -> LabelledPredictions:
    """Answers to the same units, right with probability `skill`; never where `wrong`, always where `right` [units]."""
    labels = np.random.default_rng(7).integers(0, 3, UNITS)
    hit = np.random.default_rng(seed).random(UNITS) < skill
    hit = (hit if right is None else hit | right) & ~(np.zeros(UNITS, bool) if wrong is None else wrong)
    decisions = np.where(hit, labels, (labels + 1) % 3)
    names = np.array(TASK.classes)
    table = pd.DataFrame({
        "unit_id": [f"unit-{n:03}" for n in range(UNITS)], "group_id": [f"group-{n // 2:03}" for n in range(UNITS)],
        "label": names[labels], "part": "test", "decision": names[decisions],
    })
    for kind in "pc":
        table[[f"{kind}_{name}" for name in names]] = np.eye(3)[decisions] * 0.7 + 0.1
    return LabelledPredictions.from_table(table, TASK.classes)


def folds(scored: LabelledPredictions) -> pd.DataFrame:
    """Two recordings a unit, all held out."""
    rows = [{"recording_id": f"{unit}-{r}", "unit_id": unit, "group_id": group, "label": "Absent", "part": "test"}
            for unit, group in zip(scored.unit_ids, scored.groups, strict=True) for r in range(2)]
    return pd.DataFrame(rows)


def known(scored: LabelledPredictions) -> pd.DataFrame:
    return pd.DataFrame({"sex": np.where(np.arange(len(scored.unit_ids)) % 4 < 2, "Female", "Male")},
                        index=scored.unit_ids)


def compare(
    challenger: LabelledPredictions, champion: LabelledPredictions | None, trained_on: frozenset[str] = frozenset()
) -> champion_comparison.Comparison | None:
    return champion_comparison.compare(TASK, challenger, Champion("3", champion, trained_on), folds(challenger),
                                       known(challenger), PARAMS, np.random.default_rng(0))


def verdict(
    comparison: champion_comparison.Comparison | None, *, against: dict | None = None, problems: tuple[str, ...] = ()
) -> gate.Verdict:
    metric = METRICS[TASK.metric]
    floors = against or {"source": {"value": 0.3, "low": 0.1, "high": 0.5}}
    criteria = [
        gate.better_than_champion(metric, "3", comparison, PARAMS),
        gate.no_subgroup_loses(comparison, PARAMS.subgroup_margin),
        gate.as_well_calibrated(comparison, PARAMS.calibration_margin),
        gate.beats_baselines(metric, 0.8, floors, TITLES),
        gate.no_problems("lineage", problems, "complete"),
    ]
    return gate.decide(criteria, comparison, first=False)


def test_a_clearly_better_challenger_is_promoted_and_the_reason_has_the_number() -> None:
    comparison = compare(answers(0.95, seed=1), answers(0.6, seed=2))
    assert comparison
    said = verdict(comparison)
    assert said.promote
    assert f"{comparison.difference.value:+.3f}" in said.reason
    assert comparison.units == UNITS
    assert comparison.groups == UNITS / 2


def test_a_model_does_not_beat_itself() -> None:
    same = answers(0.8, seed=1)
    said = verdict(compare(same, same))
    assert not said.promote
    assert "better" in said.reason


@pytest.mark.parametrize(("groups", "passed"), [(1, False), (2, False), (4, False), (5, True), (6, True)])
def test_on_few_groups_nothing_is_better(groups: int, passed: bool) -> None:
    right, wrong = answers(1.0, seed=1), answers(0.0, seed=2)
    left = sorted({f"{unit}-0" for unit in right.unit_ids[2 * groups:]})
    comparison = compare(right, wrong, frozenset(left))
    assert comparison
    assert (comparison.groups, comparison.difference.low > 0) == (groups, True)
    said = gate.better_than_champion(METRICS[TASK.metric], "3", replace(comparison, absent=()), PARAMS)
    assert said.passed == passed
    told = (f"compared on {groups} held-out groups, at least 5 are needed; {UNITS - 2 * groups} left out (champion "
            "trained on them): `heartml promote` decides, or keep champion 3's `seed`")
    assert (said.words == told) != passed
    assert passed or (said.value, said.required) == (groups, 5)


def test_a_class_that_is_held_out_and_not_compared_stops_a_better_model() -> None:
    right = answers(1.0, seed=1)
    rare = right.labels == TASK.classes.index("Unknown")
    champion = answers(0.5, seed=2).take(~rare)
    comparison = compare(right, champion)
    assert comparison
    assert (comparison.absent, comparison.difference.low > 0) == (("Unknown",), True)
    said = verdict(comparison)
    assert not said.promote
    assert f"none of them Unknown; {rare.sum()} left out (champion has no prediction for them): " in said.reason
    assert "raise `gate.catch_up_recordings`" in said.reason
    assert compare(right.take(~rare), champion).absent == ()       # what nobody holds out nobody misses


def test_a_gain_that_chance_explains_is_refused() -> None:
    comparison = compare(answers(0.82, seed=1), answers(0.75, seed=3))
    assert comparison
    assert comparison.difference.low < 0 < comparison.difference.value
    assert not verdict(comparison).promote


def test_a_subgroup_that_loses_more_than_the_margin_stops_a_better_model() -> None:
    boys = np.arange(UNITS) % 4 >= 2
    better_but = answers(1.0, seed=1, wrong=boys & (np.arange(UNITS) % 3 == 0))
    comparison = compare(better_but, answers(0.3, seed=2, right=boys))
    assert comparison
    assert comparison.difference.low > 0
    said = verdict(comparison)
    assert not said.promote
    assert "sex=Male" in said.reason
    [criterion] = [c for c in said.criteria if c.name == "subgroups"]
    assert criterion.value is not None
    assert criterion.value < -PARAMS.subgroup_margin


@pytest.mark.parametrize(("gain", "passed"), [(-0.04, True), (-0.06, False)])      # the margin is 0.05
def test_a_subgroup_may_lose_the_margin_and_no_more(gain: float, passed: bool) -> None:
    same = compare(answers(0.8, seed=1), answers(0.8, seed=1))
    assert same
    gains = {"sex=Female": 0.3, "sex=Male": gain}
    worse = replace(same, subgroups={name: {"gain": one, "groups": 30.0} for name, one in gains.items()})
    criterion = gate.no_subgroup_loses(worse, PARAMS.subgroup_margin)
    assert (criterion.passed, criterion.value, criterion.required) == (passed, gain, -0.05)


def test_units_of_groups_that_the_champion_was_trained_on_do_not_count() -> None:
    challenger = answers(0.9, seed=1)
    trained_on = frozenset({"unit-000-1", "unit-004-0"})   # one recording is enough to know the whole group
    comparison = compare(challenger, answers(0.6, seed=2), trained_on)
    assert comparison
    assert comparison.trained == 4
    assert comparison.units == UNITS - 4
    assert "champion trained on them" in verdict(comparison).reason


def test_units_that_the_champion_never_answered_are_counted_and_left_out() -> None:
    champion = answers(0.6, seed=2).take(np.arange(UNITS) >= 10)
    comparison = compare(answers(0.9, seed=1), champion)
    assert comparison
    assert comparison.unknown == 10
    assert comparison.units == UNITS - 10


def test_the_order_of_the_champions_rows_does_not_matter() -> None:
    challenger, champion = answers(0.9, seed=1), answers(0.6, seed=2)
    shuffled = champion.take(np.random.default_rng(0).permutation(UNITS))
    assert compare(challenger, champion) == compare(challenger, shuffled)


@pytest.mark.parametrize("champion", [None, answers(0.6, seed=2).take(np.zeros(UNITS, bool))])
def test_a_champion_that_cannot_be_compared_is_not_replaced(champion: LabelledPredictions | None) -> None:
    comparison = compare(answers(0.99, seed=1), champion)
    assert comparison is None
    said = verdict(comparison)
    assert not said.promote
    assert "cannot be compared" in said.reason


def test_below_one_floor_is_below_the_gate() -> None:
    floors = {"source": {"value": 0.3, "low": 0.1, "high": 0.5}, "nuisance": {"value": -0.01, "low": -0.1, "high": 0.1}}
    said = verdict(compare(answers(0.95, seed=1), answers(0.5, seed=2)), against=floors)
    assert not said.promote
    assert "loudness and length alone" in said.reason


def surer(scored: LabelledPredictions, temperature: float) -> LabelledPredictions:
    """The same decisions and probabilities, said with another confidence."""
    sharp = scored.calibrated ** (1 / temperature)
    return replace(scored, calibrated=sharp / sharp.sum(axis=1, keepdims=True))


def test_a_better_model_that_overstates_its_confidence_is_refused() -> None:
    champion = surer(answers(0.6, seed=2), 2.0)
    better = answers(0.2, seed=1, right=champion.decisions == champion.labels)
    boast = compare(surer(better, 0.1), champion)
    assert boast
    assert boast.difference.low > 0
    said = verdict(boast)
    assert not said.promote
    [criterion] = [c for c in said.criteria if not c.passed]
    assert (criterion.name, criterion.value) == ("calibration", boast.calibration.high)
    assert boast.calibration.high > PARAMS.calibration_margin
    assert verdict(compare(surer(better, 2.0), champion)).promote


def drawn(rng: np.random.Generator, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are true, [units, 3], and labels drawn from them."""
    p = np.exp(2 * rng.normal(size=(units, 3)))
    p /= p.sum(axis=1, keepdims=True)
    return p, np.array([rng.choice(3, p=row) for row in p])


def test_equal_confidence_is_rarely_refused_and_over_confidence_is_nearly_always_found() -> None:
    rng = np.random.default_rng(0)
    refused = {1.0: 0, 0.4: 0}
    for _ in range(30):
        p, labels = drawn(rng, 50)
        champion = replace(answers(0.5, seed=1).take(np.arange(50)), labels=labels, probabilities=p, calibrated=p,
                           groups=np.arange(50).astype(str))
        noisy = p * np.exp(rng.normal(0, 0.15, p.shape))
        for temperature in refused:
            own = replace(champion, calibrated=noisy / noisy.sum(axis=1, keepdims=True))
            comparison = compare(surer(own, temperature), champion)
            assert comparison
            refused[temperature] += not gate.as_well_calibrated(comparison, PARAMS.calibration_margin).passed
    assert refused[1.0] <= 2
    assert refused[0.4] >= 24


@pytest.mark.parametrize("error, passed", [
    ({"value": 0.08, "low": 0.05, "high": 0.2}, True), ({"value": 0.3, "low": 0.12, "high": 0.4}, True),
    ({"value": 0.3, "low": 0.21, "high": 0.4}, False), ({"value": None, "low": None, "high": None}, False)])
def test_a_first_model_must_not_be_shown_to_be_far_from_what_it_says(error: dict, passed: bool) -> None:
    criterion = gate.first_model_calibrated(error, PARAMS.calibration_limit)
    assert criterion.passed is passed
    assert criterion.value == error["low"]


def test_a_missing_link_of_the_lineage_is_named() -> None:
    said = verdict(compare(answers(0.95, seed=1), answers(0.5, seed=2)), problems=("no git commit",))
    assert not said.promote
    assert "lineage: no git commit" in said.reason


def test_for_a_cost_smaller_is_better() -> None:
    cost = METRICS["outcome_cost"]
    cheaper = gate.beats_baselines(cost, 9000, {"source": {"value": -1000.0, "low": -1500.0, "high": -500.0}}, TITLES)
    dearer = gate.beats_baselines(cost, 9000, {"source": {"value": 1000.0, "low": 500.0, "high": 1500.0}}, TITLES)
    assert cheaper.passed
    assert not dearer.passed


@pytest.mark.parametrize(("low", "said"), [(-0.01, True), (0.0, True), (0.01, False)])
def test_a_lead_over_the_floors_that_may_be_nothing_is_said_to_be(low: float, said: bool) -> None:
    lead = gate.beats_baselines(METRICS[TASK.metric], 0.8, {"source": {"value": 0.1, "low": low, "high": 0.2}}, TITLES)
    assert lead.passed and "against the best baseline (data source alone)" in lead.words
    assert ("an interval that contains zero" in lead.words) == said


def test_the_first_model_needs_no_champion() -> None:
    floors = gate.beats_baselines(METRICS[TASK.metric], 0.8, {"source": {"value": 0.3, "low": 0.1, "high": 0.5}},
                                  TITLES)
    said = gate.decide([floors], None, first=True)
    assert said.promote
    assert "first model" in said.reason


def test_a_verdict_is_plain_json_without_nan() -> None:
    comparison = compare(answers(0.95, seed=1), answers(0.6, seed=2))
    text = json.dumps(verdict(comparison).as_json(), allow_nan=False)
    assert json.loads(text)["comparison"]["units"] == UNITS
