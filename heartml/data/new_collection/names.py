"""The name of a new data set beside those in `data/`: a name that another folder has already is not taken by itself.

In: a `Survey`, and the recordings table in `data/`, where there is one. A folder is the one of a data set where most
files that both have under one path are the same, byte for byte. A few files are read to tell.
"""

import re
from collections.abc import Iterator, Mapping

from heartml.audio.entry_checks import source_sha256
from heartml.core import paths
from heartml.data.datasets import DATASETS
from heartml.data.new_collection.guesses import dataset_name
from heartml.data.new_collection.survey import Survey

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_LONGEST = 40
_COMPARED = 10     # files


def is_name(name: str) -> bool:
    """Whether a data set can have this name."""
    return NAME.fullmatch(name) is not None and name not in DATASETS


def free(survey: Survey) -> str:
    """The folder's name, with its parent's in front or a number behind where another folder's data set has it."""
    for name in _candidates(survey):
        if not of_another_folder(name, survey):
            return name
    raise AssertionError("there is always another number")


def _candidates(survey: Survey) -> Iterator[str]:
    folder = survey.folder.resolve()
    name = dataset_name(folder.name)[:_LONGEST]
    yield name
    yield dataset_name(f"{folder.parent.name}_{folder.name}")[:_LONGEST]
    number = 2
    while True:
        yield f"{name[: _LONGEST - 8]}_{number}"
        number += 1


def of_another_folder(name: str, survey: Survey) -> bool:
    """Whether `data/` has a data set of this name whose files are not those of the folder."""
    known = _files_of(name)
    shared = [sound for sound in survey.sounds if sound in known][:_COMPARED]
    same = sum(source_sha256(survey.folder / sound) == known[sound] for sound in shared)
    return bool(known) and 2 * same <= len(shared)


def _files_of(name: str) -> Mapping[str, str]:
    """Source file -> SHA-256 of a data set in `data/`; nothing where there is none, or no data that can be read."""
    if not paths.RECORDINGS.is_file():
        return {}
    from pyarrow import parquet

    try:
        table = parquet.read_table(paths.RECORDINGS, columns=["source_file", "source_sha256"],
                                   filters=[("dataset", "==", name)])
    except (OSError, ValueError):      # `heartml ingest` names what is wrong with the data
        return {}
    return dict(zip(table["source_file"].to_pylist(), table["source_sha256"].to_pylist(), strict=True))
