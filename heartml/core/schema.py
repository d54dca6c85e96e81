"""The tables that go through the pipeline: their columns, what these mean, and a check.

`recordings` has one row for each recording. Its key is `recording_id`, the SHA-256 of the decoded little-endian samples
(int16, or int32 where the source has more than 16 bits). Labels are in columns `label_<name>`; a missing label is null.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from heartml.core.system.errors import HeartMLError

if TYPE_CHECKING:
    import pandas as pd  # predicting does not need pandas

LABEL_PREFIX = "label_"

RECORDINGS: Mapping[str, str] = {
    "recording_id": "string",     # key: SHA-256 of the decoded samples
    "dataset": "string",          # circor, pascal, simulated
    "source": "string",           # part of the data set with its own sensor or campaign: set_a, CC2015
    "patient_id": "string",       # data set and the publisher's id: circor-9979
    "group_id": "string",         # the child or person (or day, where persons are unknown); never crosses folds
    "location": "string",         # auscultation location AV PV TV MV Phc, null where unknown
    "sample_rate_hz": "int64",
    "seconds": "float64",
    "age_group": "string",
    "sex": "string",
    "source_file": "string",      # path in the publisher's layout
    "source_sha256": "string",    # of that file
    "licence": "string",
}
SESSION = "session_id"            # one occasion of recording (a day of one clinic), where the publisher tells it
PUBLISHER_QUALITY = "publisher_quality"      # `good` or `poor`: what the publisher's experts say of the signal
# Of `RECORDINGS`, left out where no data set has them:
OPTIONAL: Mapping[str, str] = {SESSION: "string", PUBLISHER_QUALITY: "string"}
ANNOTATIONS: Mapping[str, str] = {
    "recording_id": "string",
    "start_s": "float64",
    "end_s": "float64",
    "state": "string",            # S1 systole S2 diastole, or unannotated; of lungs one of `BREATH_EVENTS`
}
QUARANTINE: Mapping[str, str] = {
    "dataset": "string",
    "source_file": "string",      # key
    "patient_id": "string",
    "reason": "string",           # one word for each rule: silent, truncated, duplicate, contradiction ...
    "detail": "string",           # what was seen, in a sentence
}
WITHDRAWN: Mapping[str, str] = {
    "source_file": "string",      # key, with the data set
    "dataset": "string",
    "patient_id": "string",       # recordings of this patient are refused, in whatever file they come
    "recording_id": "string",     # refused under any patient_id; null for a file that was in quarantine
    "reason": "string",
}
FOLDS: Mapping[str, str] = {
    "recording_id": "string",
    "unit_id": "string",          # what is predicted: the recording or the patient
    "group_id": "string",
    "label": "string",            # of the unit
    "part": "string",             # "0" ... "k-1" for a fold, or "test"
}
TEST = "test"                     # the part in `FOLDS` that is held out
LOCATIONS = ("AV", "PV", "TV", "MV", "Phc")
STATES = ("S1", "systole", "S2", "diastole")
UNANNOTATED = "unannotated"
# What a breath, or an event within it, sounds like, where a publisher of lung sounds marks it.
BREATH_EVENTS = ("normal", "crackle", "wheeze", "crackle and wheeze", "fine crackle", "coarse crackle", "rhonchi",
                 "stridor")


class SchemaError(HeartMLError):
    """A table does not have the columns that its reader relies on."""


def conform(table: "pd.DataFrame", columns: Mapping[str, str], name: str) -> "pd.DataFrame":
    """A new table with the schema's columns first, each of its type, then the columns of `OPTIONAL` and `label_*`.

    Args:
        columns: column -> type; the first column is the key.
        name: of the table, for messages.

    Raises:
        SchemaError: a column is missing or does not convert, or a key is null.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise SchemaError(f"{name}: missing columns {', '.join(missing)}")
    more = [*(c for c in OPTIONAL if c in table), *sorted(c for c in map(str, table) if c.startswith(LABEL_PREFIX))]
    try:
        typed = table[[*columns, *more]].astype({**columns, **dict.fromkeys(more, "string")})
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{name}: {error}") from None
    key = next(iter(columns))
    if typed[key].isna().any():
        raise SchemaError(f"{name}: {key} is null in row {int(typed[key].isna().to_numpy().argmax())}")
    return typed.reset_index(drop=True)


def of_heart(annotations: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of `ANNOTATIONS` that are about a heart: those that are no event of a breath."""
    return annotations[~annotations["state"].isin(BREATH_EVENTS)]


def label_column(name: str) -> str:
    """The column of the label `name`.

    >>> label_column("murmur")
    'label_murmur'
    """
    return LABEL_PREFIX + name
