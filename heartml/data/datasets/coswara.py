"""Coswara: coughs and breaths of people who recorded themselves with a telephone or a computer during the pandemic.

`combined_data.csv` has one row a person. `<date>/<id>/<kind>.wav` are the recordings, in the folder itself or in
`Extracted_data/`. Read are the kinds `cough-heavy`, `cough-shallow`, `breathing-deep` and `breathing-shallow`; vowels
and counting are voices, and are not. The kind stands in the place of the auscultation location.
`annotations/<kind>_labels.csv`, where it is there, says how good a recording is: 0 is poor.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from heartml.core import tasks
from heartml.core.schema import PUBLISHER_QUALITY, label_column
from heartml.core.system import cells
from heartml.core.system.cells import CellError
from heartml.core.system.tables import Row
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums

NAME = "coswara"
TITLE = "Coswara: breathing, cough and speech sounds for the diagnosis of COVID-19"
CITATION = (
    "Bhattacharya D. et al. Coswara: A respiratory sounds and symptoms dataset for remote screening of SARS-CoV-2 "
    "infection. Scientific Data 10:397 (2023), doi:10.1038/s41597-023-02266-0"
)
LICENCE = "CC-BY-4.0"
PUBLISHER = "https://github.com/iiscleap/Coswara-Data"
REMOTES: tuple[Remote, ...] = ()     # archives in pieces, without checksums
TASKS = ("smoker", "sex", "covid")
LABELS: Mapping[str, tuple[str, ...]] = {name: tasks.TASKS[name].classes for name in TASKS}
KINDS = ("breathing-deep", "breathing-shallow", "cough-heavy", "cough-shallow")

_TABLE = "combined_data.csv"
_SOURCE = "own device"
_SMOKERS = {"y": "Smoker", "true": "Smoker", "n": "Non-smoker", "false": "Non-smoker"}
_POSITIVE = ("positive_mild", "positive_moderate", "positive_asymp")
_NEITHER = ("recovered_full", "no_resp_illness_exposed", "resp_illness_not_identified", "under_validation")
_PERSON_COLUMNS = ("id", "a", "g", "smoker", "covid_status")
_QUALITIES = {"0": "poor", "1": "good", "2": "good"}


def read(folder: Path) -> Layout:
    """Read the table and the recordings in `folder`.

    Raises:
        LayoutError: there is no table, or it has no known columns.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    if not (folder / _TABLE).is_file():
        raise LayoutError(f"{folder}: no {_TABLE}. Name the folder that holds it and the recordings by date.")
    persons: dict[str, list[Row]] = {}
    for line in source.table(folder / _TABLE, _PERSON_COLUMNS, ("id", "g", "smoker")):
        persons.setdefault(line["id"], []).append(line)
    qualities = {name: quality for kind in KINDS for name, quality in _qualities(source, kind).items()}
    files = [path for path in sorted(folder.rglob("*")) if path.stem in KINDS and path.suffix]
    recordings = [row for path in files if (row := _recording(source, path, persons, qualities)) is not None]
    return source.layout(recordings, [], LABELS)


def covid(status: str) -> str | None:
    """The label of a status: any positive one, or healthy; recovered, exposed and unknown people have none.

    A status that is not known is given back, so that the recording is refused with it.

    >>> covid("positive_mild"), covid("Healthy "), covid("recovered_full"), covid("positiv")
    ('COVID-19', 'Healthy', None, 'positiv')
    """
    word = cells.trimmed(status).casefold()
    if word in _POSITIVE or word == "healthy":
        return "Healthy" if word == "healthy" else "COVID-19"
    return None if word in _NEITHER or cells.is_missing(word) else status


def _qualities(source: PublisherFolder, kind: str) -> dict[str, str | None]:
    """`<id>_<kind>` -> `good` or `poor`, as the publisher's listeners say."""
    rows = source.side_table(source.root / "annotations" / f"{kind}_labels.csv", ("FILENAME", "QUALITY"))
    return {row["FILENAME"]: _QUALITIES.get(row["QUALITY"]) for row in rows}


def _recording(
    source: PublisherFolder, path: Path, persons: Mapping[str, Sequence[Row]], qualities: Mapping[str, str | None]
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative, name = source.relative(path), path.parent.name
    if name not in persons:
        source.refuse(relative, None, "missing_row", f"{_TABLE} has no row for {name}")
        return None
    (person, *more), patient_id = persons[name], f"{NAME}-{name}"
    other = next((row for row in more if any(row[key] != person[key] for key in _PERSON_COLUMNS)), None)
    if other is not None:
        detail = f"{_TABLE}: lines {person.line} and {other.line} say different things of {name}"
        source.refuse(relative, patient_id, "contradiction", detail)
        return None
    try:
        age_group, sex = cells.age_group(person["a"]), None if person["g"] == "pnts" else cells.sex(person["g"])
    except CellError as error:
        source.refuse(relative, patient_id, "unknown_value", f"{_TABLE}, line {person.line}: {error}")
        return None
    smokes = cells.present(person["smoker"])
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "patient_id": patient_id,
        "group": patient_id,
        "source": _SOURCE,
        "location": path.stem,
        "age_group": age_group,
        "sex": sex,
        PUBLISHER_QUALITY: qualities.get(f"{name}_{path.stem}"),
        label_column("smoker"): smokes and _SMOKERS.get(smokes.casefold(), smokes),
        label_column("sex"): sex if sex in LABELS["sex"] else None,
        label_column("covid"): covid(person["covid_status"]),
    }
