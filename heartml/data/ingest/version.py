"""Versions of the canonical data set in `data/`: read, build the next one, put it in place, record it in `data.dvc`.

In: `DatasetTables` and FLAC files. Out: the folder `data/` as a DVC version. Audio files are named by their content and
never change, so a new version links those that it shares with the former one. A process that is killed at any moment
leaves a complete version, the former or the new one; the next ingest finishes the work.
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
from heartml.core.tasks import Task, declared
from heartml.data.ingest import declared_tasks
from heartml.pipeline import dvc_log_errors, verify_outputs

if TYPE_CHECKING:
    from dvc.repo import Repo

POINTER = Path("data.dvc")
BUILD = paths.STATE / "ingest"              # wiped at the start of every ingest
PUBLISHING = paths.STATE / "publishing"     # exists from before a version is put in place until DVC has recorded it
RESTORING = paths.STATE / "restoring"       # exists while DVC restores a version
_TABLES: Mapping[str, tuple[Path, Mapping[str, str]]] = {
    "recordings": (paths.RECORDINGS, schema.RECORDINGS),
    "annotations": (paths.ANNOTATIONS, schema.ANNOTATIONS),
    "quarantine": (paths.QUARANTINE, schema.QUARANTINE),
    "withdrawn": (paths.WITHDRAWN, schema.WITHDRAWN),
}
_OPTIONAL = ("withdrawn",)      # written where it has rows
TASKS_DIGEST = "heartml.declared_tasks"     # in the metadata of the table of recordings


class VersionError(HeartMLError):
    """The data set cannot be read or recorded; the message says what to do."""


@dataclass(frozen=True)
class DatasetTables:
    """The tables of one version, with the columns of `schema`. `withdrawn` is written only where it has rows."""

    recordings: pd.DataFrame
    annotations: pd.DataFrame
    quarantine: pd.DataFrame
    withdrawn: pd.DataFrame


def read() -> DatasetTables:
    """The tables of the version in `data/`; empty tables where there is none."""
    found = {}
    for name, (path, columns) in _TABLES.items():
        table = pd.read_parquet(path) if path.exists() else pd.DataFrame(columns=list(columns))
        found[name] = schema.conform(table, columns, str(path))
    return DatasetTables(**found)


def restore() -> None:
    """Make sure that `data/` is the version that `data.dvc` names, since the next one is built on it.

    Raises:
        VersionError: `data/` was changed by hand or has an older layout, or DVC cannot fetch the version.
    """
    shutil.rmtree(BUILD, ignore_errors=True)
    _restore_named_version()
    older = [folder for folder in (paths.DATA / "audio").glob("??") if folder.is_dir()]
    if older:
        raise VersionError(f"{older[0]}: an older layout, audio lies in {paths.audio('0').parent}/ and the like now. "
                           f"Move {paths.DATA} and {POINTER} away and ingest anew: ids will be the same")


def _restore_named_version() -> None:
    if PUBLISHING.exists() and paths.DATA.exists():
        _drop_half_written_pointer()
        return      # killed after a version was put in place and before it was recorded: it is complete
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
                f"{paths.DATA}/ is not the version that {POINTER} names. `{paths.RESTORE_DATA}` puts that version "
                f"back, `dvc add {paths.DATA}` records what lies there; then ingest again."
            )


def _pull(repo: "Repo") -> None:
    """Restore the whole version. Objects that are damaged in DVC's cache are fetched anew from the remote."""
    for last in (False, True):
        with dvc_log_errors.raise_logged_errors():
            repo.pull(targets=[str(POINTER)], force=True)
        outs = [out for stage in repo.stage.collect(str(POINTER)) for out in stage.outs]
        if all(map(verify_outputs.is_intact, outs)):
            return
        damaged = verify_outputs.move_damaged(outs)
        if last:
            raise VersionError(f"what DVC has of {POINTER} is damaged, in its cache and in the remote ({len(damaged)} "
                               f"objects are put aside in {verify_outputs.DAMAGED}). Move {POINTER} away and ingest "
                               "everything anew, or check out an older one with git")


def _link(repo: "Repo") -> None:
    """Make the files links into DVC's cache, or copies of its objects, where its `cache.type` says so."""
    if repo.config["cache"].get("type"):
        with dvc_log_errors.raise_logged_errors():
            repo.checkout(targets=[str(POINTER)], relink=True, force=True)


