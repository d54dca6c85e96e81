"""What `data/` of this project knows of recordings that are predicted for: their source file and their label.

In: ids of recordings. Out: a `DataRecording` for each that `data/recordings.parquet` has.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from heartml.core import paths
from heartml.core.schema import label_column
from heartml.core.tasks import TaskError, resolve

_BATCH = 65_536      # rows in memory together


@dataclass(frozen=True)
class DataRecording:
    """A recording of `data/`: its file in the publisher's layout, its patient, and the label of its unit, if any."""

    source_file: str
    patient_id: str
    label: str | None


def read(recording_ids: Set[str], task: str) -> dict[str, DataRecording]:
    """Those of `recording_ids` that are in `data/`, with their labels for `task`; none where there is no `data/`."""
    if not recording_ids or not paths.RECORDINGS.is_file():
        return {}
    from pyarrow import parquet  # pandas takes half a second to import

    with parquet.ParquetFile(paths.RECORDINGS) as file:
        column = _label_column(task)
        labelled = [column] if column in file.schema_arrow.names else []
        found: dict[str, DataRecording] = {}
        for batch in file.iter_batches(_BATCH, columns=["recording_id", "source_file", "patient_id", *labelled]):
            rows = batch.to_pydict()
            labels = rows.get(column, [None] * batch.num_rows)
            for key, *values in zip(rows["recording_id"], rows["source_file"], rows["patient_id"], labels, strict=True):
                if key in recording_ids:
                    found[key] = DataRecording(*values)
    return found


def _label_column(task: str) -> str:
    try:
        return label_column(resolve(task).task.label)
    except TaskError:      # a model from elsewhere, whose task this project does not know
        return ""


def name_of(known: Mapping[str, DataRecording], recording_id: str) -> str | None:
    """The name of the source file, without its folder; `None` where `data/` does not know the recording."""
    one = known.get(recording_id)
    return one.source_file.rpartition("/")[2] if one else None
