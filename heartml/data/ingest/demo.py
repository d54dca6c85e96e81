"""The demo corpus in a user's data: it leaves when the first real collection comes.

A fresh clone has the demo corpus in `data/`, so that everything can be tried. Beside a real collection it would stand
in the tables, in the warnings of validation and in the list of tasks. The corpus is known by its content: simulated
recordings that a user has ingested stay.
"""

from collections.abc import Iterable
from pathlib import Path

import yaml

from heartml.data.ingest.version import POINTER, DatasetTables

NAME = "simulated"
VERSION = "c828debe544fa41420623d5ad168c976.dir"     # what the committed `data.dvc` names


def is_alone(pointer: Path = POINTER) -> bool:
    """Whether `data/` is the demo corpus and nothing else."""
    if not pointer.is_file():
        return False
    return bool(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"] == VERSION)


def is_used(tasks: Iterable[str]) -> bool:
    """Whether one of these tasks, by their full names, is about simulated recordings.

    >>> is_used(["pascal-sounds"]), is_used(["circor+simulated-murmur"])
    (False, True)
    """
    return any(NAME in task.rpartition("-")[0].split("+") for task in tasks)


def without(tables: DatasetTables) -> DatasetTables:
    """The tables of the demo corpus without it: no rows, except consent that was withdrawn."""
    return DatasetTables(tables.recordings.head(0), tables.annotations.head(0), tables.quarantine.head(0),
                         tables.withdrawn)
