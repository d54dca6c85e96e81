"""Which data sets an error concerns: the tasks of those stop, and those of other data sets go on.

In: the failed checks of `run_suites`, each with the data sets of all rows that fail it. Out: data set -> its errors. An
error whose rows cannot be told to belong to a data set concerns all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from heartml.core.system.errors import HeartMLError

_OWNED_BY = ("recording_id", "other_recording_id")


class NotFit(HeartMLError):  # noqa: N818 - reads as what it is
    """A data set of the task has errors in validation; the message names the first ones and the page with all."""


def owners(recordings: pd.DataFrame) -> dict[str, frozenset[str]]:
    """recording_id -> the data sets that have a recording with this id.

    >>> owners(pd.DataFrame({"recording_id": ["a", "b"], "dataset": ["circor", None]}))
    {'a': frozenset({'circor'})}
    """
    known = recordings[["recording_id", "dataset"]].dropna().drop_duplicates()
    return {str(i): frozenset(map(str, own)) for i, own in known.groupby("recording_id")["dataset"]}


def datasets_of(rows: pd.DataFrame, owned: Mapping[str, frozenset[str]]) -> list[str] | None:
    """The data sets of these rows of a checked table, by name; `None` where a row cannot be told to belong to one."""
    if "dataset" in rows:
        return None if rows["dataset"].isna().any() else sorted(set(map(str, rows["dataset"])))
    columns = [column for column in _OWNED_BY if column in rows]
    ids = {str(i) for column in columns for i in rows[column]}
    if not ids or not ids <= set(owned):
        return None
    return sorted(frozenset().union(*(owned[i] for i in ids)))


def errors_by_dataset(
    errors: Iterable[tuple[str, Sequence[str] | None]], present: Iterable[str]
) -> dict[str, list[str]]:
    """Data set -> the lines of its errors, for data sets with at least one.

    Args:
        errors: line and data sets of each failed check of severity `error`; `None` for all of them.
        present: the data sets in the data.

    >>> errors_by_dataset([("one", ["pascal"]), ("two", None)], ["circor", "pascal"])
    {'circor': ['two'], 'pascal': ['one', 'two']}
    """
    found: dict[str, list[str]] = {name: [] for name in sorted(present)}
    for line, concerned in errors:
        for name in found if concerned is None else concerned:
            found.setdefault(name, []).append(line)
    return {name: lines for name, lines in found.items() if lines}


def refuse_blocked(task: str, datasets: Iterable[str], result: Mapping[str, Any], page: object) -> None:
    """Stop a task one of whose data sets has errors.

    Args:
        task: its full name, for the message.
        datasets: those that the task uses.
        result: the content of `validation.json`; its key `blocked` is there only where a data set has errors.
        page: where a person reads all of it.

    Raises:
        NotFit: one of them has.
    """
    blocked = {name: result["blocked"][name] for name in datasets if name in result.get("blocked", {})}
    if blocked:
        errors = "\n  ".join(dict.fromkeys(line for lines in blocked.values() for line in lines))
        raise NotFit(f"{task}: the data of {' and '.join(blocked)} is not fit for training:\n  {errors}\n"
                     f"All of it: {page}. Tasks of other data sets go on")
