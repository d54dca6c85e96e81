"""Finds the model that `--model` and `--task` name: a registered version or a folder. Registered ones are copied here.

Asking MLflow takes 1.5 s. The reply of a local store is cached for as long as the store's file has the same size and
time of change. Versions never change, so a model is copied once. Its signature is verified every time.
"""

import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, replacing_folder, temporary_folder, write_json
from heartml.core.system.hashing import sha256
from heartml.core.system.locks import exclusive
from heartml.registry import consent, model_files, tracking
from heartml.registry import versions as registry
from heartml.registry.mlflow_store import sqlite_file


class NoModel(HeartMLError):  # noqa: N818 - names what is the case
    """There is no such model; the message lists the known ones, or says how to get one."""


@dataclass(frozen=True)
class LocatedModel:
    """A model's folder and where it comes from.

    Attributes:
        folder: the folder with `model.json`.
        description: where the model comes from, in words for people who read its predictions.
        name: registered model and task, `circor-murmur`; `None` for a folder that a user named.
        version: the registry's number; `None` outside the registry.
    """

    folder: Path
    description: str
    name: str | None
    version: str | None


def locate(wanted: str | None, task: str | None, tasks: Sequence[str]) -> LocatedModel:
    """Find the model that `--model` and `--task` name.

    Args:
        wanted: a folder, `NAME`, `NAME@ALIAS` or `NAME/VERSION`; `None` means the champion of the task, or the model
            in `artifacts/` where there is no champion.
        task: for instance `circor-murmur`; `None` means the only one in `tasks`.
        tasks: those of params.yaml.

    Raises:
        NoModel: there is none, or it is not clear which one is meant.
    """
    if wanted is None:
        name = task or _only(tasks)
        return _from_registry(name, "@champion", required=False) or _from_artifacts(name)
    if (Path(wanted) / "model.json").is_file():
        return LocatedModel(Path(wanted), f"the folder {wanted}", None, None)
    if Path(wanted).exists():
        raise NoModel(f"{wanted}: no model in it (no model.json)")
    name, sign, which = registry.parse(wanted)
    found = _from_registry(name, f"{sign}{which}", required=True)
    assert found
    return found


def companion_models(model: LocatedModel, tasks: Sequence[str]) -> list[LocatedModel]:
    """Find the models of other tasks that may be used together with `model`, in the order of `tasks`.

    With a registered model only champions are used, never a version that the gate refused. With a model that is not
    registered, what the last `dvc repro` made is used as well. Tasks without a model are left out.
    """
    found = []
    for task in tasks:
        champion = _from_registry(task, "@champion", required=False)
        if champion is None and model.version is None:
            with contextlib.suppress(NoModel):
                champion = _from_artifacts(task)
        found += [champion] if champion else []
    return found


def _only(tasks: Sequence[str]) -> str:
    if len(tasks) == 1:
        return tasks[0]
    raise NoModel(f"params.yaml names several tasks: choose one with --task ({', '.join(tasks)})")


def _from_artifacts(task: str) -> LocatedModel:
    folder = paths.model(task)
    if not (folder / "model.json").is_file():
        raise NoModel(f"{task}: no champion in the registry and no model in {folder}. Run `heartml retrain` first, or "
                      "name another with --model (`heartml models` lists them)")
    return LocatedModel(folder, f"{folder}, not registered as champion", task, None)


def _from_registry(name: str, which: str, *, required: bool) -> LocatedModel | None:
    """The version of `name` that `@alias` or `/VERSION` names; `None` where there is none and none is required."""
    state = _store_state()
    lookup = paths.cache() / "models" / f"{sha256(f'{name}{which}'.encode())[:16]}.json"
    known = _cached(lookup, state)
    if known is None:
        known = _ask_registry(name, which) if state or sqlite_file() is None else {}
        if state and known == _if_usable(known):
            write_json(lookup, {"state": state, "found": known})
    if not known:
        if required:
            raise NoModel(f"{name}{which}: not in the registry; `heartml models` lists what is")
        return None
    version = known["version"]
    model_files.verify(Path(known["stored"]), name, version, known["run_id"])
    description = f"{name} version {version}" + (", the champion" if which == "@champion" else "") + known["consent"]
    return LocatedModel(Path(known["folder"]), description, name, version)


def _if_usable(known: dict[str, str]) -> dict[str, str] | None:
    whole = {"stored", "run_id", "consent"} <= set(known)
    return known if not known or (whole and (Path(known["folder"]) / "model.json").is_file()) else None


def _cached(lookup: Path, state: str | None) -> dict[str, str] | None:
    """The cached reply for this state of the store; `None` where the registry has to be asked again."""
    if state is None:
        return None
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        cached: dict[str, Any] = read_json(lookup)
        if cached["state"] == state:
            return _if_usable(cached["found"])
    return None


def _store_state() -> str | None:
    """A text that changes whenever the local store changes; `None` where there is no local store."""
    store = sqlite_file()
    if store is None or not store.is_file():
        return None
    parts = [store, store.with_name(f"{store.name}-wal")]     # SQLite writes there first
    stats = [part.stat() for part in parts if part.is_file() and part.stat().st_size]
    return " ".join([str(store.resolve()), *(f"{s.st_size} {s.st_mtime_ns}" for s in stats)])


def _ask_registry(name: str, which: str) -> dict[str, str]:
    """Ask the registry and copy the model; returns version, run, folders and consent, or nothing if there is none."""
    client = tracking.connect()
    number, alias = which.removeprefix("/"), which.removeprefix("@")
    versions = registry.list_versions(client, name)
    version = next((v for v in versions if v.number == number or alias in v.aliases), None)
    if version is None:
        return {}
    folder = paths.cache() / "registered" / f"{name}-{version.number}-{sha256(version.source.encode())[:16]}"
    with exclusive(paths.LOCKS / "models.lock"):
        if not (folder / "MLmodel").is_file():
            with replacing_folder(folder) as temporary, temporary_folder() as place:
                shutil.copytree(model_files.download_unverified(client, version, place), temporary, dirs_exist_ok=True)
    withdrawn = " (consent for some of its data was withdrawn since: retrain)" if consent.describe(version) else ""
    return {"version": version.number, "run_id": version.run_id, "stored": str(folder),
            "folder": str(model_files.ensemble_folder(folder)), "consent": withdrawn}
