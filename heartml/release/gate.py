"""The gate between challenger and champion: the conditions of promotion, each with its number, and the verdict.

In: a `Comparison` with the champion (heartml/release/champion_comparison.py), the challenger's lead over the baselines,
and what is missing in validation and lineage. Out: a `Verdict` with all criteria. The criteria that compare with a
champion are in heartml/release/champion_criteria.py. Pure: no file, no registry, no clock.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from heartml.core.config import GateParams
from heartml.data.persons import unknown_in_words
from heartml.metrics import Metric
from heartml.metrics.bootstrap import Difference
from heartml.registry.champions import Entry
from heartml.registry.version_cautions import RETIRED
from heartml.release.champion_comparison import Comparison, gain
from heartml.release.looks import Look

BETTER, NOT_WORSE = "better", "not_worse"       # `gate.policy`


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
class Evidence:
    """What a comparison with baselines rests on.

    Attributes:
        held_out, out_of_fold: units of each kind.
        look: with the confidence of the intervals.
        certain: the whole interval must lie above zero, not only the value.
        first: there is no champion.
    """

    held_out: int
    out_of_fold: int
    look: Look
    certain: bool
    first: bool


@dataclass(frozen=True)
class Verdict:
    """Promote or not, and why.

    Attributes:
        look: which look it was, and the confidence of its intervals.
        policy: `better` or `not_worse`.
    """

    promote: bool
    reason: str
    criteria: tuple[Criterion, ...]
    comparison: Comparison | None
    look: Look | None = None
    policy: str = BETTER

    def as_json(self) -> dict[str, Any]:
        """Plain values for the registry and the report; NaN becomes null."""
        return {key: _json(value) for key, value in asdict(self).items()}


def plus(number: float) -> str:
    """With its sign and three digits; zero has a plus.

    >>> plus(0.1234), plus(-0.0)
    ('+0.123', '+0.000')
    """
    return f"{number + 0.0:+.3f}"


def percent(confidence: float) -> str:
    """With as many digits as tell it from one.

    >>> percent(0.95), percent(0.9696), percent(0.9924), percent(0.99992)
    ('95%', '97%', '99.2%', '99.992%')
    """
    digits = max(1, -math.floor(math.log10(100 * (1 - confidence))))
    return f"{100 * confidence:.{digits}f}".rstrip("0").rstrip(".") + "%"


def first_model_calibrated(error: Mapping[str, float | None], groups: int, params: GateParams) -> Criterion:
    """For a first model: the interval of its calibration error (ECE) does not lie wholly above the limit.

    The lower end of the interval decides, because with few units even a well calibrated model has an error. Of well
    calibrated models 1 % are refused with 50 held-out groups and 6 % with 20 (1 % and 14 % if the decision rule often
    prefers another class than the likeliest; 200 simulated draws). With fewer groups than `gate.min_groups` the
    resamples are much alike, and their interval says nothing (with one group it has no width). Then a person decides.

    Args:
        error: {value, low, high}; null where it is not defined.
        groups: held-out groups that it was measured on.

    >>> from types import SimpleNamespace
    >>> params = SimpleNamespace(calibration_limit=0.15, min_groups=5)
    >>> first_model_calibrated({"value": 0.2, "low": 0.1, "high": 0.3}, 20, params).passed
    True
    >>> first_model_calibrated({"value": 0.3, "low": 0.2, "high": 0.4}, 20, params).passed
    False
    >>> first_model_calibrated({"value": 0.2, "low": 0.2, "high": 0.2}, 1, params).words
    'the calibration error cannot be estimated from 1 held-out group, at least 5 are needed: `heartml promote` decides'
    """
    value, low, high = (error[key] for key in ("value", "low", "high"))
    limit = params.calibration_limit
    if groups < params.min_groups:
        return Criterion("calibration", False, float(groups), float(params.min_groups), "the calibration error cannot "
                         f"be estimated from {groups} held-out group{'s' * (groups != 1)}, at least "
                         f"{params.min_groups} are needed: `heartml promote` decides")
    if value is None or low is None or high is None:
        return Criterion("calibration", False, None, limit, "the calibration error is not defined")
    return Criterion("calibration", low <= limit, low, limit, f"calibration error {value:.3f} [{low:.3f}, {high:.3f}], "
                     f"refused where all of the interval lies above {limit:.3f}")


def beats_baselines(
    metric: Metric, value: float, differences: Mapping[str, Difference], titles: Mapping[str, str], on: Evidence,
) -> Criterion:
    """Better than every baseline on the same units: held-out ones and out-of-fold ones together.

    A first model has no champion beside it, so the whole interval of its lead must lie above zero, at the confidence of
    this look. Otherwise it is registered and a person decides. Where a champion has been beaten, the value decides, and
    with `gate.first_model: value`, a setting for demonstrations, which the sentence names.

    The criterion's name is `floors`, as stored versions have it.

    Args:
        value: the challenger's, on these units.
        differences: baseline -> the challenger minus that baseline.
        titles: baseline -> what it is, in words.

    >>> from dataclasses import replace
    >>> from heartml.metrics import METRICS
    >>> differences = {"source": Difference(0.3, 0.1, 0.5, 0.01), "nuisance": Difference(0.1, -0.1, 0.3, 0.2)}
    >>> titles = {"source": "Data source alone", "nuisance": "Loudness and length alone"}
    >>> on = Evidence(held_out=21, out_of_fold=83, look=Look(1, 0.97), certain=True, first=True)
    >>> criterion = beats_baselines(METRICS["uar"], 0.8, differences, titles, on)
    >>> criterion.passed, criterion.value
    (False, -0.1)
    >>> criterion.words.partition(", ")[2]
    '+0.100 [-0.100, +0.300] against the best baseline (loudness and length alone) at 97% (look 1) on 21 units held \
out and 83 out of fold, an interval that contains zero: `heartml promote` decides'
    >>> beats_baselines(METRICS["uar"], 0.8, differences, titles, replace(on, certain=False)).passed
    True
    """
    leads = {name: _lead(metric, d, certain=on.certain) for name, d in differences.items() if not np.isnan(d.value)}
    if not leads:
        return Criterion("floors", False, None, 0.0, "no baseline was evaluated")
    best = min(leads, key=lambda name: leads[name])
    d = differences[best]
    unclear = ""
    if d.low <= 0 <= d.high:
        why = ": `heartml promote` decides" if on.certain else " (`gate.first_model: value`)" if on.first else ""
        unclear = f", an interval that contains zero{why}"
    return Criterion(
        "floors", leads[best] > 0, leads[best], 0.0, f"{metric.title} {value:.3f}, {plus(d.value)} [{plus(d.low)}, "
        f"{plus(d.high)}] against the best baseline ({titles[best].lower()}) at {percent(on.look.confidence)}"
        f"{f' (look {on.look.number})' if on.first else ''} on {on.held_out} units held out and {on.out_of_fold} out "
        f"of fold{unclear}")


def _lead(metric: Metric, difference: Difference, *, certain: bool) -> float:
    ends = (difference.low, difference.high) if certain else (difference.value,)
    return min(gain(metric, end) for end in ends)


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


def decide(
    criteria: Sequence[Criterion], comparison: Comparison | None, *, first: bool, look: Look | None = None,
    policy: str = BETTER,
) -> Verdict:
    """Promote if every criterion holds. The reason names the criteria that decided.

    Args:
        first: there is no champion yet.
        look, policy: are stored with the verdict.

    >>> beaten = Criterion("floors", True, 0.1, 0.0, "UAR 0.800")
    >>> decide([beaten], None, first=True).reason
    'promoted: first model of this task; UAR 0.800'
    >>> decide([beaten, no_problems("lineage", ["no git commit"], "")], None, first=True).reason
    'refused: lineage: no git commit'
    """
    failed = [c for c in criteria if not c.passed]
    if failed:
        reason = "refused: " + "; ".join(f"{c.name}: {c.words}" for c in failed)
        return Verdict(False, reason, tuple(criteria), comparison, look, policy)
    intro = "first model of this task; " if first else ""
    words = "; ".join(c.words for c in criteria if c.name in ("better", "metric", "floors", "groups"))
    return Verdict(True, f"promoted: {intro}{words}", tuple(criteria), comparison, look, policy)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value
