"""The chain behind a registered version: run, code, lock, stages, validation, folds, data, recordings, environment.

In: a registered version. Out: a `Chain`.

Everything is read from the registry, from the files that the run keeps, and from DVC's cache and remotes by hash. So
data and code of this folder may have changed since. `Chain.missing` lists in words what cannot be found, and what can
be done about it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from heartml.core import paths
from heartml.core.schema import FOLDS, RECORDINGS
from heartml.core.system.files import canonical_json, temporary_folder
from heartml.core.system.hashing import sha256
from heartml.lineage import capture
from heartml.lineage.dvc_objects import ObjectNotFound, Objects
from heartml.registry import champions, tracking, versions
from heartml.registry.champions import Entry
from heartml.registry.tracking import Client, Run
from heartml.registry.versions import Version

if TYPE_CHECKING:
    import pandas as pd

AUDIO_MD5 = "audio_md5"      # of the lossless file in the data version
_WAY_OUT = "`heartml retrain` registers a version that has it"


@dataclass(frozen=True)
class TrackedPath:
    """One file or folder that a stage reads or writes, as in `dvc.lock`. The `md5` of a folder ends with `.dir`."""

    path: str
    md5: str
    bytes: int | None
    files: int | None


@dataclass(frozen=True)
class StageRecord:
    """One entry of `dvc.lock`. `params`: file -> name -> value."""

    address: str
    command: str
    inputs: tuple[TrackedPath, ...]
    params: Mapping[str, Mapping[str, Any]]
    outputs: tuple[TrackedPath, ...]


@dataclass(frozen=True)
class Code:
    """The commit, and the difference to it.

    Attributes:
        difference: for `git apply`; `None` if there was none, or if it is lost.
        left_out: what is not in the difference because it is data or too large, in words.
    """

    commit: str | None
    dirty: bool
    diff_sha256: str | None
    difference: bytes | None
    left_out: tuple[str, ...] = ()

    @property
    def diff(self) -> str | None:
        """The difference as text, to be read; what is not UTF-8 is replaced."""
        return None if self.difference is None else self.difference.decode("utf-8", errors="replace")


@dataclass(frozen=True)
class Lock:
    """`dvc.lock` as the run keeps it. `sha256` is of its canonical JSON, which does not depend on the stages' order."""

    content: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True)
class Data:
    """The data version. `objects`: path below `data/` -> md5, empty if the listing is lost."""

    md5: str
    files: int | None
    bytes: int | None
    objects: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Chain:
    """Everything behind a version. What is missing is `None` or an empty table.

    Attributes:
        version: with tags, aliases and the gate's verdict.
        facts: `lineage.json`, the lineage that was captured when the version was registered.
        stages: those behind this model, each after the ones that it reads from.
        params: `params.yaml`.
        validation: `validation.json`.
        evaluation: `metrics.json` of the held-out part.
        gate: the gate's verdict with all its numbers.
        folds: schema.FOLDS, one row a recording of this task.
        recordings: schema.RECORDINGS and labels of every recording of the data version; `unit_id`, `label`, `part`
            (null if this task does not use the recording) and `audio_md5`.
        environment: Python, packages, hardware, hash of requirements.lock.
        requirements: requirements.lock.
        missing: what could not be found, and what can be done; empty if the chain is complete.
        retirement: the decision that took the version out of service; `None` if it was not retired.
        decision: the decision of a person that made it the champion; `None` where the gate decided.
    """

    version: Version
    run: Run | None
    facts: Mapping[str, Any]
    code: Code
    lock: Lock | None
    stages: tuple[StageRecord, ...]
    params: Mapping[str, Any] | None
    validation: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    gate: Mapping[str, Any] | None
    folds: "pd.DataFrame"
    data: Data | None
    recordings: "pd.DataFrame"
    environment: Mapping[str, Any]
    requirements: str | None
    missing: tuple[str, ...]
    retirement: Entry | None = None
    decision: Entry | None = None


