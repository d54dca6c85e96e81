"""What a comparison says where its groups cannot tell two versions apart, and which difference they would show."""

import numpy as np
import pytest
from support.scored_units import draw_scored_units
from support.workspaces import ROOT

from heartml.core import config
from heartml.metrics import METRICS
from heartml.metrics.scores import LabelledPredictions
from heartml.release import comparison, comparison_page

UAR = METRICS["uar"]
PARAMS = config.load(ROOT / "params.yaml").gate


def compared(first: LabelledPredictions, second: LabelledPredictions) -> dict[str, object]:
    """What `headline` reads of a comparison on one metric."""
    groups = len(np.unique(second.groups))
    return {"first": {"name": "demo-murmur", "version": 1}, "second": {"name": "demo-murmur", "version": 2},
            "metric": "uar", "units": len(second.labels), "groups": groups, "least_groups": PARAMS.min_groups,
            "metrics": {"uar": comparison.compare_metric(UAR, first, second, PARAMS, seed=0)}}


def with_mistakes(truth: LabelledPredictions, share: float, seed: int) -> LabelledPredictions:
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(truth.labels)) < share
    decisions = np.where(wrong, (truth.labels + 1) % len(truth.classes), truth.labels)
    return LabelledPredictions(**{**vars(truth), "decisions": decisions})


def of_size(groups: int) -> dict[str, object]:
    truth = draw_scored_units(3 * groups, groups)
    return compared(with_mistakes(truth, 0.3, 1), with_mistakes(truth, 0.25, 2))


def test_few_groups_are_said_to_be_unable_to_tell_and_more_of_them_show_a_smaller_difference() -> None:
    found = of_size(8)
    of = found["metrics"]["uar"]
    assert of["better"] == "neither"
    said = comparison_page.headline(found)
    assert said.startswith("8 groups cannot tell whether version 1 or version 2 is better. Mean recall (UAR) ")
    assert f"So many groups show a difference from about {of['detectable']:.2f} on" in said
    assert "chance" not in said.lower()
    assert comparison_page._figures(of, found)[3] == f"cannot tell below {of['detectable']:.2f}"
    assert of_size(200)["metrics"]["uar"]["detectable"] < of["detectable"] / 2


def test_a_difference_that_large_would_have_been_told() -> None:
    of = of_size(8)["metrics"]["uar"]["difference"]
    for sign in (1, -1):
        shift = sign * 1.001 * comparison.detectable(of) - of["value"]
        moved = {key: of[key] + shift for key in ("value", "low", "high")}
        assert comparison.better(UAR, moved) == ("second" if sign > 0 else "first")


def test_versions_that_predict_the_same_are_the_same() -> None:
    one = with_mistakes(draw_scored_units(24, 8), 0.3, 1)
    found = compared(one, one)
    assert found["metrics"]["uar"]["detectable"] == 0
    assert comparison_page.headline(found).startswith("Version 1 and version 2 score the same on these 8 groups. ")
    assert comparison_page._figures(found["metrics"]["uar"], found)[3] == "the same"


def test_a_metric_that_is_not_defined_is_not_called_undecided() -> None:
    found = of_size(8)
    none = dict.fromkeys(("value", "low", "high"))
    found["metrics"]["uar"] |= {"difference": none, "better": "neither", "detectable": comparison.detectable(none)}
    assert comparison_page.headline(found) == "Mean recall (UAR) is not defined on the 8 groups that were compared"


@pytest.mark.parametrize(("difference", "expected"), [
    ({"value": 0.05, "low": -0.07, "high": 0.15}, 0.12), ({"value": -0.05, "low": -0.2, "high": 0.05}, 0.15),
])
def test_the_longer_side_of_the_interval_counts(difference: dict[str, float], expected: float) -> None:
    assert comparison.detectable(difference) == pytest.approx(expected)
