"""The table that `heartml score` writes: one row for each file, in the order of the files.

The same files and the same model give the same bytes, as long as nothing becomes known about the model (`cautions`).

| column | type | what |
| --- | --- | --- |
| path | string | the file, as named by the folder or the table |
| recording_id | string | SHA-256 of its decoded samples; null where they cannot be read |
| patient_id, location | string | from the table or the file's name; null where unknown |
| seconds, sample_rate_hz | float64, int64 | null where the samples cannot be read |
| unit_id | string | what the prediction is about: the patient, or the recording |
| unit_recordings | int64 | number of different recordings behind the prediction |
| decision, leaning | string | a class or `refer`; the top class, also where it is `refer`. Of the unit |
| confidence | float64 | calibrated probability of the top class |
| c_<class>, p_<class> | float64 | probabilities of the unit: calibrated, and as the decision rule used them |
| r_<class> | float64 | probabilities from this recording alone |
| heart_rate_per_min | float64 | of this recording, where the model predicts heart states |
| description | string | of a murmur, where one is found |
| warnings | string | about this recording's signal |
| fault, fault_detail | string | why this file was not scored: one word, then a sentence; null where it was |
| model, version | string | registered name and version; the folder and null outside the registry |
| model_sha256 | string | of everything that a prediction depends on except the recordings: models and encoders |
| cautions | string | what to know about the model before its predictions are trusted; null where there is nothing |
| reasons | string | why the decision is left to a human; null where it is not |
| used_for | string | `trained` or `held out` where the model used this recording; null where it is new to it |
| answer_key | string | SHA-256 over the unit's recordings; together with model_sha256 it identifies the prediction |

A row with a fault has no prediction, even where its unit has one from other recordings. The file's metadata has a key
`heartml`: format, model, task, unit and classes as JSON. Time and machine are not in it but in `NAME.run.json`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.system.files import replacing
from heartml.inference.predict import NOTICE, ScoredRecording
from heartml.inference.prediction_cache import StoredPrediction
from heartml.inference.training_recordings import NOTHING_KNOWN, KnownRecordings

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
Row = dict[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What the table contains about the model; see the docstring of this module for the columns."""

    task: str
    unit: str
    classes: tuple[str, ...]
    model: str
    version: str | None
    model_sha256: str
    cautions: tuple[str, ...] = ()


def rows(unit_id: str, recordings: Sequence[ScoredRecording], key: str, prediction: StoredPrediction | None,
         murmur: str, facts: ModelFacts, used: KnownRecordings = NOTHING_KNOWN) -> list[Row]:
    """One row for each file of a unit.

    Args:
        recordings: the files `[n]`, with or without a fault.
        key: see `heartml.inference.prediction_cache.unit_key`.
        prediction: for the unit; `None` where none of its files is usable.
        murmur: the murmur in words, or nothing.
        used: recordings that the model was trained or tested on.
    """
    return [{**_row(unit_id, one, key, None if one.fault else prediction, murmur, facts),
             "used_for": used.use_of(one.recording_id)} for one in recordings]


def _row(unit_id: str, recording: ScoredRecording, key: str, prediction: StoredPrediction | None, murmur: str,
         facts: ModelFacts) -> Row:
    item, fault = recording.item, recording.fault
    read = {"recording_id": recording.recording_id, "seconds": recording.seconds,
            "sample_rate_hz": recording.sample_rate_hz}
    row: Row = {
        "path": _text(item.path), "patient_id": _text(item.patient_id), "location": _text(item.location),
        **(read if recording.recording_id else {}), "unit_id": _text(unit_id),
        "warnings": "; ".join(recording.warnings), "model": facts.model, "version": facts.version,
        "model_sha256": facts.model_sha256, "cautions": "; ".join(facts.cautions) or None,
    }
    if fault:
        return {**row, "fault": fault.reason, "fault_detail": _text(fault.detail)}
    if prediction is None:
        return row
    return {**row, **_prediction_columns(prediction, recording.recording_id), "description": murmur, "answer_key": key}


def _prediction_columns(prediction: StoredPrediction, recording_id: str) -> Row:
    alone = prediction["recordings"][recording_id]
    kinds = {"c": prediction["calibrated"], "p": prediction["probabilities"], "r": alone["probabilities"]}
    numbers = {f"{kind}_{name}": value for kind, of in kinds.items() for name, value in of.items()}
    own = {name: prediction[name] for name in ("decision", "leaning", "confidence")}
    own["reasons"] = "; ".join(prediction["reasons"]) or None
    return {**own, **numbers, "unit_recordings": len(prediction["recordings"]),
            "heart_rate_per_min": alone["heart_rate_per_min"]}


def _text(value: object) -> str | None:
    """`value` as valid UTF-8; undecodable bytes of a file's name are escaped."""
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def schema(facts: ModelFacts) -> "pa.Schema":
    """The columns, types and metadata of the table."""
    import pyarrow as pa

    texts = {name: pa.string() for name in ("path", "recording_id", "patient_id", "location")}
    sizes = {"seconds": pa.float64(), "sample_rate_hz": pa.int64(), "unit_id": pa.string(),
             "unit_recordings": pa.int64(), "decision": pa.string(), "leaning": pa.string(),
             "confidence": pa.float64()}
    numbers = {f"{kind}_{name}": pa.float64() for kind in "cpr" for name in facts.classes}
    last = ("description", "warnings", "fault", "fault_detail", "model", "version", "model_sha256", "cautions",
            "answer_key", "reasons", "used_for")
    columns = {**texts, **sizes, **numbers, "heart_rate_per_min": pa.float64(), **dict.fromkeys(last, pa.string())}
    known = {key: value for key, value in asdict(facts).items() if key != "cautions"}     # these have a column
    about = json.dumps({"format": FORMAT, "notice": NOTICE, **known}, sort_keys=True)
    return pa.schema(list(columns.items()), metadata={"heartml": about})


@contextmanager
def writing(to: Path, facts: ModelFacts) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Yield a function that appends rows to the table `to`.

    The table appears when the block ends without an error; an existing one is replaced then.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape = schema(facts)
    with replacing(to) as temporary, pq.ParquetWriter(temporary, shape, compression="zstd") as writer:
        yield lambda some: writer.write_table(pa.Table.from_pylist(
            [{name: row.get(name) for name in shape.names} for row in some], schema=shape))
