"""The text of a mapping file, and of a table for folders named after classes, from a `Plan`. Pure.

Each line that was guessed has its reason as a comment. The text is YAML that
`heartml.data.datasets.mapping_file` reads.
"""

import csv
import io
from collections.abc import Mapping

import yaml

from heartml.core.system.text import csv_cell
from heartml.data.datasets.mapping_file import TO_BE_FILLED_IN
from heartml.data.new_collection.guesses import Plan
from heartml.data.new_collection.survey import MARK, MARK_WITH_TABLE, PATIENT, WRITTEN


def table_name(plan: Plan) -> str:
    """The table that the mapping file names: the one in the folder, or the one that is written."""
    return str(plan.survey.table) if table(plan) is None else plan.name + WRITTEN


def table(plan: Plan) -> str | None:
    """The text of the table to write: for folders of classes, and where patients come from names of files; else none.

    A table in the folder is never changed: its rows are written again, with a column more.
    """
    survey = plan.survey
    if survey.table is not None and not plan.patients:
        return None
    columns = [*survey.columns, *([_patient_column(plan)] if plan.patients else [])]
    rows = ([*(row[column] for column in survey.columns),
             *([csv_cell(plan.patients[row[survey.path]])] if plan.patients else [])] for row in survey.rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def _patient_column(plan: Plan) -> str:
    """A name that no column of the table has."""
    name = PATIENT
    while name in plan.survey.columns:
        name += "_from_name"
    return name


def mapping(plan: Plan) -> str:
    """The text of the mapping file."""
    patient = _patient_column(plan) if plan.patients else plan.columns["patient"].column
    lines = [
        MARK if table(plan) is None else MARK_WITH_TABLE,
        "# What follows a # is the reason for a guess: correct what is wrong.",
        "# All keys are in docs/collections.md.",
        f"title: {plan_value(plan.name)}",
        f"citation: {TO_BE_FILLED_IN}",
        f"licence: {TO_BE_FILLED_IN}        # under which others may use the recordings; a trial needs none",
        f"table: {_text(table_name(plan))}",
        "columns:",
        _line("path", plan.survey.path, f"names {plan.survey.named} of {len(plan.survey.rows)} files as they lie here"),
        _line("patient", patient, "the names of files, before the first separator" if plan.patients else
              plan.columns["patient"].reason),
        *(_line(role, guess.column, guess.reason) for role, guess in plan.columns.items() if role != "patient"),
        *_values(plan.values),
        "tasks:",
        f"  {plan.task}:",
        f"    column: {_text(str(plan.label.column))}        # {_comment(plan.label.reason)}",
        f"    classes: {_classes(plan.classes)}",
        f"    # {_comment(', '.join(f'{name} {count}' for name, count in plan.counts.items()))} rows",
        "    unit: recording        # or patient: one answer for all recordings of a patient",
        f"    {'' if plan.positive else '# '}positive: {_text(plan.positive or next(iter(plan.counts)))}"
        "        # the class whose recall is of interest; may be left out",
    ]
    notes = [f"# {_comment(note)}" for note in plan.notes]
    return "\n".join([*lines, *(["", "# What to know", *notes] if notes else [])]) + "\n"


def plan_value(name: str) -> str:
    """The title that stands there until a person writes a better one.

    >>> plan_value("my_clinic")
    'My clinic'
    """
    return name.replace("_", " ").capitalize()


def _line(role: str, column: str | None, reason: str) -> str:
    named = f"{role}: {_text(column)}" if column is not None else f"# {role}:"
    return f"  {named}        # {_comment(reason)}"


def _values(values: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The section `values`; '' is nothing, for a word that nobody knows."""
    known = {role: meanings for role, meanings in values.items() if meanings}
    if not known:
        return []
    lines = (f"  {role}: {_flow(dict(meanings))}{_unknown(meanings)}" for role, meanings in known.items())
    return ["values:        # what words of the table mean", *lines]


def _unknown(meanings: Mapping[str, str]) -> str:
    words = [word for word, meaning in meanings.items() if not meaning]
    return f"        # not known, so they mean nothing: {_comment(', '.join(words))}" if words else ""


def _classes(classes: Mapping[str, str]) -> str:
    return _flow(list(classes)) if all(word == name for word, name in classes.items()) else _flow(dict(classes))


def _text(text: str) -> str:
    """One value of YAML, quoted where it has to be.

    >>> _text("file"), _text("a: b"), _text("1")
    ('file', "'a: b'", "'1'")
    """
    return _flow([text])[1:-1]


def _flow(value: list[str] | dict[str, str]) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**9).strip()


def _comment(text: str) -> str:
    """Words of other people in one line, so that they stay a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


