"""The canonical data set as a version: read, built aside, put in place in one step, recorded by DVC in `data.dvc`.

Audio files are named by their content and never change: a new version links those that it shares with the former one.
A process killed at any moment leaves the former version or the new one, whole; the next ingest finishes.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from heartml.core import paths, schema
from heartml.core.system import files, hashing, machine_errors
from heartml.core.system.errors import HeartMLError
from heartml.pipeline import dvc_log_errors, verify_outputs

if TYPE_CHECKING:
    from dvc.repo import Repo

POINTER = Path("data.dvc")
BUILD = paths.STATE / "ingest"              # wiped at the start of every ingest
PUBLISHING = paths.STATE / "publishing"     # is there from before a version is put in place until DVC has recorded it
RESTORING = paths.STATE / "restoring"       # is there while DVC brings a version back
_TABLES: Mapping[str, tuple[Path, Mapping[str, str]]] = {
    "recordings": (paths.RECORDINGS, schema.RECORDINGS),
    "annotations": (paths.ANNOTATIONS, schema.ANNOTATIONS),
    "quarantine": (paths.QUARANTINE, schema.QUARANTINE),
    "withdrawn": (paths.WITHDRAWN, schema.WITHDRAWN),
}
_OPTIONAL = ("withdrawn",)      # written where it has rows


class VersionError(HeartMLError):
    """The data set cannot be read or recorded; the message says what to do."""


@dataclass(frozen=True)
class DatasetTables:
    """The tables of one version; `withdrawn` is no file of it while nobody has withdrawn consent."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    quarantine: pd.DataFrame
    withdrawn: pd.DataFrame


def read() -> DatasetTables:
    """The version that lies in `data/`; empty tables where there is none."""
    found = {}
    for name, (path, columns) in _TABLES.items():
        table = pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=list(columns))
        found[name] = schema.conform(table, columns, str(path))
    return DatasetTables(**found)


def restore() -> None:
    """Make sure that `data/` is the version that `data.dvc` names: a new one is built on it.

    Raises:
        VersionError: `data/` was changed by hand, has another layout, or its version can be fetched from nowhere.
    """
    shutil.rmtree(BUILD, ignore_errors=True)
    _bring_back()
    strange = [folder for folder in (paths.DATA / "audio").glob("??") if folder.is_dir()]
    if strange:
        raise VersionError(f"{strange[0]}: an older layout, audio lies in {paths.audio('0').parent}/ and the like now. "
                           f"Move {paths.DATA} and {POINTER} away and ingest anew: ids will be the same")


def _bring_back() -> None:
    if PUBLISHING.exists() and paths.DATA.exists():
        _drop_half_written_pointer()
        return      # killed between putting in place and recording: what lies there is whole
    if not POINTER.exists():
        return
    with _repo() as repo:
        if not paths.DATA.exists() or RESTORING.exists():
            _mark(RESTORING)
            _pull(repo)
            _link(repo)
            RESTORING.unlink()
        elif repo.status(targets=[str(POINTER)]):
            raise VersionError(
                f"{paths.DATA}/ is not the version that {POINTER} names. `dvc checkout {POINTER}` puts that version "
                f"back, `dvc add {paths.DATA}` records what lies there; then ingest again."
            )


def _pull(repo: "Repo") -> None:
    """Bring the version back, whole: what is damaged in DVC's cache is fetched anew from the remote."""
    for last in (False, True):
        with dvc_log_errors.raised():
            repo.pull(targets=[str(POINTER)], force=True)
        outs = [out for stage in repo.stage.collect(str(POINTER)) for out in stage.outs]
        if all(map(verify_outputs.is_whole, outs)):
            return
        damaged = verify_outputs.put_aside(outs)
        if last:
            raise VersionError(f"what DVC has of {POINTER} is damaged, in its cache and in the remote ({len(damaged)} "
                               f"objects are put aside in {verify_outputs.ASIDE}). Move {POINTER} away and ingest "
                               "everything anew, or check out an older one with git")


def _link(repo: "Repo") -> None:
    """Make the files links into DVC's cache, or copies of what lies there, where its `cache.type` says so."""
    if repo.config["cache"].get("type"):
        with dvc_log_errors.raised():
            repo.checkout(targets=[str(POINTER)], relink=True, force=True)


