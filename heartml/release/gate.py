"""The gate between challenger and champion: the conditions of promotion, each with its number, and the verdict.

In: a `Comparison` with the champion (heartml/release/champion_comparison.py), the challenger's scores beside the
baselines, and what is missing in validation and lineage. Out: a `Verdict` with all criteria. Pure: no file, no
registry, no clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from heartml.core.config import GateParams
from heartml.data.persons import unknown_in_words
from heartml.metrics import Metric
from heartml.registry.champions import Entry
from heartml.registry.version_cautions import RETIRED
from heartml.release.champion_comparison import Comparison, gain


@dataclass(frozen=True)
class Criterion:
    """One condition of promotion.

    Attributes:
        name: key, part of a tag in the registry.
        passed: whether it holds.
        value: what was measured, in the metric's unit or as a count; `None` if there is no number.
        required: the limit for `value`; `None` if there is no number.
        words: the sentence for people, with the numbers in it.
    """

    name: str
    passed: bool
    value: float | None
    required: float | None
    words: str


@dataclass(frozen=True)
class Verdict:
    """Promote or not, and why."""

    promote: bool
    reason: str
    criteria: tuple[Criterion, ...]
    comparison: Comparison | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for the registry and the report; NaN becomes null."""
        return {key: _json(value) for key, value in asdict(self).items()}


def better_than_champion(
    metric: Metric, champion: str, comparison: Comparison | None, params: GateParams
) -> Criterion:
    """The whole interval of the paired difference lies on the better side of zero, on enough groups of every class.

    A minimum of groups is needed because resamples of few groups are much alike. Of two equally good models one would
    pass as better in 18 to 25 % of draws of one group, and in 3 to 6 % of draws of two.

    Args:
        champion: number of its version.

    >>> from heartml.metrics import METRICS
    >>> from heartml.metrics.bootstrap import Difference
    >>> params = GateParams(confidence=0.95, bootstrap=1000, min_groups=5, subgroup_margin=0.05, calibration_limit=0.15,
    ...                     calibration_margin=0.05, min_subgroup_groups=10, catch_up_recordings=100)
    >>> gained = Comparison(units=40, groups=20, trained=3, unknown=0, absent=(), challenger={}, champion={},
    ...                     difference=Difference(0.1, 0.02, 0.18, 0.01), calibration=Difference(0.0, 0.0, 0.0, 1.0),
    ...                     subgroups={})
    >>> criterion = better_than_champion(METRICS["uar"], "3", gained, params)
    >>> criterion.passed, criterion.value
    (True, 0.02)
    >>> few = Comparison(**{**vars(gained), "groups": 4})
    >>> better_than_champion(METRICS["uar"], "3", few, params).words
    "compared on 4 held-out groups, at least 5 are needed; 3 left out (champion trained on them): \
`heartml promote` decides, or keep champion 3's `seed`"
    """
    if comparison is None:
        return Criterion("better", False, None, None, f"cannot be compared with champion {champion}: "
                         "no held-out unit in common, or other classes")
    if too_little := _too_little(comparison, champion, params.min_groups):
        return too_little
    d = comparison.difference
    worst = min(gain(metric, d.low), gain(metric, d.high))
    words = (f"{metric.title}: {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] against champion {champion} on "
             f"{comparison.groups} held-out groups at {params.confidence:.0%}{_left_out(comparison)}")
    return Criterion("better", bool(worst > 0), worst, 0.0, words)


def _left_out(comparison: Comparison) -> str:
    reasons = ((comparison.trained, "champion trained on them"),
               (comparison.unknown, "champion has no prediction for them"))
    words = ", ".join(f"{n} left out ({why})" for n, why in reasons if n)
    return f"; {words}" if words else ""


def _too_little(comparison: Comparison, champion: str, least: int) -> Criterion | None:
    """Refused because too few groups were compared, or not every class, with what can be done; else `None`."""
    groups, missing = comparison.groups, comparison.absent
    if groups >= least and not missing:
        return None
    value, required, lack = (groups, least, f", at least {least} are needed") if groups < least else (
        len(missing), 0, f", none of them {' or '.join(missing)}")
    ways = ["`heartml promote` decides", *([f"keep champion {champion}'s `seed`"] if comparison.trained else []),
            *(["raise `gate.catch_up_recordings`"] if comparison.unknown else [])]
    return Criterion("better", False, float(value), float(required), f"compared on {groups} held-out groups{lack}"
                     f"{_left_out(comparison)}: {', or '.join(ways)}")


