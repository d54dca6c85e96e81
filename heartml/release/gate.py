"""The gate between challenger and champion: held-out answers in, criteria with their numbers and a verdict out.

Both models are compared on the same held-out units, with the challenger's labels and groups, and only on units that
neither was trained on. Pure: no file, no registry, no clock.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import GateParams
from heartml.core.schema import TEST
from heartml.core.tasks import Task
from heartml.metrics import METRICS, Metric
from heartml.metrics.bootstrap import Difference, paired_bootstrap
from heartml.metrics.scores import Scored, task_metrics

CALIBRATION = ("ece", "brier")


@dataclass(frozen=True)
class Criterion:
    """One condition of promotion.

    Attributes:
        name: key, part of a tag in the registry.
        passed: whether it holds.
        value: what was measured, in the metric's unit or as a count; `None` where there is no number.
        required: what `value` is held against; `None` where there is no number.
        words: the sentence for people, with the numbers in it.
    """

    name: str
    passed: bool
    value: float | None
    required: float | None
    words: str


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the units that both can be judged on.

    Attributes:
        units, groups: how many were compared.
        trained: held-out units left out because their group was in the champion's training.
        unknown: held-out units left out because the champion never answered them.
        absent: classes of the challenger's held-out units that no compared unit has.
        challenger, champion: each metric's value on these units.
        difference: challenger minus champion on the task's metric, with its interval.
        calibration: challenger minus champion in the Brier score of their calibrated probabilities, with its interval.
        subgroups: `column=value` -> gain of the challenger on the task's metric (positive is better), and its groups.
    """

    units: int
    groups: int
    trained: int
    unknown: int
    absent: tuple[str, ...]
    challenger: Mapping[str, float]
    champion: Mapping[str, float]
    difference: Difference
    calibration: Difference
    subgroups: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Verdict:
    """Promote or not, and why."""

    promote: bool
    reason: str
    criteria: tuple[Criterion, ...]
    comparison: Comparison | None

    def as_json(self) -> dict[str, Any]:
        """For the registry and the report; what is not a number is null."""
        return {key: _json(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Champion:
    """What the gate knows about the serving model.

    Attributes:
        version: of the registered model.
        answers: to held-out units; `None` where it answers in other classes.
        trained_on: recording ids that it was fitted to.
    """

    version: str
    answers: Scored | None
    trained_on: Set[str]


def untrained(folds: pd.DataFrame, trained_on: Set[str]) -> pd.Series:
    """Held-out unit ids of the challenger's folds (schema.FOLDS) whose whole group the champion was not trained on."""
    seen = folds.loc[folds["recording_id"].isin(trained_on), "group_id"]
    held_out = folds.loc[folds["part"] == TEST].drop_duplicates("unit_id")
    return held_out.loc[~held_out["group_id"].isin(seen), "unit_id"]


def compare(
    task: Task, challenger: Scored, champion: Champion, folds: pd.DataFrame, subgroups: pd.DataFrame,
    params: GateParams, rng: np.random.Generator,
) -> Comparison | None:
    """Pair the answers of both models; `None` where no unit is left or the classes differ.

    Args:
        challenger: its answers to its held-out units.
        folds: of the challenger.
        subgroups: indexed by unit_id, one column a way to divide the units (sex, age group, source).
    """
    if champion.answers is None:
        return None
    fair = np.isin(challenger.unit_ids, untrained(folds, champion.trained_on).to_numpy(str))
    row_of = {unit: row for row, unit in enumerate(champion.answers.unit_ids)}
    known = np.array([unit in row_of for unit in challenger.unit_ids], dtype=bool)
    if not (fair & known).any():
        return None
    first = challenger.take(fair & known)
    second = champion.answers.take(np.array([row_of[unit] for unit in first.unit_ids], dtype=np.intp))
    metric = METRICS[task.metric]
    difference, calibration = (paired_bootstrap(
        of, first.labels, (shown(of, first), first.decisions), (shown(of, second), second.decisions), task.classes,
        first.groups, resamples=params.bootstrap, confidence=params.confidence, rng=rng,
    ) for of in (metric, METRICS["brier"]))
    return Comparison(
        len(first.labels), len(np.unique(first.groups)), int((~fair).sum()), int((fair & ~known).sum()),
        absent(challenger, first), _values(task, first, first), _values(task, first, second), difference, calibration,
        _subgroups(metric, first, second, subgroups.reindex(first.unit_ids), params.min_subgroup_groups),
    )


def absent(held_out: Scored, compared: Scored) -> tuple[str, ...]:
    """Classes that some held-out units have and none that is compared."""
    return tuple(held_out.classes[c] for c in np.setdiff1d(held_out.labels, compared.labels))


def shown(metric: Metric, answers: Scored) -> NDArray[np.float64]:
    """The probabilities that a metric is about: what a person is shown, for calibration; else what decides."""
    return answers.calibrated if metric.name in CALIBRATION else answers.probabilities


def _values(task: Task, truth: Scored, answers: Scored) -> dict[str, float]:
    return {m.name: _value(m, truth, answers) for m in (*task_metrics(task), *(METRICS[name] for name in CALIBRATION))}


def _value(metric: Metric, truth: Scored, answers: Scored) -> float:
    return metric.function(truth.labels, shown(metric, answers), answers.decisions, truth.classes)


def _subgroups(
    metric: Metric, first: Scored, second: Scored, known: pd.DataFrame, min_groups: int
) -> dict[str, dict[str, float]]:
    found = {}
    for column in known:
        for value in sorted(known[column].dropna().unique()):
            rows = (known[column] == value).fillna(False).to_numpy(bool)
            mine, theirs = first.take(rows), second.take(rows)
            groups = len(np.unique(mine.groups))
            if groups >= min_groups:
                difference = _value(metric, mine, mine) - _value(metric, mine, theirs)
                found[f"{column}={value}"] = {"gain": gain(metric, difference), "groups": float(groups)}
    return found


def gain(metric: Metric, difference: float) -> float:
    """A difference turned so that positive is better."""
    return difference if metric.greater_is_better else -difference


def better_than_champion(
    metric: Metric, champion: str, comparison: Comparison | None, params: GateParams
) -> Criterion:
    """The whole interval of the paired difference lies on the better side of zero, on enough groups of every class.

    Resamples of few groups are much alike: of two equally good models one passes as better in 18 to 25 % of draws of
    one group, in 3 to 6 % of two.
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
    reasons = ((comparison.trained, "champion trained on them"), (comparison.unknown, "champion never answered them"))
    told = ", ".join(f"{n} left out ({why})" for n, why in reasons if n)
    return f"; {told}" if told else ""


def _too_little(comparison: Comparison, champion: str, least: int) -> Criterion | None:
    """Too few groups or not every class: refused, with the way out."""
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
    """No subgroup that is large enough to say so loses more than the margin on the task's metric."""
    gains = {name: s["gain"] for name, s in (comparison.subgroups if comparison else {}).items()
             if not np.isnan(s["gain"])}
    if not gains:
        return Criterion("subgroups", True, None, -margin, "no subgroup is large enough to compare")
    worst = min(gains, key=lambda name: gains[name])
    return Criterion("subgroups", gains[worst] >= -margin, gains[worst], -margin,
                     f"worst of {len(gains)} subgroups: {worst} {gains[worst]:+.3f}, allowed {-margin:+.3f}")


def as_well_calibrated(comparison: Comparison | None, margin: float) -> Criterion:
    """The whole interval of the paired difference in the Brier score lies below the margin: it is for the challenger to
    show that its confidence is worth as much.

    Of models that are as sure as they are right, against their like, this refuses one in a hundred with 50 held-out
    groups (a third with 20), and of over-confident ones (temperature 0.4) nine in ten. The calibration error cannot
    be used so: its noise alone would refuse nine in ten of the former.
    """
    if comparison is None:
        return Criterion("calibration", False, None, margin, "cannot be compared with the champion's")
    d, mine, theirs = comparison.calibration, comparison.challenger, comparison.champion
    words = (f"Brier score of the confidence {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], allowed {margin:+.3f}; "
             f"calibration error {mine['ece']:.3f}, the champion's {theirs['ece']:.3f}")
    return Criterion("calibration", bool(d.high <= margin), d.high, margin, words)


def calibrated(error: Mapping[str, float | None], limit: float) -> Criterion:
    """For a first model: its calibration error (ECE, {value, low, high}) is not shown to lie above the limit.

    Held against the lower end of the interval, because few units alone make an error: of models that are as sure as
    they are right 1 % are refused with 50 held-out groups, 11 % with 20 (4 % and 25 % where the decision rule often
    prefers another class than the likeliest).
    """
    value, low, high = (error[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return Criterion("calibration", False, None, limit, "the calibration error is not defined")
    return Criterion("calibration", low <= limit, low, limit, f"calibration error {value:.3f} [{low:.3f}, {high:.3f}], "
                     f"refused where all of the interval lies above {limit:.3f}")


def beats_baselines(
    metric: Metric, value: float, against: Mapping[str, Mapping[str, float | None]], titles: Mapping[str, str]
) -> Criterion:
    """Better than every trivial predictor on the same held-out units, if only by its value: few units are held out.

    Args:
        value: the challenger's.
        against: floor -> the challenger minus that floor, as {value, low, high}.
        titles: floor -> what it is, in words.
    """
    leads = {name: gain(metric, d["value"]) for name, d in against.items() if d["value"] is not None}
    if not leads:
        return Criterion("floors", False, None, 0.0, "no floor was evaluated")
    best = min(leads, key=lambda name: leads[name])
    d = against[best]
    ends = [end for end in (d["low"], d["high"]) if end is not None]
    unclear = ", an interval that holds zero" if ends and min(ends) <= 0 <= max(ends) else ""
    span = f" [{', '.join(f'{end:+.3f}' for end in ends)}]" if ends else ""
    return Criterion("floors", leads[best] > 0, leads[best], 0.0, f"{metric.title} {value:.3f}, "
                     f"{d['value']:+.3f}{span} against the best floor ({titles[best].lower()}){unclear}")


def all_there(name: str, problems: Sequence[str], fine: str) -> Criterion:
    """A criterion that holds when nothing is wrong; its number is how much is."""
    return Criterion(name, not problems, float(len(problems)), 0.0, "; ".join(problems) or fine)


def decide(criteria: Sequence[Criterion], comparison: Comparison | None, *, first: bool) -> Verdict:
    """Promote when every criterion holds; the reason names what decided."""
    failed = [c for c in criteria if not c.passed]
    if failed:
        reason = "refused: " + "; ".join(f"{c.name}: {c.words}" for c in failed)
        return Verdict(False, reason, tuple(criteria), comparison)
    led = "first model of this task; " if first else ""
    words = "; ".join(c.words for c in criteria if c.name in ("better", "floors"))
    return Verdict(True, f"promoted: {led}{words}", tuple(criteria), comparison)


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(value)
    return value.item() if isinstance(value, np.generic) else value