class StoredFiles:
    """The files that a run keeps. A file that is not there or damaged is added to `missing`, in words."""

    def __init__(self, client: Client, run_id: str, folder: Path, missing: list[str]) -> None:
        self._client, self._run_id, self._folder = client, run_id, folder
        self.missing = missing
        self._names: dict[str | None, frozenset[str]] = {}

    def path(self, name: str, way_out: str = _WAY_OUT) -> Path | None:
        """A copy of one file; `None` if it is not there.

        Args:
            way_out: what can be done if it is not there.
        """
        folder = name.rpartition("/")[0] or None
        if folder not in self._names:
            self._names[folder] = tracking.list_files(self._client, self._run_id, folder)
        if name in self._names[folder]:
            return tracking.fetch(self._client, self._run_id, name, self._folder)
        self.missing.append(f"{name}: not among the files of run {self._run_id}; {way_out}")
        return None

    def text(self, name: str) -> str | None:
        """One file as text; `None` if it is not there."""
        path = self.path(name)
        return path.read_text(encoding="utf-8", errors="replace") if path else None

    def values(self, name: str) -> dict[str, Any] | None:
        """One JSON or YAML file that holds a mapping; `None` if it is missing or damaged."""
        text = self.text(name)
        if text is None:
            return None
        try:
            found = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
            return dict(found)
        except (ValueError, TypeError, yaml.YAMLError) as error:
            self._damaged(name, error)
            return None

    def table(self, name: str, columns: Mapping[str, str]) -> "pd.DataFrame":
        """One Parquet table with at least these columns; without rows if it is missing or damaged."""
        import pandas as pd

        path = self.path(name)
        if path:
            try:
                return pd.read_parquet(path).astype(dict(columns))
            except (ValueError, OSError, KeyError) as error:
                self._damaged(name, error)
        return pd.DataFrame(columns=list(columns)).astype(dict(columns))

    def _damaged(self, name: str, error: Exception) -> None:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.missing.append(f"{name}: kept by run {self._run_id}, but damaged ({words}); {_WAY_OUT}")


def locate(client: Client, words: str) -> Version:
    """The version that MODEL (its champion), MODEL@ALIAS or MODEL/VERSION means.

    Raises:
        RegistryError: there is no such version.
    """
    return versions.get(client, words)


def read(client: Client, version: Version, objects: Objects | None = None) -> Chain:
    """Read everything behind a version. What is missing is listed in the chain and raises no error."""
    missing: list[str] = []
    run = tracking.read_run(client, version.run_id)
    with temporary_folder() as folder:
        if run is None or run.deleted:
            gone = "deleted (`mlflow gc` has not come by yet: restore it in MLflow)" if run else "gone from the store"
            missing.append(f"run {version.run_id}: {gone}; a backup of the tracking store has it")
        files = StoredFiles(client, version.run_id, folder, missing) if run else None
        found = _read(version, run, files, missing, objects or Objects())
    history = champions.read(client, version.name)
    decided = champions.newest(history, version.number)
    by_person = decided if decided and decided.decision.kind in (champions.PERSON, champions.ROLLBACK) else None
    return replace(found, retirement=champions.retired(history, version.number), decision=by_person)


def _read(version: Version, run: Run | None, files: StoredFiles | None, missing: list[str], objects: Objects) -> Chain:
    files = files or _NoFiles(missing)
    facts = files.values("lineage.json") or {}
    missing += [words for words in facts.get("missing", []) if words not in missing]
    lock = files.values("dvc.lock")
    folds = files.table("folds.parquet", FOLDS)
    data = _data(files, facts, objects)
    stages = _stages(capture.stages_behind(lock, paths.ARTIFACTS / version.name)) if lock else ()
    if lock and not stages:
        missing.append(f"dvc.lock: no stage in it makes artifacts/{version.name}; {_WAY_OUT}")
    return Chain(
        version, run, facts, _code(files, facts), Lock(lock, sha256(canonical_json(lock).encode())) if lock else None,
        stages, files.values("params.yaml"), files.values("validation/validation.json"),
        files.values("evaluation/metrics.json"), files.values("gate.json"), folds, data,
        _recordings(data, folds, objects, missing), facts.get("environment", {}), files.text("requirements.lock"),
        tuple(missing),
    )