def no_subgroup_loses(comparison: Comparison | None, margin: float) -> Criterion:
    """No subgroup that is large enough to compare loses more than the margin on the task's metric.

    Args:
        margin: allowed loss, in the metric's unit.

    >>> from types import SimpleNamespace
    >>> compared = SimpleNamespace(subgroups={"sex=Female": {"gain": 0.1, "groups": 30.0},
    ...                                       "sex=Male": {"gain": -0.02, "groups": 25.0}})
    >>> no_subgroup_loses(compared, 0.05).words
    'worst of 2 subgroups: sex=Male -0.020, allowed -0.050'
    >>> no_subgroup_loses(compared, 0.05).passed, no_subgroup_loses(compared, 0.01).passed
    (True, False)
    """
    gains = {name: s["gain"] for name, s in (comparison.subgroups if comparison else {}).items()
             if not np.isnan(s["gain"])}
    if not gains:
        return Criterion("subgroups", True, None, -margin, "no subgroup is large enough to compare")
    worst = min(gains, key=lambda name: gains[name])
    return Criterion("subgroups", gains[worst] >= -margin, gains[worst], -margin,
                     f"worst of {len(gains)} subgroups: {worst} {gains[worst]:+.3f}, allowed {-margin:+.3f}")


def as_well_calibrated(comparison: Comparison | None, margin: float) -> Criterion:
    """The whole interval of the paired difference in the Brier score lies below the margin.

    So the challenger has to show that its confidence is worth as much as the champion's. Simulated with 50 held-out
    groups: of two models that are both well calibrated, one in a hundred is refused (a third with 20 groups); of
    over-confident ones (temperature 0.4) nine in ten. The calibration error cannot be used like this, because its own
    noise would refuse nine in ten of the well calibrated ones.

    Args:
        margin: allowed loss in the Brier score.

    >>> from types import SimpleNamespace
    >>> from heartml.metrics.bootstrap import Difference
    >>> compared = SimpleNamespace(calibration=Difference(0.01, -0.01, 0.03, 0.9), challenger={"ece": 0.08},
    ...                            champion={"ece": 0.06})
    >>> as_well_calibrated(compared, 0.05).passed, as_well_calibrated(compared, 0.02).passed
    (True, False)
    """
    if comparison is None:
        return Criterion("calibration", False, None, margin, "cannot be compared with the champion's")
    d, own, other = comparison.calibration, comparison.challenger, comparison.champion
    words = (f"Brier score of the confidence {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], allowed {margin:+.3f}; "
             f"calibration error {own['ece']:.3f}, the champion's {other['ece']:.3f}")
    return Criterion("calibration", bool(d.high <= margin), d.high, margin, words)


