"""The family of data sets: one file a member, which reads the layout of its publisher.

In: a folder as the publisher distributes it. Out: a `Layout` of tables. A member is a module: first constants
(citation, licence, addresses, labels, tasks), then `read(folder) -> Layout`. A new member is one file and one line in
`DATASETS`. Nothing here decodes audio; `heartml ingest` does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import pandas as pd

from heartml.core import paths
from heartml.core.schema import PUBLISHER_QUALITY, QUARANTINE, label_column
from heartml.core.system import cells, family, hashing, tables, untrusted
from heartml.core.system.errors import HeartMLError
from heartml.core.system.tables import Row
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
    "location",         # AV PV TV MV Phc; a place on the chest, or the kind of a cough or breath; null where unknown
    "age_group",
    "sex",
    PUBLISHER_QUALITY,  # `good` or `poor`, null where the publisher does not say
)
ANNOTATION_COLUMNS = ("source_file", "start_s", "end_s", "state")


class LayoutError(HeartMLError):
    """The folder does not have the layout of the data set's publisher; the message says what is missing."""


@dataclass(frozen=True)
class Layout:
    """What the tables and names of a publisher's folder say, before any sample is read.

    Attributes:
        recordings: one row a source file: `FILE_COLUMNS`, and `label_<name>` columns (null: unlabelled).
        annotations: `ANNOTATION_COLUMNS`: heart states or breaths where the publisher gives them, times in s.
        refused: rows for the quarantine (`schema.QUARANTINE`), for files that never become a recording.
        same_person: sets of patient ids that the publisher says are one person.
        stated: `source_file`, `patient_id` and `label_<name>` of refused rows that say something of a patient all the
            same: a typing error in one column must not hide that two rows contradict each other in another.
    """

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    refused: pd.DataFrame
    same_person: tuple[frozenset[str], ...]
    stated: pd.DataFrame


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
    "icbhi",
    "sprsound",
    "kauh",
    "coswara",
    "coughvid",
    "hls-cmds",
    "simulated-lungs",
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


def cautions(names: Iterable[str]) -> list[str]:
    """What whoever reads a score must know of these data sets, a sentence each: `CAUTION` of the members that have one.

    >>> cautions(["circor", "hls-cmds"])[0][:45]
    'Recordings of hls-cmds are of a manikin, whic'
    """
    return [words for name in names if name in DATASETS and (words := getattr(DATASETS[name](), "CAUTION", ""))]


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
        stated: see `Layout.stated`; an adapter adds them.
    """

    root: Path
    dataset: str
    sums: Mapping[str, str] = field(default_factory=dict)
    refused: list[dict[str, str | None]] = field(default_factory=list)
    stated: list[dict[str, str | None]] = field(default_factory=list)

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
        than the publisher lists, cannot be read, is not UTF-8, or is a link that leads out of the folder.
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
                return untrusted.read_text(path).replace("\r\n", "\n")
        except (DocumentError, OSError) as error:
            fault = "unreadable", str(error)
        self.refuse(self.relative(path), patient_id, *fault)
        return ""

    def table(
        self, path: Path, wanted: Sequence[str], needed: Sequence[str] = (), names: Sequence[str] | None = None,
        check: Callable[[Sequence[str]], None] | None = None,
    ) -> list[Row]:
        """The rows of a CSV that must be there, whatever the checksums say. A row with too many cells is refused.

        Args:
            wanted: names of columns, which are found whatever their case and spacing; `row[name]` is empty where there
                is no such column.
            needed: those of them without which the table is of no use.
            names: of the columns, where the file has no header line.
            check: gets the names of all columns, and raises an error of its own where they do not do.

        Raises:
            LayoutError: it leads out of the folder, cannot be read as a table, is not UTF-8, lacks a column, or has no
                row.
        """
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise LayoutError(f"{path}: a link that leads out of the folder: put the file itself there")
        try:
            columns, found = tables.read(path, wanted, names)
            tables.refuse_missing(columns, needed)
            if check:
                check(columns)
            rows = tables.refuse_empty(list(found))
        except DocumentError as error:
            raise LayoutError(f"{path}: {error}") from None
        for row in rows:
            if row.too_long:
                detail = "more cells than the table has columns: is a comma not quoted?"
                self.refuse_line(path, row.line, "malformed", detail)
        return [row for row in rows if not row.too_long]

    def side_table(self, path: Path, wanted: Sequence[str], names: Sequence[str] | None = None) -> list[Row]:
        """`table` for a CSV that the folder may lack: without rows where it is missing or the file is refused.

        It is refused where it is not the one that the publisher's checksums list, or leads out of the folder.

        Raises:
            LayoutError: it cannot be read as a table, or is not UTF-8.
        """
        if not untrusted.is_file(path):
            return []
        if not path.resolve().is_relative_to(self.root.resolve()):
            self.refuse(self.relative(path), None, "outside", "a link that leads out of the folder")
            return []
        if self.altered(path):
            self.refuse(self.relative(path), None, "checksum", "not the file that the publisher's checksums list")
            return []
        return self.table(path, wanted, (), names)

    def refuse_line(self, path: Path, line: int, reason: str, detail: str) -> None:
        """Refuse a row of a table that belongs to no file; the row is named by the table and its line."""
        self.refuse(f"{self.relative(path)}, line {line}", None, reason, detail)

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
        named = [row for row in recordings if self._can_be_named(str(row["source_file"]))]
        rows = self.with_one_spelling(named, "patient_id")
        table = pd.DataFrame(rows, columns=[*FILE_COLUMNS, *map(label_column, labels)])
        typed = table.astype({c: "Int64" if c == "samples" else "string" for c in table})
        stated = ["source_file", "patient_id", *map(label_column, labels)]
        return Layout(
            typed.sort_values("source_file", ignore_index=True),
            pd.DataFrame(list(annotations), columns=list(ANNOTATION_COLUMNS)),
            pd.DataFrame(self.refused, columns=list(QUARANTINE)),
            tuple(sorted(set(same_person), key=sorted)),
            pd.DataFrame(self.stated, columns=stated).astype("string"),
        )

    def with_one_spelling(self, rows: Sequence[Mapping[str, object]], column: str) -> list[Mapping[str, object]]:
        """The rows whose id is written in one way only; those that may be one person in two spellings are refused.

        Rows that were refused before count as well: a typing error in one of them must not hide the other spelling.
        """
        prefix = f"{self.dataset}-"
        ids = [str(row.get(column) or "").removeprefix(prefix) for row in rows]
        before = [(str(row[column]).removeprefix(prefix), str(row["source_file"])) for row in self.refused
                  if row.get(column)]
        others = cells.other_spellings(filter(None, [*ids, *(name for name, _ in before)]))
        where = dict(reversed(before))
        where |= {name: str(row["source_file"]) for row, name in zip(reversed(rows), reversed(ids), strict=True)}
        for row, name in zip(rows, ids, strict=True):
            if name in others:
                detail = cells.spelling_fault(name, {other: where[other] for other in others[name]})
                patient = row.get("patient_id")
                self.refuse(str(row["source_file"]), None if patient is None else str(patient), "ambiguous_id", detail)
        return [row for row, name in zip(rows, ids, strict=True) if name not in others]

    def _can_be_named(self, file: str) -> bool:
        """Whether a table can hold the name; one that is no UTF-8 is refused."""
        if _storable(file) == file:
            return True
        self.refuse(file, None, "unreadable", "its name is not UTF-8: rename it")
        return False


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


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
