"""A comparison of two versions for people: tables on the terminal, and one HTML page with the differences drawn.

In: the values of `comparison.compare`. Out: text and HTML. Every figure is one of these values, rounded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from heartml.metrics import METRICS
from heartml.release.comparison import FIRST, NEITHER, SECOND, TOO_FEW
from heartml.reporting.number_format import figure, signed, span
from heartml.reporting.svg import domain, strip, whisker
from heartml.reporting.task_report.headline import TITLES
from heartml.reporting.task_report.tables import Cell, Column, Table, TableLine

Json = Mapping[str, Any]
_KINDS = {FIRST: "model", SECOND: "champion", NEITHER: "other", TOO_FEW: "other"}
_MAX_LENGTH = 60    # characters of a value in a line


def names(found: Json) -> tuple[str, str]:
    """`version 1` and `version 3`, with the model's names if they differ."""
    same = found[FIRST]["name"] == found[SECOND]["name"]
    first, second = (f"{'' if same else found[side]['name'] + ' '}version {found[side]['version']}"
                     for side in (FIRST, SECOND))
    return first, second


def title(found: Json) -> str:
    """The heading, `circor-murmur: version 1 and version 3`."""
    first, second = names(found)
    same = found[FIRST]["name"] == found[SECOND]["name"]
    return f"{found[SECOND]['name']}: {first} and {second}" if same else f"{first} and {second}"


def headline(found: Json) -> str:
    """The result on the task's metric, in a sentence."""
    first, second = names(found)
    if not found["units"]:
        return f"{title(found)} have no held-out unit in common that neither was trained on"
    of, metric = found["metrics"][found["metric"]], METRICS[found["metric"]]
    if of["difference"]["value"] is None:
        return f"{metric.title} is not defined on the {found['groups']} groups that were compared"
    words = f"{metric.title} {signed(of['difference']['value'])} ({change(of['difference'])})"
    if of["better"] == TOO_FEW:
        return (f"On {found['groups']} groups nobody can tell whether {first} or {second} is better, at least "
                f"{found['least_groups']} are needed. {words}")
    if of["better"] == NEITHER:
        return _cannot_tell(of, f"{found['groups']} groups", first, second, words)
    winner = second if of["better"] == SECOND else first
    return f"{winner[0].upper()}{winner[1:]} is better. {words}"


def _cannot_tell(of: Json, groups: str, first: str, second: str, words: str) -> str:
    """What an interval with zero in it means: these groups cannot tell, and how large a difference would show."""
    if not of["detectable"]:
        return f"{first[0].upper()}{first[1:]} and {second} score the same on these {groups}. {words}"
    return (f"{groups} cannot tell whether {first} or {second} is better. {words}. So many groups show a "
            f"difference from about {figure(of['detectable'])} on; a smaller one may be there all the same")


def change(difference: Json) -> str:
    """The interval of a difference, `−0.05 to +0.12`."""
    return f"{signed(difference['low'])} to {signed(difference['high'])}"


def basis(found: Json) -> str:
    """On how many units the comparison rests, and which were left out."""
    left = found["left_out"]
    reasons = [f"{count} left out ({why})" for count, why in (
        (left["trained"], "one of the two was trained on their group"),
        (left["first_alone"], "only the first predicted them"),
        (left["second_alone"], "only the second predicted them")) if count]
    relabelled = [f"{found['relabelled']} whose label changed, by the second's label"] if found["relabelled"] else []
    absent = [f"none of them {' or '.join(found['absent'])}"] if found["absent"] and found["units"] else []
    words = f"On {found['units']} held-out {found['unit']}s in {found['groups']} groups"
    return f"{'; '.join([words, *absent, *reasons, *relabelled])}. Differences are the second minus the first."


def metric_title(name: str) -> str:
    """The metric's title, with a note if lower is better."""
    return TITLES[name] if METRICS[name].greater_is_better else f"{TITLES[name]} (lower is better)"


def what_differs(found: Json) -> list[tuple[str, Sequence[tuple[str, str, str]]]]:
    """Sections of rows (what, first, second): data, code, parameters, environment. Empty if they are the same."""
    data, code = found["data"], found["code"]
    of_data = [("data.dvc", *data["hashes"])] if data["hashes"][0] != data["hashes"][1] else []
    if data["first_alone"] or data["second_alone"]:
        of_data.append(("Recordings in one only", str(data["first_alone"]), str(data["second_alone"])))
    if data["moved"]:
        of_data.append(("Recordings in both, on another side of the split", str(data["moved"]), ""))
    commits = [f"{(commit or 'none')[:12]}{' with uncommitted changes' if dirty else ''}"
               for commit, dirty in zip(code["commits"], code["dirty"], strict=True)]
    return [
        ("Data", of_data),
        ("Code", ([("Commit", commits[0], commits[1])] if commits[0] != commits[1] else [])
         + [("Differs", path, "") for path in code["files"]]),
        ("Parameters", [(key, *map(_text, pair)) for key, pair in found["params"].items()]),
        ("Environment", [(key, *map(_text, pair)) for key, pair in found["environment"].items()]),
    ]


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def show(found: Json) -> None:
    """Print the comparison on the terminal."""
    from rich.console import Console
    from rich.table import Table as Printed
    from rich.text import Text

    console, (first, second) = Console(), names(found)
    for words, style in ((title(found), "bold"), (headline(found), "bold"), (basis(found), "")):
        console.print(Text(words, style=style), soft_wrap=True)
    if found["metrics"]:
        printed = Printed("Metric", first, second, "Difference", "Better")
        for name, of in found["metrics"].items():
            printed.add_row(metric_title(name), *_figures(of, found))
        for of in found["subgroups"]:
            name = f"{of['division'].replace('_', ' ')}: {of['value']} ({of['groups']} groups)"
            printed.add_row(name, *(_figures(of, found) if of["estimable"] else ("not estimable", "", "", "")))
        console.print(printed)
        console.print(Text(decision_counts(found)))
    for what_of, rows in what_differs(found):
        console.print(Text(f"{what_of}: {'differs' if rows else 'the same'}", style="bold"))
        for what, one, other in rows:
            console.print(Text(f"  {what}: {short(one)}{f' -> {short(other)}' if other else ''}"), soft_wrap=True)


