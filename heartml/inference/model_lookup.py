"""Which model answers? The champion of the registry, a version of it, or a folder; and a copy of it on this disk.

Asking MLflow takes a second and a half. A local store's answer is kept for as long as its file is the same, byte count
and time of change; versions never change, so a copied model is copied once. Its signature is verified every time.
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
from heartml.core.system.files import read_json, replacing_folder, scratch, write_json
from heartml.core.system.hashing import sha256
from heartml.core.system.locks import exclusive
from heartml.registry import consent, model_files, tracking
from heartml.registry import versions as registry
from heartml.registry.mlflow_store import sqlite_file


class NoModel(HeartMLError):  # noqa: N818 - reads as what is the case
    """There is no such model; the message says which there are, or how to get one."""


@dataclass(frozen=True)
class Located:
    """A model's folder, and where it comes from, in words for the person who reads its answers.

    Attributes:
        name: registered model and task, `circor-murmur`; `None` for a folder that somebody named.
        version: the registry's number, `None` outside the registry.
    """

    folder: Path
    words: str
    name: str | None
    version: str | None


def locate(wanted: str | None, task: str | None, tasks: Sequence[str]) -> Located:
    """The model behind `--model` and `--task`.

    Args:
        wanted: a folder, `name`, `name@alias`, `name/VERSION`; `None`: the champion of the task.
        task: e.g. `circor-murmur`; `None`: the one in `tasks`.

    Raises:
        NoModel: there is none, or it is not clear which is meant.
    """
    if wanted is None:
        name = task or _only(tasks)
        return _from_registry(name, "@champion", required=False) or _from_artifacts(name)
    if (Path(wanted) / "model.json").is_file():
        return Located(Path(wanted), f"the folder {wanted}", None, None)
    if Path(wanted).exists():
        raise NoModel(f"{wanted}: no model in it (no model.json)")
    name, sign, which = registry.parse(wanted)
    found = _from_registry(name, f"{sign}{which}", required=True)
    assert found
    return found


def beside(model: Located, tasks: Sequence[str]) -> list[Located]:
    """The models of other tasks that may speak beside `model`, those there are, in the order of `tasks`.

    Beside a registered model champions alone: what the gate refused stays silent. Beside a model that nobody has
    registered also what the last `dvc repro` made.
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


def _from_artifacts(task: str) -> Located:
    folder = paths.model(task)
    if not (folder / "model.json").is_file():
        raise NoModel(f"{task}: no champion in the registry and no model in {folder}. Run `heartml retrain` first, or "
                      "name another with --model (`heartml models` lists them)")
    return Located(folder, f"{folder}, not registered as champion", task, None)


def _from_registry(name: str, which: str, *, required: bool) -> Located | None:
    """The version of `name` that `@alias` or `/VERSION` means; `None` where there is none and none is required."""
    state = _state()
    lookup = paths.cache() / "models" / f"{sha256(f'{name}{which}'.encode())[:16]}.json"
    known = _remembered(lookup, state)
    if known is None:
        known = _ask(name, which) if state or sqlite_file() is None else {}
        if state and known == _existing(known):
            write_json(lookup, {"state": state, "found": known})
    if not known:
        if required:
            raise NoModel(f"{name}{which}: not in the registry; `heartml models` lists what is")
        return None
    version = known["version"]
    model_files.verify(Path(known["stored"]), name, version, known["run_id"])
    words = f"{name} version {version}" + (", the champion" if which == "@champion" else "") + known["consent"]
    return Located(Path(known["folder"]), words, name, version)


def _existing(known: dict[str, str]) -> dict[str, str] | None:
    whole = {"stored", "run_id", "consent"} <= set(known)
    return known if not known or (whole and (Path(known["folder"]) / "model.json").is_file()) else None


def _remembered(lookup: Path, state: str | None) -> dict[str, str] | None:
    """What was found when the store was in this state; `None` where it has to be asked again."""
    if state is None:
        return None
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        kept: dict[str, Any] = read_json(lookup)
        if kept["state"] == state:
            return _existing(kept["found"])
    return None


def _state() -> str | None:
    """What changes whenever the store on this disk does; `None` where there is none."""
    store = sqlite_file()
    if store is None or not store.is_file():
        return None
    parts = [store, store.with_name(f"{store.name}-wal")]     # SQLite's file, and what it has not yet written there
    stats = [part.stat() for part in parts if part.is_file() and part.stat().st_size]
    return " ".join([str(store.resolve()), *(f"{s.st_size} {s.st_mtime_ns}" for s in stats)])


def _ask(name: str, which: str) -> dict[str, str]:
    """Ask the registry; version and folder of a copy, or nothing."""
    client = tracking.connect()
    number, alias = which.removeprefix("/"), which.removeprefix("@")
    versions = registry.versions(client, name)
    version = next((v for v in versions if v.number == number or alias in v.aliases), None)
    if version is None:
        return {}
    folder = paths.cache() / "registered" / f"{name}-{version.number}-{sha256(version.source.encode())[:16]}"
    with exclusive(paths.LOCKS / "models.lock"):
        if not (folder / "MLmodel").is_file():
            with replacing_folder(folder) as temporary, scratch() as place:
                shutil.copytree(model_files.copied(client, version, place), temporary, dirs_exist_ok=True)
    return {"version": version.number, "run_id": version.run_id, "stored": str(folder),
            "folder": str(model_files.ensemble_in(folder)),
            "consent": " (consent for some of its data was withdrawn since: retrain)" if consent.words(version) else ""}