def _mark(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.touch()


def _drop_half_written_pointer() -> None:
    """DVC writes `data.dvc` in place; cut short by a kill it would stop DVC. The version itself is in `data/`."""
    import yaml
    from dvc.schema import COMPILED_SINGLE_STAGE_SCHEMA
    from voluptuous import Invalid

    try:
        content = COMPILED_SINGLE_STAGE_SCHEMA(yaml.safe_load(POINTER.read_text(encoding="utf-8")))
        whole = [out["path"] for out in content["outs"]] == [str(paths.DATA)]
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError, Invalid, KeyError, TypeError):
        whole = False
    if not whole:
        POINTER.unlink(missing_ok=True)


def build(tables: DatasetTables, flac_folder: Path, mappings: Mapping[str, str]) -> Path:
    """Lay out a whole version aside: `tables`, audio linked from the former version or taken from `flac_folder`.

    Args:
        flac_folder: holds `<x>/<recording_id>.flac`.
        mappings: data set -> its mapping file; those of other data sets are kept.

    Returns:
        The folder.
    """
    folder = BUILD / "data"
    for name, (path, columns) in _TABLES.items():
        table = schema.conform(getattr(tables, name), columns, str(path))
        if name in _OPTIONAL and table.empty:
            continue
        files.write_parquet(folder / path.relative_to(paths.DATA), table)
    former_mappings = {path.stem: path.read_text(encoding="utf-8") for path in paths.COLLECTIONS.glob("*.yaml")}
    for dataset, text in (former_mappings | dict(mappings)).items():
        with files.replacing(folder / paths.collection(dataset).relative_to(paths.DATA)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for recording_id in tables.recordings["recording_id"]:
        former = paths.audio(recording_id)
        target = folder / former.relative_to(paths.DATA)
        target.parent.mkdir(parents=True, exist_ok=True)
        if former.exists():
            _second_name(former, target)
        else:
            paths.audio(recording_id, flac_folder).rename(target)
    return folder


def _second_name(former: Path, target: Path) -> None:
    """A second name for a file that is never written again; a copy where the file system has no links."""
    try:
        os.link(former, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(former, target)


def publish(folder: Path) -> bool:
    """Put a built version in place and have DVC record it; whether `data.dvc` names another version now."""
    former = POINTER.read_bytes() if POINTER.exists() else b""
    if not _same(folder, paths.DATA):
        _mark(PUBLISHING)
        files.put_in_place(folder, paths.DATA)
    if PUBLISHING.exists() or not POINTER.exists():
        _record()
    shutil.rmtree(BUILD, ignore_errors=True)
    return POINTER.read_bytes() != former


def _record() -> None:
    """Have DVC record what lies in `data/`, and link it to its cache where its `cache.type` says so.

    Left to itself DVC takes each file away while it records, and puts it back from its cache: a kill in between would
    leave a hole that `data.dvc` does not know of yet.
    """
    with _repo() as repo:
        repo.scm_context.quiet = True      # no hint about git on standard output, where --json goes
        with dvc_log_errors.raised():
            repo.add(str(paths.DATA), relink=False)
        _mark(RESTORING)
        PUBLISHING.unlink(missing_ok=True)
        _link(repo)
    RESTORING.unlink()


def _same(first: Path, second: Path) -> bool:
    """Whether two versions have the same tables and mappings; audio is named by content, and named in the tables."""
    mappings = (first / paths.COLLECTIONS.relative_to(paths.DATA)).glob("*.yaml")
    told = [*(path.relative_to(paths.DATA) for path, _ in _TABLES.values()), *(m.relative_to(first) for m in mappings)]
    return all(_digest(first / t) == _digest(second / t) for t in told)


def _digest(path: Path) -> str | None:
    return hashing.sha256_file(path) if path.exists() else None


@contextlib.contextmanager
def _repo() -> "Iterator[Repo]":
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(".", _wait_for_lock=True) as repo:
            yield repo
    except DvcException as error:
        # DVC may have kept to itself what was wrong with the machine
        machine = machine_errors.in_words(error) or machine_errors.of_folder(POINTER.parent)
        raise VersionError(machine or f"DVC: {error}. Run heartml in the root of the repository.") from None
