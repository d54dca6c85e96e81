"""The tables of the report: rows of text, figures and small dot-and-whisker plots, ready for the template.

In: `metrics.json` of the evaluation, and from the flow the gate's verdict. Every figure is one of their numbers,
rounded.
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
_SUBGROUP_NAMES = {"heard in training": "also in training"}      # stored values that read better otherwise


@dataclass(frozen=True)
class Cell:
    """One figure: the value, its interval as text, and both as a plot (SVG)."""

    figure: str
    span: str
    picture: str


@dataclass(frozen=True)
class Column:
    """A column of figures on one scale: `note` marks where lower is better, `ends` are the limits of the scale."""

    title: str
    note: str
    ends: tuple[str, str]


@dataclass(frozen=True)
class TableLine:
    """One line of a table; `cells` is empty where nothing can be estimated, and `note` gives the reason."""

    name: str
    kind: str
    facts: tuple[str, ...]
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table: `first` is the heading of the lines, `facts` those of the counts, `columns` those of the figures."""

    caption: str
    first: str
    facts: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[TableLine, ...]


def results(found: Mapping[str, Any], part: str, baselines: str, gate: Mapping[str, Any] | None = None) -> Table:
    """The model, the champion on those of the units that were compared, and the baselines; one column a metric.

    Args:
        part: `held_out` or `out_of_fold`.
        baselines: the key with the baselines' scores: `floors` or `floors_out_of_fold`.
    """
    names = found["official"]
    compared = (gate or {}).get("comparison") or {}
    lines: list[tuple[str, str, Mapping[str, Number]]] = [("This model", "model", found[part])]
    if compared:
        on_these = compared.get("champion_held_out", compared["champion"])     # older verdicts: held-out units alone
        values = {name: {**NOTHING, "value": value} for name, value in on_these.items()}
        lines.append((f"Champion{_version(gate)}", "champion", values))
    lines += [(found["floor_titles"][name], "baseline", found[baselines][name]) for name in found["floor_order"]]
    return table("Results", "", (), names, [(title, kind, (), numbers) for title, kind, numbers in lines],
                  references={name: found[part][name]["value"] for name in names})


def _version(gate: Mapping[str, Any] | None) -> str:
    return f" (version {gate['champion']})" if gate and gate.get("champion") else ""


def calibration(found: Mapping[str, Any], parts: Sequence[str]) -> Table:
    """Calibration error and Brier score of each part, before and after calibration."""
    lines = [(f"{_words(part)}, {when} calibration", "model" if when == "after" else "other", (),
              {name: found[part][name + suffix] for name in ("ece", "brier")})
             for part in parts for when, suffix in (("before", "_before"), ("after", ""))]
    return table("Calibration", "", (), ("ece", "brier"), lines)


def referral(found: Mapping[str, Any], parts: Sequence[str]) -> Table | None:
    """The metrics on all units, and on those whose decision is not referred; `None` where nothing is referred."""
    if not any(found["referral"][part]["below"] for part in parts):
        return None
    lines: list[tuple[str, str, tuple[str, ...], Mapping[str, Any] | None]] = []
    for part in parts:
        decided, counts = found["referral"][part], found["counts"][part]
        lines += [(f"{_words(part)}, all", "other", (counted(counts),), found[part]),
                  (f"{_words(part)}, decided{_absent(decided, found)}", "model", (counted(decided),),
                   decided.get("scores"))]
    return table("Referred to a human", "", (_counted_title(found),), found["official"], lines, note=_too_few(found))


def classes(found: Mapping[str, Any], part: str) -> Table:
    """Recall, precision and AUC of each class that has enough groups."""
    lines = [(name, "model", (counted(entry),),
              entry if entry["estimable"] else None)
             for name in found["classes"] if name not in found["left_out"]
             for entry in [found["per_class"][part][name]]]
    return table("By class", "Class", (_counted_title(found),), tuple(CLASS_COLUMNS), lines,
                  note=_too_few(found))


def coarse_classes(found: Mapping[str, Any], part: str) -> list[tuple[str, Table]]:
    """(title, table) of each task with coarse classes: the model and every baseline."""
    tables = []
    for coarse in found["views"].values():
        of = coarse[part]
        lines: list[tuple[str, str, tuple[str, ...], Mapping[str, Any]]] = [("This model", "model", (), of["scores"])]
        lines += [(found["floor_titles"][name], "baseline", (), of["floors"][name]) for name in found["floor_order"]]
        tables.append((coarse["title"], table(coarse["title"], "", (), found["official"], lines, references={
            name: of["scores"][name]["value"] for name in found["official"]})))
    return tables


def subgroups(found: Mapping[str, Any], part: str) -> list[tuple[str, Table]]:
    """(title, table) of each division of the units, for instance by sex; a thin line marks the whole part."""
    metrics = tuple(dict.fromkeys((found["metric"], "macro_auc")))
    divisions = {"source": found["per_source"][part], **found["subgroups"][part]}
    facts = (_counted_title(found),)
    tables = []
    for division, entries in divisions.items():
        if len(entries) < 2:
            continue
        lines = [(subgroup_name(value) + _absent(entry, found), "model", (counted(entry),),
                  entry if entry["estimable"] else None)
                 for value, entry in entries.items()]
        tables.append((_words(division), table(_words(division), _words(division), facts, metrics, lines,
                                                references={m: found[part][m]["value"] for m in metrics},
                                                note=_too_few(found), limits=(0.0, 1.0))))
    return tables


