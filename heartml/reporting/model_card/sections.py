"""Tables of the model card in Markdown. Every figure is a stored number, rounded, with its interval if it has one."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from heartml.evaluation.assessment import HELD_OUT, OUT_OF_FOLD, best_numbers
from heartml.reporting import task_report
from heartml.reporting.number_format import criterion, figure, signed, span
from heartml.reporting.task_report.headline import TITLES
from heartml.reporting.task_report.tables import CLASS_COLUMNS, counted, subgroup_name

Json = Mapping[str, Any]
NOT_ESTIMABLE = "not estimable"
DIVISIONS = {"source": "Source", "age_group": "Age group", "sex": "Sex", "location": "Location",
             "signal": "Signal quality", "session": "Recording session", "any_label": "Labels of the case"}


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the text of a cell cannot break it."""
    lines = [list(headings), ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell(value) for value in line)} |" for line in lines)


def cell(value: object) -> str:
    """Text in one line, with Markdown and HTML characters escaped."""
    words = " ".join(str("–" if value is None else value).split())
    for sign in "\\|<>`*_[]":
        words = words.replace(sign, f"\\{sign}") if words != "---" else words
    return words


def number(value: Mapping[str, float | None] | None) -> str:
    """`0.81 (0.73 to 0.88)`."""
    if value is None:
        return "–"
    return f"{figure(value['value'])} ({span(value)})" if span(value) else figure(value["value"])


def difference(value: Mapping[str, float | None]) -> str:
    """`+0.29 (+0.05 to +0.54)`."""
    return f"{signed(value['value'])} ({signed(value['low'])} to {signed(value['high'])})"


def day(milliseconds: int) -> str:
    """`2026-11-20`."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}"


def results(found: Json) -> str:
    """The official metrics of each part, beside the baseline that is best at each."""
    rows = []
    for part, key in ((HELD_OUT, "floors"), (OUT_OF_FOLD, "floors_out_of_fold")):
        best = best_numbers(found[key], found["official"])
        rows.append([(TITLES[name], number(found[part][name]),
                      figure(best[name]["value"]) if name in best else "–") for name in found["official"]])
    return table(("Metric", "Held out", "Best baseline", "Out of fold", "Best baseline there"),
                 [(*held_out, *out_of_fold[1:]) for held_out, out_of_fold in zip(*rows, strict=True)])


def baselines(found: Json) -> str:
    """The task's metric of each baseline on the held-out part, and how much better the model is."""
    metric = found["metric"]
    rows = [(found["floor_titles"][name], number(found["floors"][name][metric]),
             difference(found["against_floors"][HELD_OUT][name])) for name in found["floor_order"]]
    return table(("Baseline", TITLES[metric], "The model is better by"), rows)


def classes(found: Json) -> str:
    """Recall, precision and AUC by class and part."""
    rows = []
    for name in found["classes"]:
        for part, title in ((HELD_OUT, "held out"), (OUT_OF_FOLD, "out of fold")):
            of = found["per_class"][part][name]
            cells = [number(of[key]) if of["estimable"] else NOT_ESTIMABLE for key in CLASS_COLUMNS]
            rows.append((name, title, counted(of), *cells))
    return table(("Class", "Part", f"{found['unit'].capitalize()}s (groups)", *CLASS_COLUMNS.values()), rows)


def calibration(found: Json) -> str:
    """Calibration error and Brier score before and after calibration."""
    rows = [(title, *(number(found[part][f"{name}{when}"]) for name in ("ece", "brier") for when in ("_before", "")))
            for part, title in ((HELD_OUT, "Held out"), (OUT_OF_FOLD, "Out of fold"))]
    return table(("Part", "Calibration error (ECE) before", "after", "Brier score before", "after"), rows)


