"""The family of data sets: one file a member, which reads the layout of its publisher.

In: a folder as the publisher distributes it. Out: a `Layout` of tables. A member is a module: first constants
(citation, licence, addresses, labels, tasks), then `read(folder) -> Layout`. A new member is one file and one line in
`DATASETS`. Nothing here decodes audio; `heartml ingest` does.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import pandas as pd

from heartml.core import paths
from heartml.core.schema import QUARANTINE, label_column
from heartml.core.system import family, hashing, untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.untrusted import DocumentError

FILE_COLUMNS = (
    "source_file",      # key: path in the publisher's layout, with slashes, relative to the folder
    "file_sha256",      # the publisher's checksum of the whole file, null where none is given
    "pcm_sha256",       # the publisher's checksum of the little-endian samples, null where none is given
    "samples",          # number of samples that the publisher states, null where unknown
    "patient_id",       # `<data set>-<publisher's id>`, null where persons are unknown
    "group",            # what must be in one part, before ids of one person are joined: the patient, or the day
    "session",          # what was recorded on one occasion: a day of one clinic; null where the publisher does not tell
    "source",           # part with its own sensor or campaign: set_a, CC2015
    "location",         # AV PV TV MV Phc, null where unknown
    "age_group",
    "sex",
)
_BAND_YEARS = 10
ANNOTATION_COLUMNS = ("source_file", "start_s", "end_s", "state")


class LayoutError(HeartMLError):
    """The folder does not have the layout of the data set's publisher; the message says what is missing."""


@dataclass(frozen=True)
class Layout:
    """What the tables and names of a publisher's folder say, before any sample is read.

    Attributes:
        recordings: one row a source file: `FILE_COLUMNS`, and `label_<name>` columns (null: unlabelled).
        annotations: `ANNOTATION_COLUMNS`: heart states where the publisher gives them, times in s.
        refused: rows for the quarantine (`schema.QUARANTINE`), for files that never become a recording.
        same_person: sets of patient ids that the publisher says are one person.
    """

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    refused: pd.DataFrame
    same_person: tuple[frozenset[str], ...]


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
    """What every module of this family has."""

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


DATASETS: dict[str, Callable[[], Dataset]] = family.members(__name__, [
    "simulated",
    "circor",
    "pascal",
    "bmdhs",
    "physionet2016",
    "yaseen",
    "generic",
])


def load(name: str) -> Dataset:
    """The data set `name`: a member of the family, or a collection that was ingested as `generic`.

    Raises:
        LayoutError: there is no such data set; the message lists all.
    """
    if paths.collection(name).exists():
        from heartml.data.datasets import generic

        return generic.read_collection(paths.collection(name))
    if name not in DATASETS:
        raise LayoutError(f"no data set {name!r}: there are {', '.join(DATASETS)}")
    return DATASETS[name]()


def open_dataset(name: str, path: Path) -> tuple[Dataset, Path]:
    """The data set, and the folder of its files.

    Args:
        name: of a data set. `generic` stands for the collection that a mapping file describes.
        path: the folder in the publisher's layout; for `generic` the mapping file, or the folder of the only one.

    Raises:
        LayoutError: there is no such data set, no such folder, or a mapping file cannot be used.
    """
    if name == "generic" and path.exists():
        from heartml.data.datasets import generic

        return generic.open_collection(path)
    source = load(name)
    if not path.is_dir():
        raise LayoutError(f"{path}: no such folder. Name the one in which {source.TITLE} lies, or add --download.")
    return source, path


