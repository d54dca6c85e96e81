"""Every cell of every table of results shows the number of `metrics.json` that its row and column name."""

import pytest
from support import finished_project
from support.finished_project import TASK
from support.report_pages import ReportPage

from heartml.core import paths
from heartml.core.system import files
from heartml.metrics import METRICS
from heartml.reporting.number_format import figure, signed, span

PARTS = {"held_out": ("On the held-out part", "Held out", "floors"),
         "out_of_fold": ("Out of fold, on everything else", "Out of fold", "floors_out_of_fold")}
DIVISIONS = {"source": "source", "age_group": "age group", "sex": "sex", "signal": "signal quality"}
COUNTS = "Patients (groups)"


def heading(metric):
    """A column of a metric, with the mark where lower is better."""
    known = METRICS.get(metric)
    lower = known is not None and not known.greater_is_better
    return {"recall": "Recall", "precision": "Precision", "auc": "AUC"}.get(metric) or (
        METRICS[metric].title + (" (lower is better)" if lower else ""))


def number(value):
    """A value and its interval, where there is one."""
    return f"{figure(value['value'])} {span(value)}".strip()


def scores(row, values, metrics, named=heading):
    """(row, column) -> text, for each metric."""
    return {(row, named(metric)): number(values[metric]) for metric in metrics}


def counted(row, entry):
    return {(row, COUNTS): f"{entry['units']} ({entry['groups']})"}


def estimable(row, entry, metrics, found):
    """Counts, and scores or the reason why there are none."""
    if entry["estimable"]:
        return counted(row, entry) | scores(row, entry, metrics)
    return counted(row, entry) | {(row, ""): f"not estimable: fewer than {found['min_groups']} groups"}


def without(entry, found):
    absent = [name for name in entry["absent"] if name not in found["left_out"]]
    return f" (no {', no '.join(absent)})" if absent and entry["estimable"] else ""


def tables_of_part(found, part, champion):
    """Results, confusion, classes and subgroups of one part."""
    title, _, baselines = PARTS[part]
    official = found["official"]
    results = scores("This model", found[part], official)
    results |= {("Champion (version 3)", heading(name)): figure(champion[name]) for name in official if champion}
    for name in found["floor_order"]:
        results |= scores(found["floor_titles"][name], found[baselines][name], official)
    label = "Held-out results of the model, the champion and the baselines" if part == "held_out" else \
        "Out-of-fold results of the model and the baselines"
    classes = [estimable(name, found["per_class"][part][name], ("recall", "precision", "auc"), found)
               for name in found["classes"] if name not in found["left_out"]]
    tables = {label: results, f"{title}: recall, precision and AUC by class": merged(classes)}
    metrics = dict.fromkeys((found["metric"], "macro_auc"))
    for division, entries in {"source": found["per_source"][part], **found["subgroups"][part]}.items():
        if len(entries) > 1:
            tables[f"{title}, by {DIVISIONS[division]}"] = merged(
                estimable(value + without(entry, found), entry, metrics, found) for value, entry in entries.items())
    return tables


def merged(cells):
    return {key: text for some in cells for key, text in some.items()}


def referral_cells(found):
    cells = {}
    for part, (_, words, _) in PARTS.items():
        decided = found["referral"][part]
        cells |= counted(f"{words}, all", found["counts"][part])
        cells |= scores(f"{words}, all", found[part], found["official"])
        row = f"{words}, decided{without(decided, found)}"
        cells |= estimable(row, decided | decided.get("scores", {}), found["official"], found)
    return cells


def robustness_cells(degraded, metric):
    cells = {}
    for entry in (degraded["clean"], *degraded["conditions"]):
        row = f"{entry['title']}, {entry['words']}" if "title" in entry else "As recorded"
        cells |= {(row, "Confidence"): figure(entry["sureness"]), (row, "Referred"): figure(entry["referred"])}
        cells |= scores(row, entry["scores"], dict.fromkeys((metric, "macro_auc")))
        change = entry.get("change")
        cells[row, "Change (paired)"] = f"{signed(change['value'])} {span(change)}".strip() if change else ""
    return cells


def expected_tables(found, gate):
    """Name of the table -> its cells, by the numbers of the evaluation."""
    champion = gate["comparison"]["champion_held_out"] if gate and gate["comparison"] else {}
    tables = tables_of_part(found, "held_out", champion) | tables_of_part(found, "out_of_fold", {})
    tables["Calibration error and Brier score before and after calibration"] = merged(
        scores(f"{words}, {when} calibration", {name: found[part][name + suffix] for name in ("ece", "brier")},
               ("ece", "brier"))
        for part, (_, words, _) in PARTS.items() for when, suffix in (("before", "_before"), ("after", "")))
    tables["Scores on all units and on those that are decided"] = referral_cells(found)
    tables["AUC of one auscultation location alone, held out"] = merged(
        estimable(place, entry, ("macro_auc",), found) for place, entry in found["locations"].items())
    tables["AUC of each baseline by class"] = merged(
        scores(found["floor_titles"][name], by_class, by_class, str) for name, by_class in found["floor_auc"].items())
    degraded = files.read_json(paths.robustness(TASK))
    tables["Scores under noise and through worse sensors"] = robustness_cells(degraded, found["metric"])
    return tables


@pytest.mark.parametrize("kind", ["unjudged", "promoted", "refused", "first"])
def test_every_cell_shows_the_number_that_its_row_and_column_name(project, pages, kind):
    gates = {"promoted": finished_project.gate_verdict(promote=True),
             "refused": finished_project.gate_verdict(promote=False),
             "first": finished_project.gate_verdict(promote=True, champion=None)}
    shown = [table for table in ReportPage(pages[kind]).tables if table.of_results]
    matrices = [table.cells for table in shown if table.name.startswith("Confusion matrix, truth in rows")]
    tables = {table.name: table.cells for table in shown if not table.name.startswith("Confusion")}
    expected = expected_tables(project, gates.get(kind))
    assert tables.keys() == expected.keys()
    wrong = {(name, *cell): f"shows {tables[name].get(cell)}, is {expected[name].get(cell)}"
             for name in expected for cell in sorted({*tables[name], *expected[name]})
             if tables[name].get(cell) != expected[name].get(cell)}
    assert not wrong
    classes = project["classes"]
    assert matrices == [{(truth, decision): str(project["confusion"][part][i][j])
                         for i, truth in enumerate(classes) for j, decision in enumerate(classes)} for part in PARTS]
    texts = [text for table in shown for text in table.cells.values()]
    assert len(texts) > 150 and len(set(texts)) > 60, "numbers that are all alike could be in any cell"


def test_heart_states_are_shown_by_method_and_measure(pages):
    [table] = [table for table in ReportPage(pages["unjudged"]).tables if table.name == "heart-states"]
    measures = files.read_json(paths.heart_states(TASK) / "measures.json")
    titles = {"network": "Model's network", "by_loudness": "Peaks of loudness alone"}
    columns = {"Frames right": "frame_accuracy", "S1 onsets, F1": "s1_f1", "S2 onsets, F1": "s2_f1"}
    expected = {(titles[method], column): figure(found[key])
                for method, found in measures.items() for column, key in columns.items()}
    expected |= {(titles[method], "Heart rate, error a minute"): f"{found['heart_rate_error_median_per_min']:.1f} "
                 f"(90 %: {found['heart_rate_error_p90_per_min']:.1f})" for method, found in measures.items()}
    assert table.cells == expected