def subgroups(found: Json) -> str:
    """The task's metric in each subgroup, both parts."""
    metric, rows = found["metric"], []
    parts = {part: {"source": found["per_source"][part], **found["subgroups"][part]}
             for part in (HELD_OUT, OUT_OF_FOLD)}
    for division in parts[OUT_OF_FOLD]:
        values = sorted({value for part in parts.values() for value in part.get(division, {})})
        for value in values if len(values) > 1 else ():
            of = [parts[part].get(division, {}).get(value) for part in parts]
            rows.append((DIVISIONS.get(division, division), subgroup_name(value),
                         *(cell for entry in of for cell in (counted(entry) if entry else "–", _score(entry, metric)))))
    held = f"held out, {found['unit']}s (groups)"
    return table(("Division", "Subgroup", held.capitalize(), TITLES[metric], f"Out of fold, {found['unit']}s (groups)",
                  TITLES[metric]), rows) if rows else "These data have no subgroups."


def _score(entry: Json | None, metric: str) -> str:
    if entry is None:
        return "–"
    return number(entry[metric]) if entry["estimable"] else NOT_ESTIMABLE


def robustness(found: Json) -> str:
    """The task's metric under each condition, with the paired change."""
    metric = found["metric"]
    rows = [(f"{c['title']}, {c['words']}", number(c["scores"][metric]), difference(c["change"]))
            for c in found["conditions"]]
    return table(("Condition", TITLES[metric], "Change"),
                 [("As recorded", number(found["clean"]["scores"][metric]), ""), *rows])


def worst_condition(found: Json) -> Json | None:
    """The condition under which the task's metric falls most, where one does with its whole interval."""
    fallen = [c for c in found["conditions"] if c["change"]["high"] is not None and c["change"]["high"] < 0]
    return min(fallen, key=lambda c: c["change"]["value"]) if fallen else None


def split(found: Json) -> str:
    """Units and groups by class and part."""
    rows = [(name, *(counted(found["counts"][part]["classes"][name]) for part in (OUT_OF_FOLD, HELD_OUT)))
            for name in found["classes"]]
    rows.append(("in all", *(counted(found["counts"][part]) for part in (OUT_OF_FOLD, HELD_OUT))))
    return table((f"{found['unit'].capitalize()}s (groups)", "Training (folds)", "Held out"), rows)


def collections(facts: Json) -> str:
    """One row a data set."""
    return table(("Data set", "Recordings", "Persons", "Groups", "Hours", "Licence", "In quarantine"), [
        (c["title"], f"{c['recordings']:,}", f"{c['persons']:,}", f"{c['groups']:,}", f"{c['hours']:.1f}", c["licence"],
         sum(c["refused"].values())) for c in facts["collections"]])


def weights(lineage: Json) -> str:
    """The weights that this project did not train, one row an encoder."""
    return table(("Encoder", "Kind", "File", "SHA-256", "Licence", "Citation", "In the model"),
                 [(one["encoder"], one["kind"], one["weights"], one["sha256"], one["licence"], one["citation"],
                   "held" if one["held"] else "named by its hash; the file is needed") for one in lineage["weights"]])


def members(facts: Json) -> str:
    """One row a stacking view of a member."""
    found = task_report.members_table(facts)
    return table(found["columns"], [[value or "none" for value in row] for row in found["rows"]])


def criteria(gate: Json) -> str:
    """The gate's criteria with their numbers."""
    return table(("Criterion", "", "Number", "Required", "In words"), [
        (criterion(c["name"]), "passed" if c["passed"] else "FAILED", _exact(c["value"]), _exact(c["required"]),
         c["words"])
        for c in gate["criteria"]])


def _exact(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def hashes(version: Any, lineage: Json) -> str:
    """The hashes that lead back to the recordings, the parameters and the code."""
    code = lineage["code"]
    rows = [("MLflow run", version.run_id), ("Content key", version.tags.get("heartml.key")),
            ("Code, git commit", f"{code['commit']}{' with uncommitted changes' if code['dirty'] else ''}"),
            ("Data, data.dvc", lineage["data"]["hash"]), ("dvc.lock, SHA-256", lineage["dvc_lock_sha256"]),
            ("params.yaml, SHA-256", lineage["params_sha256"]),
            *((f"{what.capitalize()}, SHA-256", digest) for what, digest in lineage["outputs_sha256"].items()),
            ("requirements.lock, SHA-256", lineage["environment"]["requirements_lock_sha256"]),
            *(("Missing", words) for words in lineage["missing"])]
    return table(("Link", "Value"), rows)
