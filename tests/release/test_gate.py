"""The gate: better beyond chance on the same groups, no subgroup worse, baselines beaten; all in numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.compared_models import AHEAD, FIRST, PARAMS, TASK, TITLES, UNITS, answers, compare, verdict

from heartml.metrics import METRICS
from heartml.metrics.bootstrap import Difference
from heartml.metrics.scores import LabelledPredictions
from heartml.release import champion_criteria, gate


def test_a_clearly_better_challenger_is_promoted_and_the_reason_has_the_number() -> None:
    comparison = compare(answers(0.95, seed=1), answers(0.6, seed=2))
    assert comparison
    said = verdict(comparison)
    assert said.promote
    assert f"{-comparison.loss.value:+.3f}" in said.reason
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
    assert comparison.groups == groups
    clear = replace(comparison, absent=(), loss=Difference(-0.5, -0.6, -0.4, 0.001))
    said = champion_criteria.better_than_champion("3", clear, PARAMS)
    assert said.passed == passed
    told = (f"compared on {groups} groups, at least 5 are needed; {UNITS - 2 * groups} left out (champion "
            "trained on them): `heartml promote` decides, or keep champion 3's `seed`")
    assert (said.words == told) != passed
    assert passed or (said.value, said.required) == (groups, 5)


def test_a_class_that_is_held_out_and_not_compared_stops_a_better_model() -> None:
    right = answers(1.0, seed=1)
    rare = right.labels == TASK.classes.index("Unknown")
    champion = answers(0.5, seed=2).take(~rare)
    comparison = compare(right, champion)
    assert comparison
    assert (comparison.absent, comparison.loss.high < 0) == (("Unknown",), True)
    said = verdict(comparison)
    assert not said.promote
    assert f"none of them Unknown; {rare.sum()} left out (champion has no prediction for them): " in said.reason
    assert "raise `gate.catch_up_recordings`" in said.reason
    assert compare(right.take(~rare), champion).absent == ()       # what nobody holds out nobody misses


def test_a_gain_that_chance_explains_is_refused() -> None:
    comparison = compare(answers(0.82, seed=1), answers(0.75, seed=3))
    assert comparison
    assert comparison.loss.value < 0 < comparison.loss.high
    assert "better" in {criterion.name for criterion in verdict(comparison).criteria if not criterion.passed}


def test_a_subgroup_that_loses_more_than_the_margin_stops_a_better_model() -> None:
    boys = np.arange(UNITS) % 4 >= 2
    better_but = answers(1.0, seed=1, wrong=boys & (np.arange(UNITS) % 5 == 0))
    comparison = compare(better_but, answers(0.2, seed=2, right=boys))
    assert comparison
    assert comparison.loss.high < 0
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
    criterion = champion_criteria.no_subgroup_loses(worse, PARAMS.subgroup_margin)
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
    floors = {"source": AHEAD, "nuisance": Difference(-0.01, -0.1, 0.1, 0.6)}
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
    failed = {c.name: c.value for c in said.criteria if not c.passed}
    assert failed == {"better": -boast.loss.high, "calibration": boast.calibration.high}
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
            found = champion_criteria.as_well_calibrated(comparison, PARAMS.calibration_margin)
            refused[temperature] += not found.passed
    assert refused[1.0] <= 2
    assert refused[0.4] >= 24


@pytest.mark.parametrize("error, passed", [
    ({"value": 0.08, "low": 0.05, "high": 0.2}, True), ({"value": 0.3, "low": 0.12, "high": 0.4}, True),
    ({"value": 0.3, "low": 0.21, "high": 0.4}, False), ({"value": None, "low": None, "high": None}, False)])
def test_a_first_model_must_not_be_shown_to_be_far_from_what_it_says(error: dict, passed: bool) -> None:
    criterion = gate.first_model_calibrated(error, 20, PARAMS)
    assert criterion.passed is passed
    assert criterion.value == error["low"]


@pytest.mark.parametrize("low", [0.0, 0.3])
def test_the_calibration_of_a_handful_of_groups_is_left_to_a_person(low: float) -> None:
    """Resamples of one group are one resample, so the interval has no width and would pass or refuse by accident."""
    criterion = gate.first_model_calibrated({"value": 0.3, "low": low, "high": 0.3}, PARAMS.min_groups - 1, PARAMS)
    assert not criterion.passed
    assert (criterion.value, criterion.required) == (PARAMS.min_groups - 1, PARAMS.min_groups)
    assert "cannot be estimated" in criterion.words


def test_a_missing_link_of_the_lineage_is_named() -> None:
    said = verdict(compare(answers(0.95, seed=1), answers(0.5, seed=2)), problems=("no git commit",))
    assert not said.promote
    assert "lineage: no git commit" in said.reason


def test_for_a_cost_smaller_is_better() -> None:
    cost = METRICS["outcome_cost"]
    cheaper = gate.beats_baselines(cost, 9000, {"source": Difference(-1000.0, -1500.0, -500.0, 0.01)}, TITLES, FIRST)
    dearer = gate.beats_baselines(cost, 9000, {"source": Difference(1000.0, 500.0, 1500.0, 0.99)}, TITLES, FIRST)
    assert cheaper.passed
    assert not dearer.passed


@pytest.mark.parametrize("low", [-0.01, 0.0, 0.01])
def test_a_first_model_whose_lead_may_be_nothing_is_left_to_a_person(low: float) -> None:
    """A lead of +.036 [-.231, +.286] on 21 patients was once promoted."""
    lead = {"source": Difference(0.1, low, 0.2, 0.2)}
    said = gate.decide([gate.beats_baselines(METRICS[TASK.metric], 0.8, lead, TITLES, FIRST)], None, first=True)
    assert "against the best baseline (data source alone)" in said.reason
    assert said.promote == (low > 0) == ("contains zero: `heartml promote` decides" not in said.reason)
    assert "on 24 units held out and 96 out of fold" in said.reason


def test_a_first_model_by_its_value_says_which_setting_let_it_pass() -> None:
    metric, by_value = METRICS[TASK.metric], replace(FIRST, certain=False)
    lead, behind = Difference(0.1, -0.1, 0.2, 0.2), Difference(-0.1, -0.2, 0.1, 1)
    said = gate.decide([gate.beats_baselines(metric, 0.8, {"source": lead}, TITLES, by_value)], None, first=True)
    assert said.promote and "(`gate.first_model: value`)" in said.reason
    assert not gate.beats_baselines(metric, 0.8, {"source": behind}, TITLES, by_value).passed


def test_the_worst_of_all_leads_decides_and_not_the_smallest_value() -> None:
    leads = {"source": Difference(0.05, 0.04, 0.06, 0.01), "nuisance": Difference(0.2, -0.1, 0.5, 0.1)}
    found = gate.beats_baselines(METRICS[TASK.metric], 0.8, leads, TITLES, FIRST)
    assert (found.passed, found.value) == (False, -0.1)
    assert "loudness and length alone" in found.words


def test_the_first_model_needs_no_champion() -> None:
    floors = gate.beats_baselines(METRICS[TASK.metric], 0.8, {"source": AHEAD}, TITLES, FIRST)
    said = gate.decide([floors], None, first=True)
    assert said.promote
    assert "first model" in said.reason


@pytest.mark.parametrize(("value", "passed"), [(-0.049, True), (-0.051, False)])
def test_a_better_log_loss_does_not_buy_a_worse_metric(value: float, passed: bool) -> None:
    comparison = compare(answers(0.95, seed=1), answers(0.6, seed=2))
    assert comparison
    lost = replace(comparison, difference=Difference(value, value - 0.1, value + 0.1, 0.9))
    assert verdict(lost).promote == passed


def test_a_verdict_is_plain_json_without_nan() -> None:
    comparison = compare(answers(0.95, seed=1), answers(0.6, seed=2))
    text = json.dumps(verdict(comparison).as_json(), allow_nan=False)
    assert json.loads(text)["comparison"]["units"] == UNITS
