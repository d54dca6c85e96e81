"""The family of data sets: one file a member, which reads its publisher's own layout as it really is.

A member is a module: constants first (citation, licence, addresses, labels, tasks), then `read(folder) -> Layout`.
A new member is one file and one line in `DATASETS`. Nothing here decodes audio; `heartml ingest` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import pandas as pd

from heartml.errors import HeartMLError
from heartml.schema import QUARANTINE

FILE_COLUMNS = (
    "source_file",      # key: path in the publisher's layout, with slashes, relative to the folder
    "file_sha256",      # the publisher's checksum of the whole file, null where none is given
    "pcm_sha256",       # the publisher's checksum of the little-endian samples, null where none is given
    "samples",          # number of samples that the publisher states, null where unknown
    "patient_id",       # `<data set>-<publisher's id>`, null where persons are unknown
    "group",            # what never crosses folds, before known twins are merged: the patient, or the day
    "source",           # part with its own sensor or campaign: set_a, CC2015
    "location",         # AV PV TV MV Phc, null where unknown
    "age_group",
    "sex",
)
ANNOTATION_COLUMNS = ("source_file", "start_s", "end_s", "state")


class LayoutError(HeartMLError):
    """The folder as a whole is not what the data set's publisher distributes; the message says what is missing."""


@dataclass(frozen=True)
class Layout:
    """What a publisher's folder says, before any sample is read.

    Attributes:
        recordings: one row a source file: `FILE_COLUMNS`, and `label_<name>` columns with null where unlabelled.
        annotations: `ANNOTATION_COLUMNS`: heart states where the publisher gives them.
        refused: rows for the quarantine (`schema.QUARANTINE`), for files that never become a recording.
        known_same: sets of patient ids that the publisher says are one person.
    """

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    refused: pd.DataFrame
    known_same: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class Remote:
    """Where a data set can be downloaded, file by file.

    Attributes:
        address: what the relative names of `listing` are appended to; ends with a slash.
        listing: file of `<sha256> <relative name>` lines at that address, in the publisher's own layout.
        also: files that the data set needs and that a listing may leave out.
    """

    address: str
    listing: str
    also: tuple[str, ...] = ()


class Dataset(Protocol):
    """What every module of this family offers."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - a module's constant
    @property
    def TITLE(self) -> str: ...  # noqa: N802
    @property
    def CITATION(self) -> str: ...  # noqa: N802
    @property
    def LICENCE(self) -> str: ...  # noqa: N802
    @property
    def PUBLISHER(self) -> str: ...  # noqa: N802
    @property
    def REMOTES(self) -> tuple[Remote, ...]: ...  # noqa: N802
    @property
    def TASKS(self) -> tuple[str, ...]: ...  # noqa: N802
    @property
    def LABELS(self) -> Mapping[str, tuple[str, ...]]: ...  # noqa: N802

    def read(self, folder: Path) -> Layout:
        """Read the publisher's layout in `folder`.

        Raises:
            LayoutError: the folder is not this data set.
        """
        ...


def _simulated() -> Dataset:
    from heartml.datasets import simulated

    return simulated


def _circor() -> Dataset:
    from heartml.datasets import circor

    return circor


def _pascal() -> Dataset:
    from heartml.datasets import pascal

    return pascal


DATASETS: dict[str, Callable[[], Dataset]] = {"simulated": _simulated, "circor": _circor, "pascal": _pascal}


def load(name: str) -> Dataset:
    """The data set `name`.

    Raises:
        LayoutError: there is no such data set; the message lists those there are.
    """
    if name not in DATASETS:
        raise LayoutError(f"no data set {name!r}: there are {', '.join(DATASETS)}")
    return DATASETS[name]()


def refuse(dataset: str, source_file: str, patient_id: str | None, reason: str, detail: str) -> dict[str, str | None]:
    """One row of the quarantine table."""
    return dict(zip(QUARANTINE, (dataset, source_file, patient_id, reason, detail), strict=True))


def leads_out(name: str) -> bool:
    """Whether a relative name taken from a publisher's table would leave the folder that it is relative to."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def outside(folder: Path, path: Path) -> bool:
    """Whether `path` (also through a link) lies outside `folder`."""
    return not path.resolve().is_relative_to(folder.resolve())


def checksums(path: Path) -> dict[str, str]:
    """Read a `<sha256> <name>` file, LF or CRLF; empty where the publisher gives none."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return {name.strip().lstrip("*"): digest.lower() for digest, name in pairs}
