"""The tables of the report: rows of words, figures and small dot-and-whisker plots, ready for the template.

In: `metrics.json` of the evaluation, and from the flow the gate's verdict. Every figure is a number of these, rounded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heartml.metrics import METRICS
from heartml.reporting.number_format import figure, signed, span
from heartml.reporting.svg import domain, whisker
from heartml.reporting.task_report.headline import TITLES

Number = Mapping[str, float | None]
NOTHING: Number = {"value": None, "low": None, "high": None}
CLASS_COLUMNS = {"recall": "Recall", "precision": "Precision", "auc": "AUC"}


@dataclass(frozen=True)
class Cell:
    """One figure: the value, its interval in words, and both as a picture."""

    figure: str
    span: str
    picture: str


@dataclass(frozen=True)
class Column:
    """A column of figures on one scale: `note` says where lower is better, `ends` are the limits of the scale."""

    title: str
    note: str
    ends: tuple[str, str]


@dataclass(frozen=True)
class TableLine:
    """One line of a table; `cells` is empty where nothing can be estimated, and `note` says why."""

    name: str
    kind: str
    facts: tuple[str, ...]
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Columns of facts (counts), columns of figures, rows."""

    caption: str
    first: str
    facts: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[TableLine, ...]


def results(found: Mapping[str, Any], part: str, floors: str, gate: Mapping[str, Any] | None = None) -> Table:
    """The model, the champion on the same units (where it is known), and the floors, one column a metric."""
    names = found["official"]
    compared = (gate or {}).get("comparison") or {}
    lines: list[tuple[str, str, Mapping[str, Number]]] = [("This model", "model", found[part])]
    if compared:
        values = {name: {**NOTHING, "value": value} for name, value in compared["champion"].items()}
        lines.append((f"Champion{_version(gate)}", "champion", values))
    lines += [(found["floor_titles"][name], "floor", found[floors][name]) for name in found["floor_order"]]
    return table("Results", "", (), names, [(title, kind, (), numbers) for title, kind, numbers in lines],
                  references={name: found[part][name]["value"] for name in names})


def _version(gate: Mapping[str, Any] | None) -> str:
    return f" (version {gate['champion']})" if gate and gate.get("champion") else ""


def calibration(found: Mapping[str, Any], parts: Sequence[str]) -> Table:
    """Calibration error and Brier score, before and after."""
    lines = [(f"{_words(part)}, {when} calibration", "model" if when == "after" else "other", (),
              {name: found[part][name + suffix] for name in ("ece", "brier")})
             for part in parts for when, suffix in (("before", "_before"), ("after", ""))]
    return table("Calibration", "", (), ("ece", "brier"), lines)


def referral(found: Mapping[str, Any], parts: Sequence[str]) -> Table | None:
    """The metrics on everything, and on what is left where unsure decisions go to a human."""
    if not any(found["referral"][part]["below"] for part in parts):
        return None
    lines: list[tuple[str, str, tuple[str, ...], Mapping[str, Any] | None]] = []
    for part in parts:
        left, counts = found["referral"][part], found["counts"][part]
        lines += [(f"{_words(part)}, all", "other", (counted(counts),), found[part]),
                  (f"{_words(part)}, decided{_absent(left, found)}", "model", (counted(left),), left.get("scores"))]
    return table("Left to a human", "", (_counted_title(found),), found["official"], lines, note=_too_few(found))


def classes(found: Mapping[str, Any], part: str) -> Table:
    """Recall, precision and AUC by class, where there are groups enough."""
    lines = [(name, "model", (counted(entry),),
              entry if entry["estimable"] else None)
             for name in found["classes"] if name not in found["left_out"]
             for entry in [found["per_class"][part][name]]]
    return table("By class", "Class", (_counted_title(found),), tuple(CLASS_COLUMNS), lines,
                  note=_too_few(found))