@dataclass
class PublisherFolder:
    """A publisher's folder while it is read.

    Attributes:
        root: the folder.
        dataset: name of the data set.
        sums: relative name -> SHA-256, as the publisher lists it.
        refused: rows for the quarantine so far (columns of `schema.QUARANTINE`).
    """

    root: Path
    dataset: str
    sums: Mapping[str, str] = field(default_factory=dict)
    refused: list[dict[str, str | None]] = field(default_factory=list)

    def refuse(self, source_file: str, patient_id: str | None, reason: str, detail: str) -> None:
        """Add one row for the quarantine. Bytes of a name that are no UTF-8 are escaped: no table can hold them."""
        words = (word if word is None else _storable(word) for word in (source_file, patient_id, reason, detail))
        row = (self.dataset, *words)
        self.refused.append(dict(zip(QUARANTINE, row, strict=True)))

    def relative(self, path: Path) -> str:
        """The name in the publisher's layout."""
        return path.relative_to(self.root).as_posix()

    def altered(self, path: Path) -> bool:
        """Whether the publisher lists another checksum for this file."""
        expected = self.sums.get(self.relative(path))
        return expected is not None and hashing.sha256_file(path) != expected

    def text(self, path: Path, patient_id: str | None) -> str:
        """The text of a side file, with LF line ends.

        It is empty where the file is missing. It is also empty, and the file is refused, where it has another checksum
        than the publisher lists, cannot be read, or is a link that leads out of the folder.
        """
        if not untrusted.is_file(path):
            return ""
        if not path.resolve().is_relative_to(self.root.resolve()):
            self.refuse(self.relative(path), patient_id, "outside", "a link that leads out of the folder")
            return ""
        try:
            if self.altered(path):
                fault = "checksum", "not the file that the publisher's checksums list"
            else:
                return untrusted.read_text(path, errors="replace").replace("\r\n", "\n")
        except (DocumentError, OSError) as error:
            fault = "unreadable", str(error)
        self.refuse(self.relative(path), patient_id, *fault)
        return ""

    def table(self, path: Path) -> list[dict[str, str]]:
        """The rows of a table that must be there, whatever the checksums say; see `rows`.

        Raises:
            LayoutError: it leads out of the folder or cannot be read.
        """
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise LayoutError(f"{path}: a link that leads out of the folder: put the file itself there")
        try:
            return self.rows(path, untrusted.read_text(path, errors="replace"))
        except DocumentError as error:
            raise LayoutError(f"{path}: {error}") from None

    def rows(self, path: Path, content: str, names: Sequence[str] | None = None) -> list[dict[str, str]]:
        """The rows of a CSV, with names and cells trimmed. A row with too many cells is refused.

        Args:
            path: of the file, for messages.
            content: its text.
            names: of the columns, where the file has no header line.

        Raises:
            LayoutError: it cannot be read as a table.
        """
        try:
            _, found = untrusted.parse_table(content, names=names)
            rows = list(found)
        except DocumentError as error:
            raise LayoutError(f"{path}: {error}") from None
        for row in rows:
            if row.too_long:
                where = f"{self.relative(path)}, line {row.line}"
                self.refuse(where, None, "malformed", "more cells than the table has columns: is a comma not quoted?")
        return [dict(row.cells) for row in rows if not row.too_long]

    def layout(
        self,
        recordings: Iterable[Mapping[str, object]],
        annotations: Iterable[Mapping[str, object]],
        labels: Iterable[str],
        same_person: Iterable[frozenset[str]] = (),
    ) -> Layout:
        """The tables of a `Layout`, typed, in the order of the source files' names.

        Args:
            recordings: rows with columns of `FILE_COLUMNS` and `label_<name>`.
            annotations: rows with `ANNOTATION_COLUMNS`.
            labels: names of the labels.
            same_person: sets of patient ids that the publisher says are one person.
        """
        rows = [row for row in recordings if self._can_be_named(str(row["source_file"]))]
        table = pd.DataFrame(rows, columns=[*FILE_COLUMNS, *map(label_column, labels)])
        typed = table.astype({c: "Int64" if c == "samples" else "string" for c in table})
        return Layout(
            typed.sort_values("source_file", ignore_index=True),
            pd.DataFrame(list(annotations), columns=list(ANNOTATION_COLUMNS)),
            pd.DataFrame(self.refused, columns=list(QUARANTINE)),
            tuple(sorted(set(same_person), key=sorted)),
        )

    def _can_be_named(self, file: str) -> bool:
        """Whether a table can hold the name; one that is no UTF-8 is refused."""
        if _storable(file) == file:
            return True
        self.refuse(file, None, "unreadable", "its name is not UTF-8: rename it")
        return False


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def whole_number(text: str) -> int | None:
    """A number of samples or milliseconds from up to 15 ASCII digits; `None` for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def age_band(age: str) -> str | None:
    """The age group of an age: years become a band of ten, the name of a group stays, an empty text is `None`.

    >>> age_band("23.5"), age_band("Child"), age_band("")
    ('20-29', 'Child', None)
    """
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]*)?", age):
        return age or None
    first = int(float(age)) // _BAND_YEARS * _BAND_YEARS
    return f"{first}-{first + _BAND_YEARS - 1}"


def leaves_folder(name: str) -> bool:
    """Whether a relative name from a publisher's table leads out of the folder that it is relative to.

    >>> leaves_folder("set_a/1.wav"), leaves_folder("../1.wav"), leaves_folder("C:\\\\..\\\\1.wav")
    (False, True, True)
    """
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


def checksums(path: Path) -> dict[str, str]:
    """Read a `<sha256> <name>` file, LF or CRLF; empty where the publisher gives none.

    Raises:
        LayoutError: it cannot be read.
    """
    if not untrusted.is_file(path):
        return {}
    try:
        lines = untrusted.read_text(path, errors="replace").splitlines()
    except DocumentError as error:
        raise LayoutError(f"{path}: {error}") from None
    pairs = (line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    return {name.strip().lstrip("*"): digest.lower() for digest, name in pairs}
