"""What one model has answered already, on disk: every recording and every unit once, by content.

An SQLite file for each model. `recordings`: recording_id -> what was measured of it, and its embedding (float32, the
mean and deviation of every band of the model's frames). `units`: key -> what the model said of the recordings that the
key names, and when. A block's answers arrive in one transaction: after a kill they are there, or are made again.
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
_AT_ONCE = 500     # names in one question
Said = dict[str, Any]


class PredictionCacheError(HeartMLError):
    """The answers on disk cannot be read or added to; the message names the file and the way out."""


def key_of(recording_ids: Sequence[str]) -> str:
    """The name of a unit: the content of its recordings, in whatever order and under whatever names."""
    return sha256(canonical_json(sorted(recording_ids)).encode())


@dataclass
class NewPredictions:
    """What a block adds.

    Attributes:
        units: key -> (what was said, when).
        recordings: recording_id -> (what was measured, embedding as float32 bytes).
    """

    units: dict[str, tuple[Said, str]] = field(default_factory=dict)
    recordings: dict[str, tuple[Mapping[str, Any], bytes]] = field(default_factory=dict)


class PredictionCache:
    """Read and add; nothing is ever changed."""

    def __init__(self, file: Path, connection: sqlite3.Connection) -> None:
        self._file, self._connection = file, connection

    @classmethod
    @contextlib.contextmanager
    def open(cls, file: Path) -> Iterator[Self]:
        """The ledger in `file`, made where it is new.

        Raises:
            LedgerError: the file is broken; also from what is done with it.
            sqlite3.DatabaseError: the disk is full, or another trouble that `heartml.core.system.machine_errors` knows.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
                connection.executescript(_TABLES)
                yield cls(file, connection)
        except sqlite3.DatabaseError as error:
            if machine_errors.in_words(error):
                raise
            raise PredictionCacheError(f"{file}: {error}. Remove it: everything is scored again") from None

    def said(self, key: str) -> Said | None:
        """What was said of a unit, or `None`."""
        row = self._connection.execute("SELECT said FROM units WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def add(self, news: NewPredictions) -> None:
        """All of it, or nothing."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO recordings VALUES (?, ?, ?)",
                [(i, canonical_json(measured), embedding) for i, (measured, embedding) in news.recordings.items()])
            self._connection.executemany(
                "INSERT OR IGNORE INTO units VALUES (?, ?, ?)",
                [(key, canonical_json(said), when) for key, (said, when) in news.units.items()])

    def measured(self, recording_ids: Sequence[str]) -> dict[str, tuple[Mapping[str, Any], bytes]]:
        """recording_id -> (what was measured, embedding), of those that are known."""
        found: dict[str, tuple[Mapping[str, Any], bytes]] = {}
        for start in range(0, len(recording_ids), _AT_ONCE):
            some = recording_ids[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(f"SELECT * FROM recordings WHERE recording_id IN ({marks})", some)
            found |= {i: (json.loads(measured), embedding) for i, measured, embedding in rows}
        return found

    def counts(self) -> dict[str, int]:
        """How many recordings and units are known."""
        count = {table: f"SELECT count(*) FROM {table}" for table in ("recordings", "units")}
        return {table: int(self._connection.execute(query).fetchone()[0]) for table, query in count.items()}
