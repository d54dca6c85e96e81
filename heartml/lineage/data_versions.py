"""Every data version of this project: those of git's history of `data.dvc`, of MLflow runs, and of the folder now.

In: the data versions of runs. Out: hashes, each with the commits and runs that name it, oldest first; and the tables of
a version, read by hash through DVC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from heartml.lineage import capture
from heartml.lineage.capture import DATA_DVC, LineageError
from heartml.lineage.dvc_objects import Objects
from heartml.pipeline import git

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Commit:
    """A commit in which `data.dvc` changed; `when` as ISO 8601."""

    commit: str
    when: str


@dataclass(frozen=True)
class DataVersion:
    """One content hash of `data/`: the commits that name it, the runs that used it, and whether `data/` is it now."""

    md5: str
    commits: tuple[Commit, ...]
    runs: tuple[str, ...]
    current: bool


def list_data_versions(runs: Mapping[str, str]) -> list[DataVersion]:
    """All data versions that are known: oldest commit first, then those that no commit names.

    Args:
        runs: run id -> hash of its data version.

    Raises:
        GitRefused: git cannot read the repository, so that its versions are not known.
    """
    commits: dict[str, list[Commit]] = {}
    for commit, text in _pointers():
        md5 = _md5(text)
        if md5:
            commits.setdefault(md5, []).append(commit)
    try:
        current = capture.data_hash()
    except LineageError:
        current = ""
    known = dict.fromkeys(md5 for md5 in (*commits, *runs.values(), current) if md5)
    return [DataVersion(md5, tuple(commits.get(md5, ())), tuple(r for r, of in runs.items() if of == md5),
                        md5 == current) for md5 in known]


def _md5(text: str) -> str:
    try:
        return str(yaml.safe_load(text)["outs"][0]["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError):
        return ""


def _pointers() -> Iterable[tuple[Commit, str]]:
    """Each commit that changed `data.dvc`, on any branch, oldest first, with the text of the file."""
    log = git.output("log", "--no-color", "--all", "--full-history", "--reverse", "--format=%H %cI", "--",
                     str(DATA_DVC)).decode()
    commits = [Commit(*line.split()) for line in log.splitlines()]
    names = "".join(f"{commit.commit}:{DATA_DVC}\n" for commit in commits).encode()
    output = git.output("cat-file", "--batch", stdin=names) if commits else b""
    for commit in commits:
        head, _, output = output.partition(b"\n")
        if head.endswith(b"missing"):      # this commit removed the file
            continue
        size = int(head.split()[-1])
        yield commit, output[:size].decode("utf-8", errors="replace")
        output = output[size + 1:]


def unseen() -> list[str]:
    """What of git's history cannot be seen here, in words; empty if all of it can."""
    if not git.is_shallow():
        return []
    return ["older commits are not here, nor the data versions that only they name, because this is a shallow clone: "
            "`git fetch --unshallow`"]


@dataclass(frozen=True, eq=False)
class VersionTables:
    """Two tables of one data version (schema.RECORDINGS, schema.QUARANTINE)."""

    recordings: "pd.DataFrame"
    quarantine: "pd.DataFrame"


def tables(objects: Objects, md5: str) -> VersionTables:
    """The tables of a data version, whichever version `data/` is now.

    Raises:
        ObjectNotFound: neither DVC's cache nor a remote has them.
    """
    listing: Any = objects.listing(md5)
    return VersionTables(objects.table(listing, "recordings.parquet"), objects.table(listing, "quarantine.parquet"))


