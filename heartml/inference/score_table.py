"""The table that scoring hands out: one row for every file that went in, in their order; the same work, the same bytes.

| column | type | what |
| --- | --- | --- |
| path | string | the file, as the folder or the table names it |
| recording_id | string | SHA-256 of its decoded samples; null where they cannot be read |
| patient_id, location | string | as far as the table or the file's name says |
| seconds, sample_rate_hz | float64, int64 | null where the samples cannot be read |
| unit_id | string | what the answer is about: the patient, or the recording |
| unit_recordings | int64 | different recordings that the answer rests on |
| decision, leaning | string | a class or `refer`; the class even there. Of the unit: the same in all its rows |
| confidence | float64 | calibrated probability of `leaning` |
| c_<class>, p_<class> | float64 | calibrated; what the decision rule looked at. Of the unit |
| r_<class> | float64 | what this recording alone says |
| heart_rate_per_min | float64 | of this recording, where the model tells heart states |
| description | string | of a murmur, where one is found |
| warnings | string | about this recording's signal |
| fault, fault_detail | string | why this file was not scored: one word, then a sentence; null where it was |
| model, version | string | registered name and version; the folder and null outside the registry |
| model_sha256 | string | of everything that an answer depends on but the recordings: models and encoders |
| answer_key | string | SHA-256 over the unit's recordings: with model_sha256 it names the answer |

A row with a fault has no answer, also where its unit has one from other recordings. The file's metadata says
`heartml`: the format, model, task, unit and classes as JSON. No clock and no machine: those stand in `NAME.run.json`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.system.files import replacing
from heartml.inference.predict import NOTICE, ScoredRecording
from heartml.inference.prediction_cache import Said

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
Row = dict[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What the table says of the model, see the head of this module."""

    task: str
    unit: str
    classes: tuple[str, ...]
    model: str
    version: str | None
    model_sha256: str


def rows(unit_id: str, heard: Sequence[ScoredRecording], key: str, said: Said | None, murmur: str,
         facts: ModelFacts) -> list[Row]:
    """One row for each file of a unit [n]; `said` is `None` where none of them is usable, `murmur` is in words."""
    return [_row(unit_id, one, key, None if one.fault else said, murmur, facts) for one in heard]


def _row(unit_id: str, heard: ScoredRecording, key: str, said: Said | None, murmur: str, facts: ModelFacts) -> Row:
    item, fault = heard.item, heard.fault
    read = {"recording_id": heard.recording_id, "seconds": heard.seconds, "sample_rate_hz": heard.sample_rate_hz}
    row: Row = {
        "path": _text(item.path), "patient_id": _text(item.patient_id), "location": _text(item.location),
        **(read if heard.recording_id else {}), "unit_id": _text(unit_id),
        "warnings": "; ".join(heard.warnings), "model": facts.model, "version": facts.version,
        "model_sha256": facts.model_sha256,
    }
    if fault:
        return {**row, "fault": fault.reason, "fault_detail": _text(fault.detail)}
    return {**row, **_answer(said, heard.recording_id), "description": murmur, "answer_key": key} if said else row


def _answer(said: Said, recording_id: str) -> Row:
    alone = said["recordings"][recording_id]
    kinds = {"c": said["calibrated"], "p": said["probabilities"], "r": alone["probabilities"]}
    numbers = {f"{kind}_{name}": value for kind, of in kinds.items() for name, value in of.items()}
    own = {name: said[name] for name in ("decision", "leaning", "confidence")}
    return {**own, **numbers, "unit_recordings": len(said["recordings"]),
            "heart_rate_per_min": alone["heart_rate_per_min"]}


def _text(value: object) -> str | None:
    """UTF-8, whatever bytes a file's name is made of."""
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()


def schema(facts: ModelFacts) -> "pa.Schema":
    """Columns, types and metadata of the table."""
    import pyarrow as pa

    texts = {name: pa.string() for name in ("path", "recording_id", "patient_id", "location")}
    sizes = {"seconds": pa.float64(), "sample_rate_hz": pa.int64(), "unit_id": pa.string(),
             "unit_recordings": pa.int64(), "decision": pa.string(), "leaning": pa.string(),
             "confidence": pa.float64()}
    numbers = {f"{kind}_{name}": pa.float64() for kind in "cpr" for name in facts.classes}
    last = ("description", "warnings", "fault", "fault_detail", "model", "version", "model_sha256", "answer_key")
    columns = {**texts, **sizes, **numbers, "heart_rate_per_min": pa.float64(), **dict.fromkeys(last, pa.string())}
    about = json.dumps({"format": FORMAT, "notice": NOTICE, **asdict(facts)}, sort_keys=True)
    return pa.schema(list(columns.items()), metadata={"heartml": about})


@contextmanager
def writing(to: Path, facts: ModelFacts) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Yield what adds a block's rows to the table, which is in its place when all went well; a block is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape = schema(facts)
    with replacing(to) as temporary, pq.ParquetWriter(temporary, shape, compression="zstd") as writer:
        yield lambda some: writer.write_table(pa.Table.from_pylist(
            [{name: row.get(name) for name in shape.names} for row in some], schema=shape))
