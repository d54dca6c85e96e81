"""Recordings whose person nobody names: how many they are, and what that does to scores, in a sentence. Pure.

Where a collection has no ids of persons, each recording is a group of its own. Groups are then no longer persons, and
everything that rests on groups (the split, the intervals, the gate) says less than it seems to.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from heartml.core.schema import LABEL_PREFIX

if TYPE_CHECKING:
    import pandas as pd  # `heartml models` prints sentences and needs no pandas

_NUMBERED = r"^(?P<before>.*?)(?P<number>\d{1,15})(?P<after>\D*)$"       # the last number of a file's name
_RUN_COLUMNS = ("dataset", "source_file", "last_source_file", "labels", "recordings", "groups")


def count_unknown(recordings: "pd.DataFrame") -> dict[str, int]:
    """How many recordings name no person, and the groups that these are in.

    Args:
        recordings: recording_id (each once), patient_id (null: unknown), group_id.

    Returns:
        recordings; unknown, those without a person; groups, of these; alone, those that are the only one of their
        group.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"recording_id": list("abcd"), "patient_id": ["p", None, None, None],
    ...                       "group_id": ["p", "day 1", "day 1", "d.wav"]})
    >>> count_unknown(table)
    {'recordings': 4, 'unknown': 3, 'groups': 2, 'alone': 1}
    """
    unknown = recordings[recordings["patient_id"].isna()]
    size = recordings["group_id"].value_counts()
    return {"recordings": len(recordings), "unknown": len(unknown), "groups": int(unknown["group_id"].nunique()),
            "alone": int((unknown["group_id"].map(size) == 1).sum())}


def unknown_in_words(counts: Mapping[str, int] | None) -> str:
    """A sentence on recordings without a person and what follows from them; empty where none is a group of its own.

    Args:
        counts: of `count_unknown`; `None` where an older evaluation did not count.

    >>> unknown_in_words({"recordings": 4, "unknown": 0, "groups": 0, "alone": 0})
    ''
    >>> unknown_in_words({"recordings": 9, "unknown": 4, "groups": 3, "alone": 2})  # doctest: +ELLIPSIS
    '4 of 9 recordings name no person, so they count as 3 groups (2 of a single recording): one person may be in ...'
    """
    if not counts or not counts["alone"]:
        return ""
    unknown, groups, alone = (f"{counts[key]:,}" for key in ("unknown", "groups", "alone"))
    everyone = counts["unknown"] == counts["recordings"]
    who = f"None of the {unknown} recordings names its person" if everyone else \
        f"{unknown} of {counts['recordings']:,} recordings name no person"
    what = "each counts as a group of its own" if counts["alone"] == counts["unknown"] else \
        f"they count as {groups} groups ({alone} of a single recording)"
    return (f"{who}, so {what}: one person may be in training and test, the score may then be too high, and its "
            "interval is too narrow.")


def numbered_runs(recordings: "pd.DataFrame", groups: "pd.DataFrame") -> "pd.DataFrame":
    """Recordings without a person whose file names have consecutive numbers and whose labels agree: one row a run.

    Such a run may be one person, recorded several times or cut into pieces. That is a suspicion, and nothing is joined.

    Args:
        recordings: recording_id (each once), dataset, source_file, patient_id and label columns.
        groups: recording_id and group_id, after groups with near-duplicates were joined.

    Returns:
        dataset, source_file and last_source_file (the ends of the run), labels, recordings, groups. Runs of at least
        two labelled recordings, in the order of the table.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"recording_id": list("abcd"), "dataset": "clinic", "patient_id": None,
    ...     "source_file": ["r1.wav", "r2.wav", "r3.wav", "r9.wav"], "label_valve": ["AS", "AS", "N", "N"]})
    >>> alone = table[["recording_id"]].assign(group_id=table["source_file"])
    >>> numbered_runs(table, alone).to_numpy().tolist()
    [['clinic', 'r1.wav', 'r2.wav', 'AS', 2, 2]]
    """
    import pandas as pd

    labels = sorted(column for column in map(str, recordings) if column.startswith(LABEL_PREFIX))
    unknown = recordings[recordings["patient_id"].isna() & recordings[labels].notna().any(axis=1)]
    parts = unknown["source_file"].astype(object).str.extract(_NUMBERED).dropna()
    if parts.empty:
        return pd.DataFrame(columns=list(_RUN_COLUMNS)).astype({"recordings": "int64", "groups": "int64"})
    text = unknown.loc[parts.index, labels].astype(object).apply(lambda row: ", ".join(map(str, row.dropna())), axis=1)
    table = unknown.loc[parts.index, ["recording_id", "dataset", "source_file"]].assign(
        labels=text, before=parts["before"], after=parts["after"], number=parts["number"].astype("int64"))
    table = table.merge(groups, on="recording_id").sort_values(["dataset", "before", "after", "number"], kind="stable")
    alike = table[["dataset", "before", "after", "labels"]].astype(object)
    same = (alike == alike.shift()).all(axis=1) & (table["number"].diff() == 1)
    runs = table.groupby((~same.astype(bool)).cumsum().to_numpy()).agg(
        dataset=("dataset", "first"), source_file=("source_file", "first"), last_source_file=("source_file", "last"),
        labels=("labels", "first"), recordings=("recording_id", "size"), groups=("group_id", "nunique"))
    return runs[runs["recordings"] > 1].reset_index(drop=True)
