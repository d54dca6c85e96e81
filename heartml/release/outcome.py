"""The outcome of a retraining, for people and for programs: a table on the terminal, Markdown, JSON.

In: one `publish.ReleaseOutcome` a task. Out: text, with each metric's interval, the best baseline and the champion.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from heartml.core.system.text import printable
from heartml.data.persons import unknown_in_words
from heartml.metrics import METRICS
from heartml.registry.champions import FOUND, GATE, RETIREMENT, ROLLBACK, Entry
from heartml.registry.versions import Version
from heartml.release import murmur_pages
from heartml.release.publish import FAILED, ReleaseOutcome

HEADINGS = ("Metric", "Held out", "Best baseline", "Champion")
_LABELS = {"promoted": "bold green", "refused": "yellow", "nothing new": "cyan", FAILED: "bold red"}


def rows(outcome: ReleaseOutcome) -> list[tuple[str, ...]]:
    """One row a metric: title, value with its interval, best baseline, and the champion on the held-out units."""
    from heartml.evaluation.assessment import best_numbers
    from heartml.metrics import METRICS

    evaluation = outcome.evaluation
    baselines = best_numbers(evaluation["floors"], evaluation["official"])
    compared: Mapping[str, Any] = outcome.verdict.get("comparison") or {}
    champion = compared.get("champion_held_out", compared.get("champion", {}))   # older verdicts: held-out units alone
    return [
        (METRICS[name].title, interval(evaluation["held_out"][name]),
         _number(baselines[name]["value"]) if name in baselines else "none",
         _number(champion.get(name)))
        for name in evaluation["official"]
    ]


def summary(outcome: ReleaseOutcome) -> str:
    """`84 held-out units, 77 groups; best baseline of the first metric: loudness and length alone`."""
    evaluation = outcome.evaluation
    counts, best = evaluation["counts"]["held_out"], evaluation["best_floor"]["held_out"]
    baseline = f"; best baseline of the first metric: {evaluation['floor_titles'][best].lower()}" if best else ""
    return f"{counts['units']} held-out units, {counts['groups']} groups{baseline}"


def notes(outcome: ReleaseOutcome) -> list[str]:
    """What a reader of the table should know: that persons are unknown, and the mean over sources. Often nothing."""
    found = (unknown_in_words(outcome.evaluation.get("persons")), _mean_over_sources(outcome.evaluation))
    return [words for words in found if words]


def _mean_over_sources(evaluation: Mapping[str, Any]) -> str:
    """Of the held-out part; where its sources have too few groups, out of fold. Older evaluations have none."""
    means = evaluation.get("mean_over_sources") or {}
    part = next((part for part in ("held_out", "out_of_fold") if means.get(part)), None)
    if part is None:
        return ""
    whole, where = evaluation[part][evaluation["metric"]]["value"], part.replace("_", " ")
    return (f"{METRICS[evaluation['metric']].title}, {where}: mean over {means[part]['sources']} sources "
            f"{_number(means[part]['value'])}, all together {_number(whole)}.")


def interval(number: Mapping[str, float | None]) -> str:
    """A value with its interval: `0.812 [0.733, 0.884]`.

    >>> interval({"value": 0.8123, "low": 0.733, "high": 0.884})
    '0.812 [0.733, 0.884]'
    >>> interval({"value": None, "low": None, "high": None})
    '-'
    """
    if number["low"] is None or number["high"] is None:
        return _number(number["value"])
    return f"{_number(number['value'])} [{_number(number['low'])}, {_number(number['high'])}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def heading(outcome: ReleaseOutcome) -> str:
    """`simulated-murmur: promoted, version 1`."""
    version = f", version {outcome.version}" if outcome.version else ""
    return f"{outcome.task}: {outcome.state}{version}"


def show(outcomes: Sequence[ReleaseOutcome], uncommitted: Sequence[str] = ()) -> None:
    """Print a table for each task, the verdict with its reason, and the path of the report.

    Args:
        uncommitted: files that say what the models were made from and that no commit has yet.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for outcome in outcomes:
        if outcome.evaluation:
            table = Table(title=f"{outcome.task}: {summary(outcome)}", title_justify="left")
            for name in HEADINGS:
                table.add_column(name, justify="left" if name == "Metric" else "right")
            for row in rows(outcome):
                table.add_row(*row)
            console.print(table)
            for words in notes(outcome):
                console.print(Text(words), soft_wrap=True)
        console.print(Text(heading(outcome), style=_LABELS[outcome.state]))
        console.print(Text(f"  {outcome.reason}"), soft_wrap=True)
        if outcome.report:
            console.print(Text(f"  report: {outcome.report}"), soft_wrap=True)
    for page in murmur_pages.pages(outcomes):
        console.print(Text(f"all features of the murmur: {page}"), soft_wrap=True)
    if uncommitted:
        console.print(Text(what_to_commit(uncommitted)), soft_wrap=True)


