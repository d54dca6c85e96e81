"""Every data version that this project has known: the `data.dvc` of git's history, of runs, and of the folder now.

Out: hashes with where each stands, oldest first, and the tables of a version by hash through DVC.
"""

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from heartml.lineage import capture
from heartml.lineage.capture import DATA_DVC, LineageError
from heartml.lineage.dvc_objects import Objects

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Commit:
    """A commit in which `data.dvc` changed; `when` as ISO 8601."""

    commit: str
    when: str


@dataclass(frozen=True)
class DataVersion:
    """One content hash of `data/`: the commits that brought it, the runs that used it, whether it lies here now."""

    md5: str
    commits: tuple[Commit, ...]
    runs: tuple[str, ...]
    current: bool


def versions(runs: Mapping[str, str]) -> list[DataVersion]:
    """All that are known, oldest commit first, then those that no commit names.

    Args:
        runs: run id -> hash of its data version.
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
    """Each commit that changed `data.dvc`, on any branch, oldest first, with the file's text."""
    log = _git("log", "--all", "--full-history", "--reverse", "--format=%H %cI", "--", str(DATA_DVC)).decode()
    commits = [Commit(*line.split()) for line in log.splitlines()]
    asked = "".join(f"{commit.commit}:{DATA_DVC}\n" for commit in commits).encode()
    answer = _git("cat-file", "--batch", say=asked) if commits else b""
    for commit in commits:
        head, _, answer = answer.partition(b"\n")
        if head.endswith(b"missing"):      # the commit that took the file away
            continue
        size = int(head.split()[-1])
        yield commit, answer[:size].decode("utf-8", errors="replace")
        answer = answer[size + 1:]


def _git(*command: str, say: bytes = b"") -> bytes:
    """What git prints; nothing outside a repository, or where there is no git."""
    try:
        done = subprocess.run(["git", *command], input=say, capture_output=True, check=False)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


@dataclass(frozen=True, eq=False)
class VersionTables:
    """Two tables of one data version (schema.RECORDINGS, schema.QUARANTINE)."""

    recordings: "pd.DataFrame"
    quarantine: "pd.DataFrame"


def tables(objects: Objects, md5: str) -> VersionTables:
    """The tables of a data version, whatever lies in `data/` now.

    Raises:
        Gone: DVC has them nowhere.
    """
    listing: Any = objects.listing(md5)
    return VersionTables(objects.table(listing, "recordings.parquet"), objects.table(listing, "quarantine.parquet"))