def views(found: Mapping[str, Any], part: str) -> list[tuple[str, Table]]:
    """The task with fewer classes: the model and every floor, one table a view."""
    tables = []
    for view in found["views"].values():
        seen = view[part]
        lines: list[tuple[str, str, tuple[str, ...], Mapping[str, Any]]] = [("This model", "model", (), seen["scores"])]
        lines += [(found["floor_titles"][name], "floor", (), seen["floors"][name]) for name in found["floor_order"]]
        tables.append((view["title"], table(view["title"], "", (), found["official"], lines, references={
            name: seen["scores"][name]["value"] for name in found["official"]})))
    return tables


def subgroups(found: Mapping[str, Any], part: str) -> list[tuple[str, Table]]:
    """One table a way that divides the units: the task's metric and the AUC, the whole part's value as a reference."""
    metrics = tuple(dict.fromkeys((found["metric"], "macro_auc")))
    divisions = {"source": found["per_source"][part], **found["subgroups"][part]}
    facts = (_counted_title(found),)
    tables = []
    for division, entries in divisions.items():
        if len(entries) < 2:
            continue
        lines = [(value + _absent(entry, found), "model", (counted(entry),),
                  entry if entry["estimable"] else None)
                 for value, entry in entries.items()]
        tables.append((_words(division), table(_words(division), _words(division), facts, metrics, lines,
                                                references={m: found[part][m]["value"] for m in metrics},
                                                note=_too_few(found), limits=(0.0, 1.0))))
    return tables


def undivided(found: Mapping[str, Any], part: str) -> list[str]:
    """What every unit has the same value of, or none, so that it divides nothing."""
    divisions = {"source": found["per_source"][part], **found["subgroups"][part]}
    return [f"{_words(division).lower()} ({next(iter(entries), 'none')})"
            for division, entries in divisions.items() if len(entries) < 2]


def locations(found: Mapping[str, Any]) -> Table | None:
    """What one auscultation location alone tells about a patient."""
    lines = [(name, "model", (counted(entry),),
              entry if entry["estimable"] else None) for name, entry in found["locations"].items()]
    if not lines:
        return None
    return table("One location alone", "Location", (_counted_title(found),), ("macro_auc",), lines,
                  note=_too_few(found), limits=(0.0, 1.0),
                  references={"macro_auc": found["held_out"]["macro_auc"]["value"]})


def baseline_classes(found: Mapping[str, Any]) -> Table:
    """How well each floor tells each class apart (AUC); what is flagged as confounded stands out."""
    flagged = {(entry["class"], entry["floor"]) for entry in found["confounded"]}
    shown = [name for name in found["classes"] if any(name in numbers for numbers in found["floor_auc"].values())]
    rows = []
    for floor in (name for name in found["floor_order"] if name in found["floor_auc"]):
        title, numbers = found["floor_titles"][floor], found["floor_auc"][floor]
        cells = [_cell(f"{title}, {name}", "auc", numbers[name], (0.0, 1.0),
                       "flag" if (name, floor) in flagged else "floor", found["confounded_auc"]) for name in shown]
        rows.append(TableLine(title, "floor", (), tuple(cells)))
    return Table("What floors know", "", (), tuple(Column(name, "", ("0", "1")) for name in shown), tuple(rows))