def first_model_calibrated(error: Mapping[str, float | None], limit: float) -> Criterion:
    """For a first model: the interval of its calibration error (ECE) does not lie wholly above the limit.

    The lower end of the interval decides, because with few units even a well calibrated model has an error. Of well
    calibrated models 1 % are refused with 50 held-out groups and 11 % with 20 (4 % and 25 % if the decision rule often
    prefers another class than the likeliest).

    Args:
        error: {value, low, high}; null where it is not defined.

    >>> first_model_calibrated({"value": 0.2, "low": 0.1, "high": 0.3}, 0.15).passed
    True
    >>> first_model_calibrated({"value": 0.3, "low": 0.2, "high": 0.4}, 0.15).passed
    False
    """
    value, low, high = (error[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return Criterion("calibration", False, None, limit, "the calibration error is not defined")
    return Criterion("calibration", low <= limit, low, limit, f"calibration error {value:.3f} [{low:.3f}, {high:.3f}], "
                     f"refused where all of the interval lies above {limit:.3f}")


def beats_baselines(
    metric: Metric, value: float, differences: Mapping[str, Mapping[str, float | None]], titles: Mapping[str, str]
) -> Criterion:
    """Better than every baseline on the same held-out units. The value decides, not the interval: few are held out.

    The criterion's name is `floors`, as stored versions have it.

    Args:
        value: the challenger's.
        differences: baseline -> the challenger minus that baseline, as {value, low, high}.
        titles: baseline -> what it is, in words.

    >>> from heartml.metrics import METRICS
    >>> differences = {"source": {"value": 0.3, "low": 0.1, "high": 0.5},
    ...                "nuisance": {"value": 0.1, "low": -0.1, "high": 0.3}}
    >>> titles = {"source": "Data source alone", "nuisance": "Loudness and length alone"}
    >>> criterion = beats_baselines(METRICS["uar"], 0.8, differences, titles)
    >>> criterion.passed, criterion.value
    (True, 0.1)
    >>> criterion.words.partition(", ")[2]
    '+0.100 [-0.100, +0.300] against the best baseline (loudness and length alone), an interval that contains zero'
    """
    leads = {name: gain(metric, d["value"]) for name, d in differences.items() if d["value"] is not None}
    if not leads:
        return Criterion("floors", False, None, 0.0, "no baseline was evaluated")
    best = min(leads, key=lambda name: leads[name])
    d = differences[best]
    ends = [end for end in (d["low"], d["high"]) if end is not None]
    unclear = ", an interval that contains zero" if ends and min(ends) <= 0 <= max(ends) else ""
    span = f" [{', '.join(f'{end:+.3f}' for end in ends)}]" if ends else ""
    return Criterion("floors", leads[best] > 0, leads[best], 0.0, f"{metric.title} {value:.3f}, "
                     f"{d['value']:+.3f}{span} against the best baseline ({titles[best].lower()}){unclear}")


def no_problems(name: str, problems: Sequence[str], fine: str) -> Criterion:
    """A criterion that holds if there is no problem. Its number is the count of problems.

    Args:
        fine: the sentence for people if there is none.

    >>> no_problems("lineage", [], "the lineage is complete")
    Criterion(name='lineage', passed=True, value=0.0, required=0.0, words='the lineage is complete')
    >>> no_problems("lineage", ["no git commit"], "the lineage is complete").words
    'no git commit'
    """
    return Criterion(name, not problems, float(len(problems)), 0.0, "; ".join(problems) or fine)


def decided_by_a_person(retirement: Entry | None) -> list[Criterion]:
    """The criterion that fails as long as the last champion is retired; none if it is not.

    Args:
        retirement: the decision that took the last champion out of service.

    >>> from heartml.registry.champions import RETIREMENT, Decision
    >>> entry = Entry(2, Decision(RETIREMENT, "none", "1", "false alarms", "Ada"), 0, counts=True, followed=True)
    >>> [criterion.words.partition("UTC, ")[2] for criterion in decided_by_a_person(entry)]
    ['version 1 was retired by Ada: false alarms; `heartml promote` decides']
    >>> decided_by_a_person(None)
    []
    """
    if retirement is None:
        return []
    return [Criterion(RETIRED, False, None, None, f"{retirement.in_words()}; `heartml promote` decides")]


def groups_are_persons(counts: Mapping[str, int] | None) -> list[Criterion]:
    """A criterion that always holds and says that persons are unknown; none where they are known or were not counted.

    Args:
        counts: of `heartml.data.persons.count_unknown`.

    >>> groups_are_persons({"recordings": 9, "unknown": 0, "groups": 0, "alone": 0})
    []
    >>> [criterion] = groups_are_persons({"recordings": 9, "unknown": 9, "groups": 9, "alone": 9})
    >>> criterion.passed, criterion.value, criterion.words[:49]
    (True, 9.0, 'None of the 9 recordings names its person, so eac')
    """
    words = unknown_in_words(counts)
    return [Criterion("groups", True, float(counts["unknown"]), None, words.rstrip("."))] if counts and words else []


def decide(criteria: Sequence[Criterion], comparison: Comparison | None, *, first: bool) -> Verdict:
    """Promote if every criterion holds. The reason names the criteria that decided.

    Args:
        first: there is no champion yet.

    >>> beaten = Criterion("floors", True, 0.1, 0.0, "UAR 0.800")
    >>> decide([beaten], None, first=True).reason
    'promoted: first model of this task; UAR 0.800'
    >>> decide([beaten, no_problems("lineage", ["no git commit"], "")], None, first=True).reason
    'refused: lineage: no git commit'
    """
    failed = [c for c in criteria if not c.passed]
    if failed:
        reason = "refused: " + "; ".join(f"{c.name}: {c.words}" for c in failed)
        return Verdict(False, reason, tuple(criteria), comparison)
    intro = "first model of this task; " if first else ""
    words = "; ".join(c.words for c in criteria if c.name in ("better", "floors", "groups"))
    return Verdict(True, f"promoted: {intro}{words}", tuple(criteria), comparison)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value
