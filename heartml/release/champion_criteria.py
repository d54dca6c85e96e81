"""The criteria that compare a challenger with the champion: log loss, the task's metric, subgroups, calibration.

In: a `Comparison` (heartml/release/champion_comparison.py) and the limits. Out: one `Criterion` each. Pure.
"""

from dataclasses import dataclass

import numpy as np

from heartml.core.config import GateParams
from heartml.metrics import Metric
from heartml.release.champion_comparison import EVIDENCE, Comparison, gain
from heartml.release.gate import BETTER, NOT_WORSE, Criterion, percent, plus


@dataclass(frozen=True)
class Policy:
    """What a challenger has to show.

    Attributes:
        kind: `better`, or `not_worse` for a refresh of the same recipe with more data.
        why: that `not_worse` applies, or why it does not although `gate.policy` asks for it; empty for `better`.
    """

    kind: str
    why: str

    def in_words(self, allowed: float) -> str:
        """The end of the sentence about the log loss."""
        margin = f"; not worse is enough, by at most {-allowed:.3f}" if self.kind == NOT_WORSE else ""
        return f"{margin} ({self.why})" if self.why else margin


PLAIN = Policy(BETTER, "")


def better_than_champion(
    champion: str, comparison: Comparison | None, params: GateParams, policy: Policy = PLAIN
) -> Criterion:
    """The whole interval of the paired difference in log loss lies on the better side of zero, or of a margin.

    The log loss of the calibrated probabilities decides, because it tells two models apart on a fraction of the units
    that their decisions need (docs/decisions.md). The interval has the confidence of this look.

    A minimum of groups is needed because resamples of few groups are much alike.

    Args:
        champion: number of its version.
        policy: `not_worse` allows a loss of `params.log_loss_margin`.

    >>> from heartml.metrics.bootstrap import Difference
    >>> params = GateParams(confidence=0.95, bootstrap=1000, min_groups=5, subgroup_margin=0.05, calibration_limit=0.15,
    ...                     calibration_margin=0.05, min_subgroup_groups=10, catch_up_recordings=100)
    >>> none = Difference(0.0, 0.0, 0.0, 1.0)
    >>> gained = Comparison(units=40, groups=20, evidence={"held_out": 10, "out_of_fold": 30}, trained=3, unknown=0,
    ...                     absent=(), challenger={}, champion={}, champion_held_out={}, difference=none,
    ...                     difference_at_look=none, loss=Difference(-0.1, -0.18, -0.02, 0.01), calibration=none,
    ...                     subgroups={}, look=2, confidence=0.992)
    >>> criterion = better_than_champion("3", gained, params)
    >>> criterion.passed, criterion.value
    (True, 0.02)
    >>> criterion.words
    'log loss better by +0.100 [+0.020, +0.180] than champion 3 at 99.2% (look 2) on 40 units in 20 groups (10 held \
out, 30 out of fold); 3 left out (champion trained on them)'
    >>> few = Comparison(**{**vars(gained), "groups": 4})
    >>> better_than_champion("3", few, params).words
    "compared on 4 groups, at least 5 are needed; 3 left out (champion trained on them): `heartml promote` decides, or \
keep champion 3's `seed`"
    """
    if comparison is None:
        return Criterion("better", False, None, None, f"cannot be compared with champion {champion}: "
                         "no unit in common that neither was trained on, or other classes")
    if too_little := _too_little(comparison, champion, params.min_groups):
        return too_little
    allowed = -params.log_loss_margin if policy.kind == NOT_WORSE else 0.0
    loss, low = comparison.loss, 0.0 - comparison.loss.high
    words = (f"log loss better by {plus(-loss.value)} [{plus(low)}, {plus(-loss.low)}] than champion {champion} at "
             f"{percent(comparison.confidence)} (look {comparison.look}) on {comparison.units} units in "
             f"{comparison.groups} groups ({_evidence(comparison)}){_left_out(comparison)}{policy.in_words(allowed)}")
    return Criterion("better", bool(low > allowed), low, allowed, words)


def metric_holds(
    metric: Metric, comparison: Comparison | None, params: GateParams, policy: Policy = PLAIN
) -> Criterion:
    """The task's metric is not worse than the champion's by more than `metric_margin`.

    Where the log loss has shown that the challenger is better, the value decides. Under `not_worse` nothing else shows
    that it is, so there the whole interval must lie above minus the margin, at the confidence of this look.

    >>> from types import SimpleNamespace
    >>> from heartml.metrics import METRICS
    >>> from heartml.metrics.bootstrap import Difference
    >>> d = Difference(-0.01, -0.06, 0.04, 0.6)
    >>> compared, params = SimpleNamespace(difference=d, difference_at_look=d), SimpleNamespace(metric_margin=0.05)
    >>> metric_holds(METRICS["uar"], compared, params).passed
    True
    >>> metric_holds(METRICS["uar"], compared, params, Policy(NOT_WORSE, "")).passed
    False
    """
    margin = params.metric_margin
    if comparison is None:
        return Criterion("metric", False, None, -margin, "cannot be compared with the champion's")
    d = comparison.difference_at_look if policy.kind == NOT_WORSE else comparison.difference
    value = min(gain(metric, d.low), gain(metric, d.high)) if policy.kind == NOT_WORSE else gain(metric, d.value)
    part = "all of the interval" if policy.kind == NOT_WORSE else "the value"
    return Criterion("metric", bool(value >= -margin), value, -margin, f"{metric.title} {plus(d.value)} "
                     f"[{plus(d.low)}, {plus(d.high)}], {part} may fall by {margin:.3f}")


def _evidence(comparison: Comparison) -> str:
    return ", ".join(f"{comparison.evidence[kind]} {words}" for kind, words in EVIDENCE.items()
                     if comparison.evidence.get(kind))


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
    return Criterion("better", False, float(value), float(required), f"compared on {groups} groups{lack}"
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

    So the challenger has to show that its confidence is worth as much as the champion's. Simulated with 50 groups: of
    two models that are both well calibrated, one in a hundred is refused (one in six with 20 groups); of over-confident
    ones (temperature 0.4) nineteen in twenty. The calibration error cannot be used like this, because its own
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
