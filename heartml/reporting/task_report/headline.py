"""The first sentences of the report: which model, on which data, how good, beside which baseline and champion.

In: `metrics.json` of the evaluation, and from the flow the gate's verdict. Out: plain words, no markup.
"""

from collections.abc import Mapping
from typing import Any

from heartml.core.task_definition import HEART
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
    "icbhi_score": "The mean of specificity and sensitivity, where a finding counts as found if it gets its own class "
                   "(ICBHI 2017 challenge).",
    "uar": "The mean over classes of the share that is found. Guessing reaches one over the number of classes.",
    "macro_auc": "The mean over classes of the chance that a case is ranked above another. Guessing reaches 0.5.",
    "accuracy": "Share of right decisions.",
    "macro_f1": "The mean over classes of the harmonic mean of recall and precision.",
    "ece": "How far confidence (the probability of the decision, as it is shown) and share of right decisions lie "
           "apart, averaged over ten bins of confidence.",
    "brier": "Mean squared distance between probabilities and truth, 0 to 2.",
    "log_loss": "Mean of minus the logarithm of the probability that the true class was given.",
}


def meanings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(word, meaning) of the eight glossary terms that the page needs most, then of this task's metrics."""
    organ = found.get("organ", HEART)
    return [
        ("Group", "A person, however many ids that person has, with all near-duplicate audio. Where persons are "
                  "unknown it is a day or a single recording. A group is never split between training and test."),
        ("Held-out part", "The part of the data that no stage of training sees. It is used for scoring only."),
        ("Out of fold", "A prediction for a unit by models that were not trained on the unit's fold. This holds for "
                        "the model, the selection, the stacking, the decision rule and the calibration. It is often "
                        "called cross-fitted."),
        ("Baseline", f"What a trivial predictor scores that uses no {organ} sound: the majority class, or a regression "
                     "on the data source, on age, sex and location, or on level, length and bandwidth."),
        ("Interval", f"A range that is meant to hold the true value in {100 * found['confidence']:g} % of cases. Whole "
                     "groups are weighed again and again at random (bootstrap), with allowance for classes of few "
                     "groups."),
        ("Confounded", "A class that a baseline can already tell from the others. A good score on it may say "
                       f"something about the device or the patient's age, not about the {organ}."),
        ("Referred, top class", "A decision is referred to a human when its confidence is below the model's limit. "
                                "The class that the rule chose is still given: it is the top class."),
        ("Stacking view", "One way to turn a trial's predictions about recordings into one prediction about a unit: "
                          "direct, stack or segments."),
        *((TITLES[name], _MEANINGS[name]) for name in (*found["official"], "ece", "brier")),
    ]


def state(found: Mapping[str, Any], gate: Mapping[str, Any] | None) -> str:
    """`promoted` or `refused` by the gate; without it `above` the baselines or `unclear`. It sets the page's colour."""
    if gate is not None:
        return "promoted" if gate["promote"] else "refused"
    return "above" if above_baselines(found) else "unclear"


def above_baselines(found: Mapping[str, Any]) -> bool:
    """Whether the model is better than every baseline on the held-out part, each time with the whole interval."""
    differences = found["against_floors"][HELD_OUT].values()
    return bool(differences) and all(clearly_better(difference, found["metric"]) for difference in differences)


def clearly_better(difference: Mapping[str, float | None], metric: str) -> bool:
    """Whether the whole interval of a difference lies on the better side of zero."""
    better = METRICS[metric].greater_is_better
    end = difference["low" if better else "high"]
    return end is not None and (end > 0 if better else end < 0)


def headline(found: Mapping[str, Any], gate: Mapping[str, Any] | None) -> str:
    """The result in a few words: the gate's decision, or how the model compares with the baselines."""
    if gate is None:
        return "Clearly better than every baseline" if above_baselines(found) else \
            "Not clearly better than every baseline"
    version = f"version {gate['version']}" if gate.get("version") else "this model"
    if gate["promote"]:
        return f"Promoted: {version} is the champion"
    return f"Not promoted: {version} stays a challenger"


def model_in_words(members: int, encoders: int) -> str:
    """`An ensemble of 3 models on 2 encoders`."""
    what = f"An ensemble of {members} models" if members > 1 else "A single model"
    return f"{what} on {encoders} encoders" if encoders > 1 else what


def performance(found: Mapping[str, Any], model: str, data: str) -> tuple[str, str, str]:
    """Three texts that follow each other: task and data, the held-out score, its interval and what to compare it with.

    Args:
        model: see `model_in_words`.
        data: titles of the data sets.
    """
    metric, counts = found["metric"], found["counts"][HELD_OUT]
    number, confidence = found[HELD_OUT][metric], f"{100 * found['confidence']:g} %"
    *others, last = [name for name in found["classes"] if name not in found["left_out"]]
    before = (f"{model} sorts {found['unit']}s into {', '.join(others)} or {last}. Evaluated on {counts['units']} "
              f"{found['unit']}s that were held out ({counts['groups']} groups; {data}). {METRICS[metric].title}:")
    interval = f"({confidence} interval {span(number)})" if span(number) else ""
    after = f"{interval}{_out_of_fold(found)}. {_mean_over_sources(found)}{_beside_best_baseline(found)}"
    return before, figure(number["value"]), after


def _out_of_fold(found: Mapping[str, Any]) -> str:
    number, units = found[OUT_OF_FOLD][found["metric"]], found["counts"][OUT_OF_FOLD]["units"]
    interval = f" ({span(number)})" if span(number) else ""
    return "" if number["value"] is None else f"; out of fold on {units} others {figure(number['value'])}{interval}"


def _mean_over_sources(found: Mapping[str, Any]) -> str:
    """A sentence, or nothing where fewer than two sources have enough groups, or the evaluation is an older one."""
    means = {words: mean for part, words in ((HELD_OUT, "held out"), (OUT_OF_FOLD, "out of fold"))
             if (mean := (found.get("mean_over_sources") or {}).get(part))}
    scores = [f"{words} {figure(mean['value'])} ({span(mean)}; {mean['sources']} sources)"
              for words, mean in means.items()]
    return f"Mean over the sources, each counted once: {', '.join(scores)}. " if scores else ""


def _beside_best_baseline(found: Mapping[str, Any]) -> str:
    best = found["best_floor"][HELD_OUT]
    if best is None:
        return "No baseline could be scored."
    value, difference = found["floors"][best][found["metric"]]["value"], found["against_floors"][HELD_OUT][best]
    return (f"The best baseline, {found['floor_titles'][best].lower()}, reaches {figure(value)} "
            f"held out: a difference of {signed(difference['value'])} ({signed_span(difference)}).")


def against_champion(found: Mapping[str, Any], gate: Mapping[str, Any] | None) -> str:
    """How the model compares with the champion, in a sentence."""
    if gate is None:
        return "The gate decides whether it becomes the champion, when heartml retrain registers it."
    compared, champion = gate.get("comparison"), gate.get("champion")
    if compared is None:
        if champion:
            return f"The champion is version {champion}; this model could not be compared with it."
        return "There was no champion to compare with."
    difference = compared["difference"]
    return (f"Against the champion{f', version {champion}' if champion else ''}, on the same {compared['units']} "
            f"{found['unit']}s: {signed(difference['value'])} ({signed_span(difference)}).")
