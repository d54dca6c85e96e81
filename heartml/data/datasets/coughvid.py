"""CoughVID: coughs that people recorded in a browser, each with what they said of themselves.

`<uuid>.webm` or `<uuid>.ogg`, with a row in `metadata_compiled.csv`, or with `<uuid>.json` beside it. WebM needs
ffmpeg; without it ingest refuses the file and says so. Which recordings are of one person is not known, so each is a
group of its own. `cough_detected` is the publisher's probability that there is a cough at all. Below 0.8, the limit
that the publisher names, the recording's quality is poor. What doctors said of some recordings is not read: they
disagree.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heartml.audio.containers import SUFFIXES
from heartml.core import tasks
from heartml.core.schema import PUBLISHER_QUALITY, label_column
from heartml.core.system import cells, untrusted
from heartml.core.system.cells import CellError
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums, side_files

NAME = "coughvid"
TITLE = "The COUGHVID crowdsourcing dataset"
CITATION = (
    "Orlandic L., Teijeiro T., Atienza D. The COUGHVID crowdsourcing dataset, a corpus for the study of large-scale "
    "cough analysis algorithms. Scientific Data 8:156 (2021), doi:10.1038/s41597-021-00937-4"
)
LICENCE = "CC-BY-4.0"
PUBLISHER = "https://zenodo.org/records/4048312"
REMOTES: tuple[Remote, ...] = ()     # one archive
TASKS = ("covid", "sex")
LABELS: Mapping[str, tuple[str, ...]] = {name: tasks.TASKS[name].classes for name in TASKS}

_TABLE = "metadata_compiled.csv"
_COLUMNS = ("uuid", "cough_detected", "age", "gender", "status")
_STATUSES = {"covid-19": "COVID-19", "healthy": "Healthy", "symptomatic": None}
_LEAST_COUGH = 0.8
_SOURCE = "browser"


def read(folder: Path) -> Layout:
    """Read the recordings in `folder` and below it, each with its row or its JSON file.

    Raises:
        LayoutError: there is neither the table nor a JSON file beside a recording.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    table = next(iter(sorted(folder.rglob(_TABLE))), None)
    if table is None and not any(untrusted.is_file(path.with_suffix(".json")) for path in files):
        raise LayoutError(f"{folder}: no {_TABLE} and no JSON file beside a recording. Name the folder that holds "
                          "them.")
    rows = source.table(table, _COLUMNS, ("uuid", "status")) if table is not None else []
    said: dict[str, list[Mapping[str, Any]]] = {}
    for line in rows:
        said.setdefault(line["uuid"], []).append(line)
    recordings = [row for path in files if (row := _recording(source, path, said)) is not None]
    return source.layout(recordings, [], LABELS)


def _recording(
    source: PublisherFolder, path: Path, said: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative = source.relative(path)
    lines = said.get(path.stem) or [side_files.json_object(source, path.with_suffix(".json"), None)]
    about = lines[0]
    if any(line[key] != about[key] for line in lines[1:] for key in _COLUMNS):
        source.refuse(relative, None, "contradiction", f"{_TABLE} has {len(lines)} lines for it, and they differ")
        return None
    if not about:
        source.refuse(relative, None, "missing_row", "it has neither a row in the table nor a JSON file of its name")
        return None

    def cell(key: str) -> str:
        return str(about[key]) if key in about else ""

    try:
        age_group, sex = cells.age_group(cell("age")), cells.sex(cell("gender"))
        quality = _quality(cell("cough_detected"))
    except (CellError, ValueError) as error:
        source.refuse(relative, None, "unknown_value", f"what is said of it: {error}")
        return None
    status = cells.present(cell("status"))
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "group": f"{NAME}-{path.stem}",
        "source": _SOURCE,
        "location": "cough",
        "age_group": age_group,
        "sex": sex,
        PUBLISHER_QUALITY: quality,
        label_column("covid"): status and _STATUSES.get(status.casefold(), status),
        label_column("sex"): sex if sex in LABELS["sex"] else None,
    }


def _quality(cough_detected: str) -> str | None:
    """`good` or `poor`; `None` where nothing is said."""
    found = cells.present(cough_detected)
    return None if found is None else "good" if float(found) >= _LEAST_COUGH else "poor"
