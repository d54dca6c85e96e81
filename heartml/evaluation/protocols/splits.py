"""Published splits of CirCor's patients: a table of patient ids and parts in, folds of the cohort's recordings out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from heartml.core import schema
from heartml.core.config import Params
from heartml.data.splitting import group_split
from heartml.data.splitting.published import PARTS
from heartml.evaluation.protocols.cohort import Cohort, ProtocolError

PREFIX = "circor-"


@dataclass(frozen=True)
class Split:
    """One published split, with those of its patients that the cohort has.

    Attributes:
        folds: `schema.FOLDS` with parts as `heartml.evaluation.protocols.fits` numbers them, sorted by recording.
        twins: patients of the test part whose child has another patient id among the development patients.
        unknown: number of patients of the file that the cohort lacks.
        patients: number of patients in each published part.
        validation: patients of the published validation part.
    """

    name: str
    folds: pd.DataFrame
    twins: frozenset[str]
    unknown: int
    patients: Mapping[str, int]
    validation: frozenset[str] = frozenset()


def read_split(path: Path, published: "pd.Series[str]", cohort: Cohort, params: Params, seed: int) -> Split:
    """Put the cohort's patients into the parts of a split; draw inner folds of the development patients by child.

    Raises:
        ProtocolError: no patient of the cohort is in the development or in the test part.
    """
    ids = {str(i) if str(i).startswith(PREFIX) else f"{PREFIX}{i}": part for i, part in published.items()}
    table = cohort.recordings.assign(label=cohort.recordings[schema.label_column("murmur")], source="circor",
                                     unit_id=cohort.recordings["patient_id"])
    table = table[table["patient_id"].isin(list(ids)) & table["label"].notna()]
    part = table["patient_id"].map(ids)
    develops, tests = table[part != "test"], table[part == "test"]
    inner = params.protocol.inner_folds
    drawn = group_split.draw(group_split.group_table(develops), dict.fromkeys(map(str, range(inner)), 1 / inner), seed)
    if not len(tests) or set(drawn.values()) != set(map(str, range(inner))):
        counts = f"{tests['patient_id'].nunique()} test and {develops['patient_id'].nunique()} other"
        raise ProtocolError(f"{path}: {counts} patients of it are in this folder; at least 1 and {inner} groups are "
                            "needed. Is it the split of these patients?")
    folds = pd.concat([develops.assign(part=develops["group_id"].map(drawn)), tests.assign(part=str(inner))])
    twins = tests.loc[tests["group_id"].isin(develops["group_id"]), "patient_id"]
    ordered = schema.conform(folds[list(schema.FOLDS)].sort_values("recording_id"), schema.FOLDS, "folds")
    patients = {name: int(table.loc[part == name, "patient_id"].nunique()) for name in PARTS}
    not_here = len(ids.keys() - set(cohort.recordings["patient_id"]))
    validation = frozenset(table.loc[part == "validation", "patient_id"])
    return Split(path.name, ordered, frozenset(twins), not_here, patients, validation)