def subgroup_name(value: str) -> str:
    """A stored value of a subgroup as pages show it."""
    return _SUBGROUP_NAMES.get(value, value)


def undivided(found: Mapping[str, Any], part: str) -> list[str]:
    """The columns in which all units have one value, or none has any: `sex (Female)`. They divide nothing."""
    divisions = {"source": found["per_source"][part], **found["subgroups"][part]}
    return [f"{_words(division).lower()} ({subgroup_name(next(iter(entries), 'none'))})"
            for division, entries in divisions.items() if len(entries) < 2]


def locations(found: Mapping[str, Any]) -> Table | None:
    """Macro AUC for the patient from one auscultation location alone; `None` where a unit is a recording."""
    lines = [(name, "model", (counted(entry),),
              entry if entry["estimable"] else None) for name, entry in found["locations"].items()]
    if not lines:
        return None
    return table("One location alone", "Location", (_counted_title(found),), ("macro_auc",), lines,
                  note=_too_few(found), limits=(0.0, 1.0),
                  references={"macro_auc": found["held_out"]["macro_auc"]["value"]})


def baseline_classes(found: Mapping[str, Any]) -> Table:
    """AUC of each baseline for each class; confounded classes are marked."""
    flagged = {(entry["class"], entry["floor"]) for entry in found["confounded"]}
    shown = [name for name in found["classes"] if any(name in numbers for numbers in found["floor_auc"].values())]
    rows = []
    for baseline in (name for name in found["floor_order"] if name in found["floor_auc"]):
        title, numbers = found["floor_titles"][baseline], found["floor_auc"][baseline]
        cells = [_cell(f"{title}, {name}", "auc", numbers[name], (0.0, 1.0),
                       "flag" if (name, baseline) in flagged else "baseline", found["confounded_auc"])
                 for name in shown]
        rows.append(TableLine(title, "baseline", (), tuple(cells)))
    return Table("What baselines can tell", "", (), tuple(Column(name, "", ("0", "1")) for name in shown), tuple(rows))


def heart_states(measures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Network and loudness alone, compared with the annotation: title, share of frames, F1 of S1 and S2, rate error."""
    def row(title: str, m: Mapping[str, float]) -> tuple[str, ...]:
        error = m["heart_rate_error_median_per_min"]
        return (title, *(figure(m[key]) for key in ("frame_accuracy", "s1_f1", "s2_f1")),
                "no rate found" if error is None else f"{error:.1f} (90 %: {m['heart_rate_error_p90_per_min']:.1f})")

    titles = {"network": "Model's network", "by_loudness": "Peaks of loudness alone"}
    return [row(title, measures[key]) for key, title in titles.items() if measures.get(key)]


def robustness(found: Mapping[str, Any]) -> Table:
    """The scores as recorded and under each condition, their change, the mean confidence and the referred share."""
    metrics = tuple(dict.fromkeys((found["metric"], "macro_auc")))
    lines = [("As recorded", "model", found["clean"], NOTHING)]
    lines += [(f"{c['title']}, {c['words']}", "other", c, c["change"]) for c in found["conditions"]]
    references = {name: found["clean"]["scores"][name]["value"] for name in metrics}
    ends = {name: _limits(name, [entry["scores"][name] for _, _, entry, _ in lines]) for name in metrics}
    changes = domain([change[key] for *_, change in lines for key in ("value", "low", "high")] + [0.0], unit=False)
    rows = []
    for title, kind, entry, change in lines:
        cells = [_cell(title, name, entry["scores"][name], ends[name], kind, references[name]) for name in metrics]
        words = f"{title}, change: {signed(change['value'])}"
        drawn = Cell(signed(change["value"]), span(change), whisker(change, changes, words, kind=kind, reference=0.0))
        shares = figure(entry["sureness"]), figure(entry["referred"])
        rows.append(TableLine(title, kind, shares, (*cells, drawn if change is not NOTHING else Cell("", "", ""))))
    columns = (*(_column(name, ends[name]) for name in metrics),
               Column("Change", "paired", (f"{changes[0]:g}", f"{changes[1]:g}")))
    return Table("Robustness", "Condition", ("Confidence", "Referred"), columns, tuple(rows))


def table(
    caption: str, first: str, facts: tuple[str, ...], names: Sequence[str],
    lines: Iterable[tuple[str, str, tuple[str, ...], Mapping[str, Any] | None]], *,
    references: Mapping[str, float | None] | None = None, note: str = "", limits: tuple[float, float] | None = None,
) -> Table:
    """One row a line, one column a metric, each column with its own scale.

    Args:
        first: heading of the lines' titles; `facts`: of their counts.
        names: metrics.
        lines: title, kind (see `svg.whisker`), counts, and metric -> number; `None`: not estimable.
        references: metric -> where a thin line crosses all rows of its column.
        note: shown in place of the figures where a line is not estimable.
        limits: of every column; `None`: they follow from the column's numbers.
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
    known = {"held_out": "Held out", "out_of_fold": "Out of fold", "signal": "Signal quality",
             "session": "Recording session", "any_label": "Labels of the case"}
    return known.get(name, name.replace("_", " ").capitalize())
