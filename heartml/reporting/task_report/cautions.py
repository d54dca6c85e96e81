"""The warnings on the report's first screen: whatever may make a score look better than it is.

In: `metrics.json` of the evaluation. Out: plain sentences, no markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from heartml.core.task_definition import HEART
from heartml.data.persons import unknown_in_words
from heartml.evaluation.assessment import HELD_OUT, OUT_OF_FOLD
from heartml.metrics import METRICS
from heartml.reporting.number_format import figure, listed, signed, signed_span, span
from heartml.reporting.task_report.headline import TITLES, clearly_better

Found = Mapping[str, Any]


def warnings(found: Found, of_data: Sequence[str] = ()) -> list[str]:
    """All warnings that apply: on persons, baselines, sources, and classes that are confounded, rarely found or few.

    Args:
        of_data: what the adapters of its data sets warn of, see `datasets.cautions`.
    """
    return [*of_data, *_unknown_persons(found), *_unclear_difference(found), *_sources(found), *_confounded(found),
            *_missed(found), *_rare(found), *_few(found)]


def _unknown_persons(found: Found) -> list[str]:
    words = unknown_in_words(found.get("persons"))       # an older evaluation does not have it
    return [words] if words else []


def _unclear_difference(found: Found) -> list[str]:
    beside, out_of_fold = found["against_floors"][HELD_OUT], found["against_floors"][OUT_OF_FOLD]
    unclear = [name for name in found["floor_order"] if name in beside and beside[name]["value"] is not None
               and not clearly_better(beside[name], found["metric"])]
    named = listed([f"{found['floor_titles'][name].lower()} ({_difference(beside[name])}; out of fold "
                    f"{_difference(out_of_fold[name])})" for name in unclear])
    return [f"Not clearly better, held out, than {named}: the difference may be chance."] if unclear else []


def _difference(number: Mapping[str, float | None]) -> str:
    return f"{signed(number['value'])}, {signed_span(number)}"


def _sources(found: Found) -> list[str]:
    """The out-of-fold part decides, since it has more groups; the held-out part is mentioned where it agrees."""
    apart = {part: of for part in (OUT_OF_FOLD, HELD_OUT) if (of := below_the_whole(found, part))}
    if OUT_OF_FOLD not in apart:
        return []
    scores = "; ".join(
        f"{'held out' if part == HELD_OUT else 'out of fold'} {figure(found[part][found['metric']]['value'])}, but "
        + listed([f"{figure(value)} in {source}" for source, value in of.items()])
        + _mean_over_sources(found, part) for part, of in apart.items())
    entries = found["per_source"][OUT_OF_FOLD]
    missing = {source: [name for name in entries[source]["absent"] if name not in found["left_out"]]
               for source in apart[OUT_OF_FOLD]}
    without = [f"{source} has {listed([f'no {name}' for name in names])}" for source, names in missing.items() if names]
    why = f"comes from telling the sources apart: {listed(without)}" if without else \
        "may come from telling the sources apart"
    below, scored = len(apart[OUT_OF_FOLD]), len(source_scores(found, OUT_OF_FOLD))
    which = "Each source alone scores" if below == scored else f"{below} of {scored} sources alone score"
    return [f"{which} worse than all together. {TITLES[found['metric']]}: {scores}. Part of the score {why}."]


def _mean_over_sources(found: Found, part: str) -> str:
    mean = (found.get("mean_over_sources") or {}).get(part)      # an older evaluation does not have it
    return f" (mean over {mean['sources']} sources {figure(mean['value'])})" if mean else ""


def below_the_whole(found: Found, part: str) -> dict[str, float]:
    """Source -> its score, of those that are worse than the whole part, if these are most of at least two; else empty.

    The largest source may carry the whole score, so one that is better does not silence the others.

    Args:
        part: `held_out` or `out_of_fold`.
    """
    metric, whole, scores = found["metric"], found[part][found["metric"]]["value"], source_scores(found, part)
    better = METRICS[metric].greater_is_better
    worse = {source: score for source, score in scores.items() if (score < whole if better else score > whole)}
    return worse if len(scores) > 1 and len(worse) > len(scores) / 2 else {}


def source_scores(found: Found, part: str) -> dict[str, float]:
    """Source -> the task's metric, of the sources that have enough groups for one."""
    return {source: entry[found["metric"]]["value"] for source, entry in found["per_source"][part].items()
            if entry["estimable"] and entry[found["metric"]]["value"] is not None}


def _confounded(found: Found) -> list[str]:
    words = []
    for baseline in found["floor_order"]:
        flagged = [entry for entry in found["confounded"] if entry["floor"] == baseline]
        named = listed([f"{entry['class']} (AUC {figure(entry['auc']['value'])}, {span(entry['auc'])})"
                         for entry in flagged])
        if flagged:
            words.append(f"Confounded: {named} can be told from {found['floor_titles'][baseline].lower()}. "
                         f"A model may have learnt {flagged[0]['heard']}, not the {found.get('organ', HEART)}.")
    return words


def _missed(found: Found) -> list[str]:
    missed = [f"{name} ({round(entry['recall']['value'] * entry['units'])} of {entry['units']} {found['unit']}s, "
              "out of fold)" for name, entry in hardly_found(found).items()]
    return [f"Hardly ever found: {listed(missed)}. A case can be in this class whatever the model predicts."
            ] if missed else []


def hardly_found(found: Found) -> dict[str, Mapping[str, Any]]:
    """Classes whose out-of-fold recall is below guessing with its whole interval, each with its scores."""
    guessing = 1 / (len(found["classes"]) - len(found["left_out"]))
    return {name: entry for name, entry in found["per_class"][OUT_OF_FOLD].items()
            if entry["estimable"] and entry["recall"]["high"] is not None and entry["recall"]["high"] < guessing}


def _rare(found: Found) -> list[str]:
    rare = [f"{name} ({entry['groups']})" for name, entry in found["left_out"].items()]
    return [f"Not estimable: {listed(rare)}, with fewer than {found['min_groups']} groups in all the data. "
            f"Such {found['unit']}s are in no fold, no fit and no number of this page: means and decisions "
            "are about the other classes."] if rare else []


def _few(found: Found) -> list[str]:
    few = [f"{name} ({entry['groups']})" for name, entry in found["counts"][HELD_OUT]["classes"].items()
           if entry["groups"] < found["min_groups"] and name not in found["left_out"]]
    return [f"Few held-out groups: {listed(few)}. They enter the means above and make their intervals wide, "
            "but have no score of their own."] if few else []