class _NoFiles(StoredFiles):
    """The files of a run that is gone. The caller has added that to `missing` once, so nothing more is added."""

    def __init__(self, missing: list[str]) -> None:
        self.missing = missing

    def path(self, name: str, way_out: str = _WAY_OUT) -> Path | None:
        return None


def _code(files: StoredFiles, facts: Mapping[str, Any]) -> Code:
    noted = facts.get("code", {})
    dirty = bool(noted.get("dirty"))
    stored = files.path("code.diff") if dirty else None
    return Code(noted.get("commit"), dirty, noted.get("diff_sha256"), stored.read_bytes() if stored else None,
                tuple(map(str, noted.get("left_out", ()))))


def _stages(entries: Mapping[str, Any]) -> tuple[StageRecord, ...]:
    """Entries of `dvc.lock`, each after those whose outputs it reads; by name if they read each other in a circle."""
    found = {address: StageRecord(
        address, str(entry.get("cmd", "")), _links(entry.get("deps", [])), entry.get("params", {}),
        _links(entry.get("outs", [])),
    ) for address, entry in sorted(entries.items())}
    needs = {address: {other.address for other in found.values() if other is not stage and reads(stage, other)}
             for address, stage in found.items()}
    try:
        return tuple(found[address] for address in TopologicalSorter(needs).static_order())
    except CycleError:
        return tuple(found.values())


def reads(stage: StageRecord, other: StageRecord) -> bool:
    """Whether a stage reads what another one writes."""
    made = [Path(out.path) for out in other.outputs]
    return any(feeds(out, Path(link.path)) for out in made for link in stage.inputs)


def feeds(out: Path, read_from: Path) -> bool:
    """Whether an output is the path that is read, lies inside it, or contains it.

    >>> feeds(Path("artifacts/a/features"), Path("artifacts/a")), feeds(Path("artifacts/a"), Path("artifacts/b"))
    (True, False)
    """
    return out.is_relative_to(read_from) or read_from.is_relative_to(out)


def _links(entries: list[Mapping[str, Any]]) -> tuple[TrackedPath, ...]:
    return tuple(TrackedPath(str(e["path"]), str(e.get("md5", "")), e.get("size"), e.get("nfiles")) for e in entries)


def _data(files: StoredFiles, facts: Mapping[str, Any], objects: Objects) -> Data | None:
    """The data version with its listing, from the run's `data.dvc`, or else from `lineage.json`."""
    try:
        out = dict((files.values("data.dvc") or {})["outs"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        noted = facts.get("data", {})
        out = {"md5": noted.get("hash"), "nfiles": noted.get("files"), "size": noted.get("bytes")}
    md5 = str(out.get("md5") or "")
    if not md5:
        return None
    try:
        listing = objects.listing(md5)
    except ObjectNotFound as gone:
        files.missing.append(f"data version {md5}: its listing is not stored anywhere ({gone}); {_fetch(md5)}")
        listing = {}
    return Data(md5, out.get("nfiles"), out.get("size"), listing)


def _recordings(data: Data | None, folds: "pd.DataFrame", objects: Objects, missing: list[str]) -> "pd.DataFrame":
    import pandas as pd

    table = pd.DataFrame(columns=list(RECORDINGS)).astype(dict(RECORDINGS))
    if data and data.objects:
        try:
            table = objects.table(data.objects, "recordings.parquet")
        except ObjectNotFound as gone:
            missing.append(f"recordings of data version {data.md5}: {gone}; {_fetch(data.md5)}")
    places = {key: paths.audio(key).relative_to(paths.DATA).as_posix() for key in table["recording_id"]}
    hashes = {key: (data.objects.get(place) if data else None) for key, place in places.items()}
    found = table.assign(**{AUDIO_MD5: table["recording_id"].map(hashes).astype("string")})
    return found.merge(folds[["recording_id", "unit_id", "label", "part"]], on="recording_id", how="left")


def _fetch(md5: str) -> str:
    return f"`dvc fetch data.dvc` in a checkout whose data.dvc names {md5} brings it, from a remote that has it"
