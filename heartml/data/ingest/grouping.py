"""Which source files are copies, which contradict each other, and which belong to one person. Pure.

In: *candidates*, the source files that passed the entry checks, one row each; pairs of near-duplicates. Out: faults of
candidates, or their groups. Files with the same samples have the same `recording_id`.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

import pandas as pd

from heartml.audio import near_duplicates
from heartml.audio.entry_checks import Fault
from heartml.core.schema import LABEL_PREFIX
from heartml.core.system import cells


def contradictions(candidates: pd.DataFrame, pairs: pd.DataFrame, labels: Sequence[str]) -> dict[int, Fault]:
    """Both sides of every pair that is the same audio with different labels.

    Args:
        candidates: `source_file`, `recording_id` and the columns `labels`; one row a source file, index 0 to n - 1.
        pairs: `recording_id_a`, `recording_id_b`, `correlation` of near-duplicates.
        labels: columns that must not differ; a null does not contradict anything.

    Returns:
        Row of `candidates` -> fault.
    """
    faults: dict[int, Fault] = {}
    names, columns = candidates["source_file"].tolist(), [candidates[c].astype(object).tolist() for c in labels]
    for a, b, correlation in _row_pairs(candidates, pairs):
        how_alike = "" if correlation is None else f" (correlation {correlation:.3f})"
        for column in columns:
            if pd.isna(column[a]) or pd.isna(column[b]) or column[a] == column[b]:
                continue
            for own, other in ((a, b), (b, a)):
                detail = f"the same audio{how_alike} as {names[other]}, which is labelled {column[other]}"
                faults.setdefault(own, Fault("contradiction", detail))
    return faults


def patient_contradictions(
    candidates: pd.DataFrame, labels: Sequence[str], refused: pd.DataFrame
) -> dict[int, Fault]:
    """Every recording of a patient who has two values of a label that belongs to the patient.

    Args:
        candidates: `source_file`, `patient_id` and the columns `labels`.
        labels: columns of labels that are about the patient; a null does not contradict anything.
        refused: the same of files that were refused for another reason; what they say of the patient counts.

    Returns:
        Row of `candidates` -> fault.
    """
    faults: dict[int, Fault] = {}
    for column in labels:
        known = pd.concat([candidates, refused])[["patient_id", column, "source_file"]].dropna()
        first = known.drop_duplicates(["patient_id", column]).astype(object)
        several = {patient: own for patient, own in first.groupby("patient_id") if len(own) > 1}
        words = {patient: ", ".join(f"{label} in {file}" for _, label, file in own.itertuples(index=False))
                 for patient, own in several.items()}
        own_rows = candidates[candidates["patient_id"].isin(words)]
        for row, patient in zip(own_rows.index, own_rows["patient_id"], strict=True):
            detail = f"{column.removeprefix(LABEL_PREFIX)} of {patient} is {words[patient]}: correct the table"
            faults.setdefault(int(row), Fault("contradiction", detail))
    return faults


def spelling_faults(fresh: pd.DataFrame, before: pd.DataFrame) -> dict[str, Fault]:
    """Source file -> fault, for each new file whose patient an earlier ingest wrote in another way (`12`, `12.0`).

    Args:
        fresh: `source_file` and `patient_id` of the files that are ingested now.
        before: the same of the recordings that stay.
    """
    known: dict[str, tuple[str, str]] = {}
    for file, patient in before[["source_file", "patient_id"]].dropna().itertuples(index=False):
        known.setdefault(patient_key(patient), (patient, file))
    faults: dict[str, Fault] = {}
    for file, patient in fresh[["source_file", "patient_id"]].dropna().itertuples(index=False):
        other, where = known.get(patient_key(patient), (patient, ""))
        if other != patient:
            faults[file] = Fault("ambiguous_id", cells.spelling_fault(patient, {other: f"{where}, ingested earlier"}))
    return faults


def patient_key(patient_id: str) -> str:
    """What the spellings of one patient's id have in common.

    >>> patient_key("clinic-12.0") == patient_key("clinic-0012"), patient_key("ward-12") == patient_key("clinic-12")
    (True, False)
    """
    dataset, _, name = patient_id.partition("-")      # of data sets with patients no name has a hyphen
    return f"{dataset}-{cells.spelling_key(name)}"


def copies(candidates: pd.DataFrame, labels: Sequence[str], others: pd.DataFrame) -> dict[int, Fault]:
    """Every source file whose samples another one has. The one with the most labels stays, then the first by name.

    Args:
        candidates: `source_file`, `recording_id` and the columns `labels`.
        labels: label columns.
        others: `recording_id`, `dataset`, `source_file` of the recordings of other data sets.

    Returns:
        Row of `candidates` -> fault.
    """
    order = candidates.assign(known=candidates[list(labels)].notna().sum(axis=1))
    order = order.sort_values(["known", "source_file"], ascending=[False, True])
    first = {recording_id: f"{source_file} of the data set {dataset}" for recording_id, dataset, source_file
             in zip(others["recording_id"], others["dataset"], others["source_file"], strict=True)}
    faults: dict[int, Fault] = {}
    for row, recording_id, source_file in zip(order.index, order["recording_id"], order["source_file"], strict=True):
        if recording_id in first:
            faults[int(row)] = Fault("duplicate", f"the same samples as {first[recording_id]}")
        first.setdefault(recording_id, source_file)
    return faults


def groups(candidates: pd.DataFrame, pairs: pd.DataFrame, same_person: Iterable[Iterable[str]]) -> list[str]:
    """The group of each candidate [n], after groups with the same audio or of one person are joined.

    A joined group has the smallest of its names, so that it does not depend on the order of arrival.

    Args:
        candidates: `group` (before joining) and `recording_id`.
        pairs: `recording_id_a`, `recording_id_b`, `correlation`.
        same_person: sets of group names that are one.
    """
    names, edges = list(candidates["group"]), [(a, b) for a, b, _ in _row_pairs(candidates, pairs)]
    for same in same_person:
        ordered = sorted(same)
        edges += [(len(names) + k, len(names) + k + 1) for k in range(len(ordered) - 1)]
        names += ordered
    merged = near_duplicates.merge_groups(names, pd.DataFrame(edges, columns=["i", "j"], dtype="int64"))
    return merged[: len(candidates)]


def _row_pairs(candidates: pd.DataFrame, pairs: pd.DataFrame) -> list[tuple[int, int, float | None]]:
    """Pairs of rows with the same samples (correlation None) or near-duplicates, in a fixed order."""
    rows: dict[str, list[int]] = {}
    for row, recording_id in enumerate(candidates["recording_id"]):
        rows.setdefault(recording_id, []).append(row)
    found: list[tuple[int, int, float | None]] = [
        (a, b, None) for same in rows.values() for a, b in combinations(same, 2)
    ]
    columns = zip(pairs["recording_id_a"], pairs["recording_id_b"], pairs["correlation"], strict=True)
    found += [(a, b, abs(r)) for x, y, r in columns for a in rows.get(x, ()) for b in rows.get(y, ())]
    return found
