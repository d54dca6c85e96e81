"""The predictions that one model has made already, on disk: each recording and each unit once, by content.

One SQLite file for each model, with two tables. `recordings`: recording_id -> measurements of the signal and the
embedding (float32, mean and deviation of every band of the model's frames). `units`: key -> the prediction for the
recordings that the key stands for (column `said`), and when it was made. A block is added in one transaction, so after
a kill it is there completely or not at all.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from heartml.core.system import machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json
from heartml.core.system.hashing import sha256

_TABLES = """
    CREATE TABLE IF NOT EXISTS recordings (recording_id TEXT PRIMARY KEY, measured TEXT NOT NULL,
                                           embedding BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS units (key TEXT PRIMARY KEY, said TEXT NOT NULL, scored_at TEXT NOT NULL);
"""
_AT_ONCE = 500     # ids in one query
StoredPrediction = dict[str, Any]     # JSON: decision, leaning (the top class), confidence, probabilities, recordings


class PredictionCacheError(HeartMLError):
    """The cache cannot be read or written; the message names the file and the way out."""


def unit_key(recording_ids: Sequence[str]) -> str:
    """The key of a unit: SHA-256 over the ids of its recordings, whatever their order and the names of the files."""
    return sha256(canonical_json(sorted(recording_ids)).encode())


@dataclass
class NewPredictions:
    """What one block adds to the cache.

    Attributes:
        units: key -> (prediction, when it was made).
        recordings: recording_id -> (measurements, embedding as float32 bytes).
    """

    units: dict[str, tuple[StoredPrediction, str]] = field(default_factory=dict)
    recordings: dict[str, tuple[Mapping[str, Any], bytes]] = field(default_factory=dict)


class PredictionCache:
    """An open cache. Entries are read and added, never changed."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self._file, self._connection = file, connection

    @classmethod
    @contextlib.contextmanager
    def open(cls, file: Path) -> Iterator[Self]:
        """Open the cache in `file`; a new one is made.

        Raises:
            PredictionCacheError: the file is broken; also raised when the block finds this out.
            sqlite3.DatabaseError: the disk is full, or another error that `core.system.machine_errors` explains.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
                connection.executescript(_TABLES)
                yield cls(file, connection)
        except sqlite3.DatabaseError as error:
            if machine_errors.explain(error):
                raise
            raise PredictionCacheError(f"{file}: {error}. Remove it: everything is scored again") from None

    def prediction(self, key: str) -> StoredPrediction | None:
        """The prediction for a unit, or `None` where there is none yet."""
        row = self._connection.execute("SELECT said FROM units WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def add(self, new: NewPredictions) -> None:
        """Add all of it in one transaction."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO recordings VALUES (?, ?, ?)",
                [(i, canonical_json(measured), embedding) for i, (measured, embedding) in new.recordings.items()])
            self._connection.executemany(
                "INSERT OR IGNORE INTO units VALUES (?, ?, ?)",
                [(key, canonical_json(prediction), when) for key, (prediction, when) in new.units.items()])

    def measurements(self, recording_ids: Sequence[str]) -> dict[str, tuple[Mapping[str, Any], bytes]]:
        """recording_id -> (measurements, embedding as float32 bytes), of those recordings that are in the cache."""
        found: dict[str, tuple[Mapping[str, Any], bytes]] = {}
        for start in range(0, len(recording_ids), _AT_ONCE):
            some = recording_ids[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(f"SELECT * FROM recordings WHERE recording_id IN ({marks})", some)
            found |= {i: (json.loads(measured), embedding) for i, measured, embedding in rows}
        return found

    def counts(self) -> dict[str, int]:
        """Number of recordings and of units in the cache."""
        count = {table: f"SELECT count(*) FROM {table}" for table in ("recordings", "units")}
        return {table: int(self._connection.execute(query).fetchone()[0]) for table, query in count.items()}