def what_to_commit(uncommitted: Sequence[str]) -> str:
    """What to commit after a retraining, and what for.

    >>> what_to_commit(["dvc.lock", "params.yaml"])
    'to commit: `git add dvc.lock params.yaml && git commit`; a clone then knows what the models were made from'
    """
    names = " ".join(shlex.quote(printable(name)) for name in uncommitted)
    return f"to commit: `git add {names} && git commit`; a clone then knows what the models were made from"


def show_versions(versions: Sequence[Version]) -> None:
    """Print every registered version by the name that `heartml promote` takes, with aliases and the gate's reason."""
    _show("Registered models (UTC)", [
        (v.created_ms, f"{v.name}/{v.number}", ", ".join(v.aliases),
         [v.tags.get("heartml.reason", "not judged yet: the next `heartml retrain` does")]) for v in versions])
    if not versions:
        print("No model is registered yet: run `heartml retrain`.")


def show_history(history: Mapping[str, Sequence[Entry]]) -> None:
    """Print each decision of the journals of champions: when, who decided, and a person's reason."""
    decided = []
    for name, entries in history.items():
        for entry in entries:
            decision = entry.decision
            how = {GATE: "by the gate", FOUND: "found as champion", ROLLBACK: f"rollback by {decision.who}",
                   RETIREMENT: f"retired by {decision.who}: nothing serves"}
            after = "" if decision.kind == RETIREMENT else f" after {decision.before}"
            why = [decision.reason] if decision.kind != GATE else []
            why += [f"Overruled: {decision.forced}"] if decision.forced else []
            late = [] if entry.counts else ["Came too late: another decision was first."]
            decided.append((entry.when_ms, f"{name}/{entry.subject}{after}",
                            how.get(decision.kind, f"by {decision.who}"), [*why, *late]))
    _show("Who decided (UTC)", decided)


def _show(title: str, found: Sequence[tuple[int, str, str, Sequence[str]]]) -> None:
    """Print entries of (when in ms, what, how, words): a line each, with the wrapped words below. Nothing if empty."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    if found:
        console.print(Text(f"\n{title}", style="bold"))
    for when_ms, what, how, words in found:
        when = f"{datetime.fromtimestamp(when_ms / 1000, UTC):%Y-%m-%d %H:%M}  "
        console.print(Text.assemble(when, (printable(what), "bold"), f"  {printable(how)}"), soft_wrap=True)
        for text in words:
            console.print(Padding(Text(printable(text)), (0, 0, 0, 4)))


def markdown(outcomes: Sequence[ReleaseOutcome]) -> str:
    """The outcomes as Markdown: a section for each task, with verdict, reason and table."""
    parts = []
    for outcome in outcomes:
        parts.append(f"## {heading(outcome)}\n\n{outcome.reason}\n")
        if outcome.evaluation:
            lines = [HEADINGS, ("---",) * len(HEADINGS), *rows(outcome)]
            parts += [f"{words}\n" for words in (summary(outcome), *notes(outcome))]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
        if outcome.report:
            parts.append(f"Report: `{outcome.report}`; MLflow run `{outcome.run_id}`\n")
    return "\n".join(parts)


def table(outcomes: Sequence[ReleaseOutcome]) -> list[dict[str, str]]:
    """One row for each task and metric, for Prefect's table artifact."""
    return [
        {"Task": outcome.task, "Version": outcome.version or "-", "Outcome": outcome.state,
         **dict(zip(HEADINGS, row, strict=True))}
        for outcome in outcomes for row in (rows(outcome) if outcome.evaluation else [])
    ]


def as_json(outcomes: Sequence[ReleaseOutcome]) -> list[dict[str, Any]]:
    """For programs: everything except the long tables of the evaluation."""
    keys = ("held_out", "out_of_fold", "floors", "best_floor", "counts", "metric", "classes",
            "mean_over_sources", "persons")
    return [
        {**asdict(outcome), "evaluation": {key: outcome.evaluation[key] for key in keys if key in outcome.evaluation}}
        for outcome in outcomes
    ]
