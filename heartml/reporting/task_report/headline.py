"""The first sentence of the report: what model, on what data, how good, against which floor and champion, and so what.

In: `metrics.json` of the evaluation, and from the flow the gate's verdict. Out: plain words, no markup.
"""
from collections.abc import Mapping
from typing import Any

from heartml.evaluation.assessment import HELD_OUT, OUT_OF_FOLD
from heartml.metrics import METRICS
from heartml.reporting.number_format import figure, signed, signed_span, span

TITLES = {
    "ece_before": "ECE before calibration", "brier_before": "Brier score before calibration",
    **{name: metric.title for name, metric in METRICS.items()},
}

_MEANINGS = {
    "weighted_accuracy_and_uar": "The mean of the weighted accuracy and the mean recall.",
    "accuracy_and_uar": "The mean of accuracy and mean recall.",
    "weighted_accuracy": "Share of right decisions where Present counts five times and Unknown three times as much as "
                         "Absent, or Abnormal five times as much as Normal (Reyna et al., PhysioNet Challenge 2022).",
    "outcome_cost": "Mean cost a patient of screening, expert referral, treatment and missed treatment "
                    "(Reyna et al., PhysioNet Challenge 2022).",
    "uar": "The mean over classes of the share that is found. Guessing reaches one over the number of classes.",
    "macro_auc": "The mean over classes of the chance that a case is ranked above another. Guessing reaches 0.5.",
    "accuracy": "Share of right decisions.",
    "macro_f1": "The mean over classes of the harmonic mean of recall and precision.",
    "ece": "How far confidence (the probability of the decision, as it is shown) and share of right decisions lie "
           "apart, averaged over ten bins of confidence.",
    "brier": "Mean squared distance between probabilities and truth, 0 to 2.",
}


def meanings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the words of the page mean, those of this task."""
    return [
        ("Group", "A person, however many ids it has (or a day, where persons are unknown), with all audio that is "
                  "nearly the same. Groups never cross folds."),
        ("Interval", f"Where {found['confidence']:.0%} of the values lie when whole groups are drawn again at random."),
        ("Held out", "Never seen by search, fitting, selection, decision rule or calibration."),
        ("Session", "What was recorded on one occasion, a day of one clinic with one sensor, where it is known."),
        ("Floor", "A simple predictor that hears nothing: the majority class, or a regression on the data source, on "
                  "age, sex and location, or on level, length and bandwidth."),
        *((TITLES[name], _MEANINGS[name]) for name in (*found["official"], "ece", "brier")),
    ]


def state(found: Mapping[str, Any], gate: Mapping[str, Any] | None) -> str:
    """`promoted` or `refused` by the gate, or `above` the floors or `unclear`: the colour of the page's first line."""
    if gate is not None:
        return "promoted" if gate["promote"] else "refused"
    return "above" if above_baselines(found) else "unclear"


def above_baselines(found: Mapping[str, Any]) -> bool:
    """Whether the whole interval of the difference to every floor lies on the better side."""
    differences = found["against_floors"][HELD_OUT].values()
    return bool(differences) and all(clearly_better(difference, found["metric"]) for difference in differences)


def clearly_better(difference: Mapping[str, float | None], metric: str) -> bool:
    """Whether the whole interval of a difference lies on the better side of zero."""
    better = METRICS[metric].greater_is_better
    end = difference["low" if better else "high"]
    return end is not None and (end > 0 if better else end < 0)


def headline(found: Mapping[str, Any], gate: Mapping[str, Any] | None) -> str:
    """The verdict in a few words."""
    if gate is None:
        return "Clearly above every floor" if above_baselines(found) else "Not clearly above every floor"
    version = f"version {gate['version']}" if gate.get("version") else "this model"
    if gate["promote"]:
        return f"Promoted: {version} is the champion"
    return f"Not promoted: {version} stays a challenger"


def model_in_words(members: int, encoders: int) -> str:
    """`An ensemble of 3 models on 2 encoders`."""
    what = f"An ensemble of {members} models" if members > 1 else "A single model"
    return f"{what} on {encoders} encoders" if encoders > 1 else what


def performance(found: Mapping[str, Any], model: str, data: str) -> tuple[str, str, str]:
    """What was asked, how well it answered held out, cross-fitted and against the best floor: words, figure, words."""
    metric, counts = found["metric"], found["counts"][HELD_OUT]
    number, confidence = found[HELD_OUT][metric], f"{100 * found['confidence']:g} %"
    *others, last = [name for name in found["classes"] if name not in found["left_out"]]
    before = (f"{model} sorts {counts['units']} {found['unit']}s that it has never heard ({counts['groups']} groups; "
              f"{data}) into {', '.join(others)} or {last}. {METRICS[metric].title}:")
    interval = f"({confidence} interval {span(number)})" if span(number) else ""
    return before, figure(number["value"]), f"{interval}{_cross_fitted(found)}. {_against_floor(found)}"


def _cross_fitted(found: Mapping[str, Any]) -> str:
    number, units = found[OUT_OF_FOLD][found["metric"]], found["counts"][OUT_OF_FOLD]["units"]
    interval = f" ({span(number)})" if span(number) else ""
    return "" if number["value"] is None else f"; cross-fitted on {units} others {figure(number['value'])}{interval}"


def _against_floor(found: Mapping[str, Any]) -> str:
    best = found["best_floor"][HELD_OUT]
    if best is None:
        return "No floor could be scored."
    value, difference = found["floors"][best][found["metric"]]["value"], found["against_floors"][HELD_OUT][best]
    return (f"The best floor, {found['floor_titles'][best].lower()}, reaches {figure(value)} "
            f"held out: a difference of {signed(difference['value'])} ({signed_span(difference)}).")


def against_champion(found: Mapping[str, Any], gate: Mapping[str, Any] | None) -> str:
    """How it stands against the serving model, in a sentence."""
    if gate is None:
        return "Whether it serves is decided by the gate when heartml retrain registers it."
    compared, champion = gate.get("comparison"), gate.get("champion")
    if compared is None:
        if champion:
            return f"The champion is version {champion}; this model could not be compared with it."
        return "There was no champion to compare with."
    difference = compared["difference"]
    return (f"Against the champion{f', version {champion}' if champion else ''}, on the same {compared['units']} "
            f"{found['unit']}s: {signed(difference['value'])} ({signed_span(difference)}).")