def heart_states(measures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Network and loudness alone against the annotation: title, frames, F1 of S1, F1 of S2, error of the rate."""
    def row(title: str, m: Mapping[str, float]) -> tuple[str, ...]:
        error = m["heart_rate_error_median_per_min"]
        return (title, *(figure(m[key]) for key in ("frame_accuracy", "s1_f1", "s2_f1")),
                "none told" if error is None else f"{error:.1f} (90 %: {m['heart_rate_error_p90_per_min']:.1f})")

    titles = {"network": "Model's network", "by_loudness": "Peaks of loudness alone"}
    return [row(title, measures[key]) for key, title in titles.items() if measures.get(key)]


def robustness(found: Mapping[str, Any]) -> Table:
    """The scores as recorded and under each condition, the change between both, and how far the model trusts itself."""
    metrics = tuple(dict.fromkeys((found["metric"], "macro_auc")))
    lines = [("As recorded", "model", found["clean"], NOTHING)]
    lines += [(f"{c['title']}, {c['words']}", "other", c, c["change"]) for c in found["conditions"]]
    references = {name: found["clean"]["scores"][name]["value"] for name in metrics}
    ends = {name: _limits(name, [told["scores"][name] for _, _, told, _ in lines]) for name in metrics}
    changes = domain([change[key] for *_, change in lines for key in ("value", "low", "high")] + [0.0], unit=False)
    rows = []
    for title, kind, told, change in lines:
        cells = [_cell(title, name, told["scores"][name], ends[name], kind, references[name]) for name in metrics]
        words = f"{title}, change: {signed(change['value'])}"
        drawn = Cell(signed(change["value"]), span(change), whisker(change, changes, words, kind=kind, reference=0.0))
        doubt = figure(told["sureness"]), figure(told["referred"])
        rows.append(TableLine(title, kind, doubt, (*cells, drawn if change is not NOTHING else Cell("", "", ""))))
    columns = (*(_column(name, ends[name]) for name in metrics),
               Column("Change", "paired", (f"{changes[0]:g}", f"{changes[1]:g}")))
    return Table("Robustness", "Condition", ("Confidence", "Referred"), columns, tuple(rows))


def table(
    caption: str, first: str, facts: tuple[str, ...], names: Sequence[str],
    lines: Iterable[tuple[str, str, tuple[str, ...], Mapping[str, Any] | None]], *,
    references: Mapping[str, float | None] | None = None, note: str = "", limits: tuple[float, float] | None = None,
) -> Table:
    """One row a line, one column a metric, each column on a scale of its own.

    Args:
        first: heading of the lines' titles; `facts`: of their counts.
        names: metrics.
        lines: title, kind (see `plots.whisker`), counts, and metric -> number; `None`: not estimable, as `note` says.
        references: metric -> where a thin line crosses all whiskers of its column.
        limits: of every column; `None`: as wide as its numbers.
    """
    lines = list(lines)
    ends = {name: limits or _limits(name, [n[name] for *_, n in lines if n and name in n]) for name in names}
    rows = []
    for title, kind, counts, numbers in lines:
        cells = tuple(_cell(title, name, numbers.get(name, NOTHING), ends[name], kind, (references or {}).get(name))
                      for name in names) if numbers else ()
        rows.append(TableLine(title, kind, counts, cells, "" if numbers else note))
    columns = tuple(_column(name, ends[name]) for name in names)
    return Table(caption, first, facts, columns, tuple(rows))


def _limits(name: str, numbers: Sequence[Number]) -> tuple[float, float]:
    values = [number[key] for number in numbers for key in ("value", "low", "high")]
    return domain(values, unit=name not in ("outcome_cost", "brier"))


def _column(name: str, ends: tuple[float, float]) -> Column:
    lower = name in METRICS and not METRICS[name].greater_is_better
    shown = (f"{ends[0]:,.0f}", f"{ends[1]:,.0f}") if ends[1] > 10 else (f"{ends[0]:g}", f"{ends[1]:g}")
    return Column(CLASS_COLUMNS.get(name) or TITLES[name], "lower is better" if lower else "", shown)


def _cell(
    row: str, name: str, number: Number, ends: tuple[float, float], kind: str, reference: float | None
) -> Cell:
    words = f"{row}, {CLASS_COLUMNS.get(name) or TITLES[name]}: {figure(number['value'])}"
    words += f", {span(number)}" if span(number) else ""
    return Cell(figure(number["value"]), span(number), whisker(number, ends, words, kind=kind, reference=reference))


def _too_few(found: Mapping[str, Any]) -> str:
    return f"not estimable: fewer than {found['min_groups']} groups"


def _absent(entry: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    absent = [name for name in entry["absent"] if name not in found["left_out"]]
    return f" (no {', no '.join(absent)})" if absent and entry["estimable"] else ""


def _counted_title(found: Mapping[str, Any]) -> str:
    return f"{found['unit'].capitalize()}s (groups)"


def counted(entry: Mapping[str, Any]) -> str:
    """`12 (10)`: units and groups."""
    return f"{entry['units']:,} ({entry['groups']:,})"


def _words(name: str) -> str:
    known = {"held_out": "Held out", "out_of_fold": "Cross-fitted", "signal": "Signal quality",
             "session": "Recording session"}
    return known.get(name, name.replace("_", " ").capitalize())
