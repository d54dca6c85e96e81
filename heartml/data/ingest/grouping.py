"""Which recordings are one recording, which contradict each other, and which belong to one person. Pure.

A *candidate* is a source file that passed the entry checks. Candidates are told apart by `recording_id`; pairs of
nearly the same audio come from `heartml.audio.near_duplicates`.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import pandas as pd

from heartml.audio import near_duplicates
from heartml.audio.entry_checks import Fault


def contradictions(candidates: pd.DataFrame, pairs: pd.DataFrame, labels: Sequence[str]) -> dict[int, Fault]:
    """Row of `candidates` -> fault, for both sides of every pair that is the same audio under two labels.

    Args:
        candidates: `source_file`, `recording_id` and the columns `labels`; one row a source file, index 0 to n - 1.
        pairs: `recording_id_a`, `recording_id_b`, `correlation` of nearly the same audio.
        labels: columns that must not differ; null contradicts nothing.
    """
    faults: dict[int, Fault] = {}
    names, columns = candidates["source_file"].tolist(), [candidates[c].astype(object).tolist() for c in labels]
    for a, b, correlation in _row_pairs(candidates, pairs):
        likeness = "" if correlation is None else f" (correlation {correlation:.3f})"
        for column in columns:
            if pd.isna(column[a]) or pd.isna(column[b]) or column[a] == column[b]:
                continue
            for own, other in ((a, b), (b, a)):
                detail = f"the same audio{likeness} as {names[other]}, which is labelled {column[other]}"
                faults.setdefault(own, Fault("contradiction", detail))
    return faults


def copies(candidates: pd.DataFrame, labels: Sequence[str], taken: Iterable[str]) -> dict[int, Fault]:
    """Row -> fault, for every source file whose samples another one holds already.

    The one with the most labels stays, then the first by name. `taken`: recording ids of other data sets.
    """
    order = candidates.assign(known=candidates[list(labels)].notna().sum(axis=1))
    order = order.sort_values(["known", "source_file"], ascending=[False, True])
    first: dict[str, str] = dict.fromkeys(taken, "a recording of another data set")
    faults: dict[int, Fault] = {}
    for row, recording_id, source_file in zip(order.index, order["recording_id"], order["source_file"], strict=True):
        if recording_id in first:
            faults[int(row)] = Fault("duplicate", f"the same samples as {first[recording_id]}")
        first.setdefault(recording_id, source_file)
    return faults


def groups(candidates: pd.DataFrame, pairs: pd.DataFrame, known_same: Iterable[Iterable[str]]) -> list[str]:
    """The group of each candidate [n]: the same audio, and ids of one person, are one group.

    Every merged group takes the smallest of its names, so that the order of arrival does not show.

    Args:
        candidates: `group` (before merging) and `recording_id`.
        pairs: `recording_id_a`, `recording_id_b`.
        known_same: sets of group names that are one.
    """
    names, edges = list(candidates["group"]), [(a, b) for a, b, _ in _row_pairs(candidates, pairs)]
    for same in known_same:
        ordered = sorted(same)
        edges += [(len(names) + k, len(names) + k + 1) for k in range(len(ordered) - 1)]
        names += ordered
    merged = near_duplicates.join(names, pd.DataFrame(edges, columns=["i", "j"], dtype="int64"))
    return merged[: len(candidates)]


def _row_pairs(candidates: pd.DataFrame, pairs: pd.DataFrame) -> list[tuple[int, int, float | None]]:
    """Pairs of rows with the same samples (correlation None) or nearly the same audio, in a fixed order."""
    rows: dict[str, list[int]] = {}
    for row, recording_id in enumerate(candidates["recording_id"]):
        rows.setdefault(recording_id, []).append(row)
    found: list[tuple[int, int, float | None]] = [
        (a, b, None) for same in rows.values() for a, b in combinations(same, 2)
    ]
    columns = zip(pairs["recording_id_a"], pairs["recording_id_b"], pairs["correlation"], strict=True)
    found += [(a, b, abs(r)) for x, y, r in columns for a in rows.get(x, ()) for b in rows.get(y, ())]
    return found