def _mark(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.touch()


def _drop_half_written_pointer() -> None:
    """Remove `data.dvc` where a kill has left half of it, which DVC cannot read. The version itself is in `data/`."""
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


def build(
    tables: DatasetTables, flac_folder: Path, mappings: Mapping[str, str],
    own_tasks: Mapping[str, Mapping[str, Task]] | None = None,
) -> Path:
    """Write a whole version into a folder beside `data/`. Audio is linked from the former version where it has it.

    Args:
        tables: of the new version.
        flac_folder: has the other audio as `<x>/<recording_id>.flac`; it is moved.
        mappings: data set -> text of its mapping file; mapping files of other data sets stay.
        own_tasks: data set -> the tasks that its mapping file declares; those of other data sets stay.

    Returns:
        The folder.
    """
    folder = BUILD / "data"
    former_tasks = {dataset: declared(dataset) for dataset in declared_tasks.stems(paths.DECLARED_TASKS)}
    declarations = declared_tasks.next_declarations(former_tasks, own_tasks or {}, tables.recordings)
    # Stages depend on the table of recordings: with the digest in it they notice that a task means something else.
    beside = {TASKS_DIGEST: digest} if (digest := declared_tasks.digest(declarations)) else None
    for name, (path, columns) in _TABLES.items():
        table = schema.conform(getattr(tables, name), columns, str(path))
        if name in _OPTIONAL and table.empty:
            continue
        files.write_parquet(folder / path.relative_to(paths.DATA), table, beside if name == "recordings" else None)
    declared_tasks.write(folder, declarations)
    former_mappings = {path.stem: path.read_text(encoding="utf-8") for path in paths.COLLECTIONS.glob("*.yaml")}
    for dataset, text in (former_mappings | dict(mappings)).items():
        with files.replacing(folder / paths.collection(dataset).relative_to(paths.DATA)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for recording_id in tables.recordings["recording_id"]:
        former = paths.audio(recording_id)
        target = folder / former.relative_to(paths.DATA)
        target.parent.mkdir(parents=True, exist_ok=True)
        if former.exists():
            _link_or_copy(former, target)
        else:
            paths.audio(recording_id, flac_folder).rename(target)
    return folder


def _link_or_copy(former: Path, target: Path) -> None:
    """A hard link to a file that is never written again; a copy where the file system has no links."""
    try:
        os.link(former, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(former, target)


def publish(folder: Path) -> bool:
    """Put a built version in place and let DVC record it.

    Args:
        folder: of `build`.

    Returns:
        Whether `data.dvc` names another version than before.

    Raises:
        VersionError: DVC could not record it.
    """
    former = POINTER.read_bytes() if POINTER.exists() else b""
    if not is_in_place(folder):
        _mark(PUBLISHING)
        files.put_in_place(folder, paths.DATA)
    if PUBLISHING.exists() or not POINTER.exists():
        _record()
    shutil.rmtree(BUILD, ignore_errors=True)
    return POINTER.read_bytes() != former


def _record() -> None:
    """Let DVC record `data/`, then link its files to DVC's cache where `cache.type` says so.

    By default DVC removes each file while it records it, and restores it from its cache. A kill in between would leave
    a gap that `data.dvc` does not tell of. So recording and linking are two steps.
    """
    with _repo() as repo:
        repo.scm_context.quiet = True      # no hint about git on standard output, where --json goes
        with dvc_log_errors.raise_logged_errors():
            repo.add(str(paths.DATA), relink=False)
        _mark(RESTORING)
        PUBLISHING.unlink(missing_ok=True)
        _link(repo)
    RESTORING.unlink()


def is_in_place(first: Path) -> bool:
    """Whether `data/` has the tables and mapping files of a built version.

    The tables name the audio by its content, and declared tasks by their digest.
    """
    second = paths.DATA
    mappings = (first / paths.COLLECTIONS.relative_to(paths.DATA)).glob("*.yaml")
    tables = (path.relative_to(paths.DATA) for path, _ in _TABLES.values())
    compared = [*tables, *(mapping.relative_to(first) for mapping in mappings)]
    return all(_digest(first / name) == _digest(second / name) for name in compared)


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
        # DVC may not say what was wrong with the machine
        machine = machine_errors.explain(error) or machine_errors.explain_unwritable(POINTER.parent)
        raise VersionError(machine or f"DVC: {error}. Run heartml in the root of the repository.") from None