def _figures(of: Json, found: Json) -> tuple[str, str, str, str]:
    unclear = f"cannot tell below {figure(of['detectable'])}" if of["detectable"] else "the same"
    better = {FIRST: names(found)[0], SECOND: names(found)[1], NEITHER: unclear, TOO_FEW: TOO_FEW}
    first, second = (_with_span(figure(of[side]["value"]), span(of[side])) for side in (FIRST, SECOND))
    d = of["difference"]
    if d["value"] is None:
        return first, second, "not estimable", ""
    return first, second, _with_span(signed(d["value"]), change(d)), better[of["better"]]


def _with_span(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def decision_counts(found: Json) -> str:
    """On how many units both versions were right, only one, or neither, in a sentence."""
    n = found["decisions"]
    return (f"Both right: {n['both_right']}; only the first: {n['first_alone_right']}; only the second: "
            f"{n['second_alone_right']}; neither: {n['both_wrong']}.")


def short(text: str) -> str:
    """The first 60 characters of a text; an ellipsis marks what was cut."""
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH - 1]}…"


def render(found: Json) -> str:
    """The page as HTML. It loads nothing from elsewhere, and the same comparison gives the same bytes."""
    from jinja2 import ChoiceLoader, PackageLoader

    from heartml.reporting.environment import environment

    pages = environment()
    pages.loader = ChoiceLoader([PackageLoader("heartml.release"), PackageLoader("heartml.reporting")])
    metrics = [(metric_title(name), (), of) for name, of in found["metrics"].items()]
    groups = [(f"{of['division'].replace('_', ' ').capitalize()}: {of['value']}",
               (f"{of['units']:,} ({of['groups']:,})",), of) for of in found["subgroups"]]
    counted = (f"{found['unit'].capitalize()}s (groups)",)
    return pages.get_template("compare.html.jinja").render(
        found=found, names=names(found), title=title(found), headline=headline(found), basis=basis(found),
        decision_counts=decision_counts,
        metrics=drawn(found, metrics, ()) if metrics else None,
        subgroups=drawn(found, groups, counted) if groups else None,
        units=units(found), differs=what_differs(found), meaning=TITLES[found["metric"]] if metrics else "",
    )


def drawn(found: Json, lines: Sequence[tuple[str, tuple[str, ...], Json]], facts: tuple[str, ...]) -> Table:
    """A table with a drawing in each cell: both versions and their difference, with intervals.

    Every row has a scale of its own. In the column of differences zero is in the middle.
    """
    rows = []
    for name, counts, of in lines:
        if "difference" not in of:
            rows.append(TableLine(name, "other", counts, (), f"not estimable: fewer than {found['min_groups']} groups"))
            continue
        values = [of[side][end] for side in (FIRST, SECOND) for end in ("value", "low", "high")]
        ends = domain(values, unit=all(value is None or 0 <= value <= 1 for value in values))
        cells = [Cell(figure(of[side]["value"]), span(of[side]), whisker(
            of[side], ends, f"{name}, {which}: {figure(of[side]['value'])}", kind="other"))
            for side, which in zip((FIRST, SECOND), names(found), strict=True)]
        d = of["difference"]
        most = max(abs(d[end] or 0.0) for end in ("value", "low", "high")) or 1.0
        words = f"{name}, difference: {signed(d['value'])}, {change(d)}"
        end = max(most, _smallest_end(of))
        picture = whisker(d, (-end, end), words, kind=_KINDS[of["better"]], reference=0.0)
        rows.append(TableLine(name, _KINDS[of["better"]], counts,
                              (*cells, Cell(signed(d["value"]), change(d), picture))))
    first, second = names(found)
    columns = (Column(first, "", ("", "")), Column(second, "", ("", "")), Column("Difference", "paired", ("−", "+")))
    return Table("Comparison", "", facts, columns, tuple(rows))


def _smallest_end(of: Json) -> float:
    """Smallest end of the scale of differences, so that a small difference looks small: half of the score's range.

    Scores lie between 0 and 1. For costs it is half of the larger value.
    """
    values = [abs(of[side]["value"] or 0.0) for side in (FIRST, SECOND)]
    return 0.5 if max(values) <= 2 else max(values) / 2


def units(found: Json) -> str | None:
    """A drawing with one dot for each unit, in the row of its true class; `None` if there is no unit.

    The position is the probability that the second version gives to the true class, minus the first's.
    """
    if not found["by_unit"]:
        return None
    rows: dict[str, list[tuple[float, int, str]]] = {
        label: [] for label in found["classes"] if any(unit["label"] == label for unit in found["by_unit"])}
    for unit in found["by_unit"]:
        gain = unit[SECOND]["truth"] - unit[FIRST]["truth"]
        correct = [unit[side]["decision"] == unit["label"] for side in (FIRST, SECOND)]
        series = 5 if correct[0] == correct[1] else 3 if correct[1] else 0
        rows[unit["label"]].append((gain, series, f"{unit['unit_id']}: {unit[FIRST]['truth']:.2f} to "
                                    f"{unit[SECOND]['truth']:.2f}"))
    return strip(rows, "Probability of the truth, second minus first", "Paired differences by unit", (-1.0, 1.0))
