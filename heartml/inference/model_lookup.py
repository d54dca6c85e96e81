"""Finds the model that `--model` and `--task` name: a registered version or a folder. Registered ones are copied here.

Asking MLflow takes 1.5 s. The reply of a local store is cached for as long as the store's file has the same size and
time of change. Versions never change, so a model is copied once. Its signature is verified every time.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartml.core import paths
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, replacing, replacing_folder, temporary_folder, write_json
from heartml.core.system.hashing import sha256, sha256_folder
from heartml.core.system.locks import exclusive
from heartml.lineage import capture
from heartml.registry import champions, consent, mlflow_store, model_files, tracking, version_cautions
from heartml.registry import versions as registry
from heartml.registry.mlflow_store import registry_file

FOLDS = "folds.parquet"                # of a run: the recordings that its model was trained and tested on
MODEL_TAG = "heartml.sha256.model"     # of a run: the hash of the model that it registered
Reply = dict[str, Any]     # what the registry says about one model, as JSON


class NoModel(HeartMLError):  # noqa: N818 - names what is the case
    """There is no such model; the message lists the known ones, or says how to get one."""


class NothingServes(NoModel):
    """The champion was retired; the message says when, by whom and why, and how another version comes to serve."""


@dataclass(frozen=True)
class LocatedModel:
    """A model's folder and where it comes from.

    Attributes:
        folder: the folder with `model.json`.
        description: where the model comes from, in words for people who read its predictions.
        name: registered model and task, `circor-murmur`; `None` for a folder that a user named.
        version: the registry's number; `None` outside the registry.
        cautions: what to know before its predictions are trusted, one line each (heartml/registry/version_cautions.py).
        folds: the table of the recordings that it was trained and tested on; `None` where it is not known.
        public_cautions: those of a registered version without the names of people, for what leaves the project.
    """

    folder: Path
    description: str
    name: str | None
    version: str | None
    cautions: tuple[str, ...] = ()
    folds: Path | None = None
    public_cautions: tuple[str, ...] = ()


def locate(wanted: str | None, task: str | None, tasks: Sequence[str], *, verified: bool = True) -> LocatedModel:
    """Find the model that `--model` and `--task` name.

    Args:
        wanted: a folder, `NAME`, `NAME@ALIAS` or `NAME/VERSION`; `None` means the champion of the task, or the model
            in `artifacts/` where there is no champion.
        task: for instance `circor-murmur`; `None` means the only one in `tasks`.
        tasks: those of params.yaml.
        verified: check the signature of a registered model. Only who does not read its files leaves this out.

    Raises:
        NoModel: there is none, or it is not clear which one is meant.
        NothingServes: the champion is meant, and it was retired.
    """
    if wanted is None:
        name = task or _only(tasks)
        return _from_registry(name, "@champion", required=False, verified=verified) or _from_artifacts(name)
    if (Path(wanted) / "model.json").is_file():
        return LocatedModel(Path(wanted), f"the folder {wanted}", None, None, _cautions_of_folder(Path(wanted)))
    if Path(wanted).exists():
        raise NoModel(f"{wanted}: no model in it (no model.json)")
    name, sign, which = registry.parse(wanted)
    found = _from_registry(name, f"{sign}{which}", required=True, verified=verified)
    assert found
    return found


def companion_models(model: LocatedModel, tasks: Sequence[str]) -> list[LocatedModel]:
    """Find the models of other tasks that may be used together with `model`, in the order of `tasks`.

    With a registered model only champions are used, never a version that the gate refused. With a model that is not
    registered, what the last `dvc repro` made is used as well. Tasks without a model are left out, and so are those
    whose champion was retired.
    """
    found = []
    for task in tasks:
        with contextlib.suppress(NoModel):
            champion = _from_registry(task, "@champion", required=False)
            if champion is None and model.version is None:
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
    cautions = _cautions_of_artifacts(task, folder)
    return LocatedModel(folder, f"{folder}, not registered as champion", task, None, cautions, paths.folds(task))


def _cautions_of_artifacts(task: str, folder: Path) -> tuple[str, ...]:
    """The cautions of the model in `artifacts/`: those of the version with the same content, if one is registered."""
    if registry_file() is not None and _store_state() is None:      # no registry, so nobody has judged anything
        return (version_cautions.unregistered(folder),)
    try:
        key = capture.content_key(task)
    except HeartMLError:      # its data, folds or evaluation are not here: no version can be told from another
        return ()
    known = _reply(f"{task}#{key}", lambda: _ask_about_content(task, key))
    return tuple(known["cautions"]) if known else (version_cautions.unregistered(folder),)


def _cautions_of_folder(folder: Path) -> tuple[str, ...]:
    """The cautions of a model that a user named by its folder.

    They are those of the registered version with the same bytes, if there is one; else those that were written beside
    the copy of a version (`heartml verify NAME --to FOLDER`).
    """
    copied = next((place for place in folder.resolve().parents if (place / "MLmodel").is_file()), folder)
    beside = version_cautions.read_beside(copied) if version_cautions.are_beside(copied) else None
    nobody = version_cautions.unregistered(folder, retrained=paths.ARTIFACTS in folder.parents)
    if registry_file() is not None and _store_state() is None:
        return (nobody,) if beside is None else beside
    digest, name = sha256_folder(folder), _task_of(folder)
    try:
        known = _reply(f"{name}={digest}", lambda: _ask_about_model(name, digest)) if name else {}
    except HeartMLError as error:
        return (version_cautions.unknown(folder, error),) if beside is None else beside
    if known:
        return tuple(known["cautions"])
    return (nobody,) if beside is None else beside


def _task_of(folder: Path) -> str:
    """The task that a model predicts, which is its name in a registry; empty where the file cannot be read."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(read_json(folder / "model.json")["assignment"])
    return ""


def _from_registry(name: str, which: str, *, required: bool, verified: bool = True) -> LocatedModel | None:
    """The version of `name` that `@alias` or `/VERSION` names; `None` where there is none and none is required."""
    known = _reply(f"{name}{which}", lambda: _ask_registry(name, which))
    if "nothing_serves" in known:
        raise NothingServes(known["nothing_serves"])
    if "version" not in known:
        if required:
            raise NoModel(f"{name}{which}: not in the registry; {_way_out(name, known.get('newest'))}")
        return None
    version = known["version"]
    if verified:
        model_files.verify(Path(known["stored"]), name, version, known["run_id"])
    description = f"{name} version {version}" + (", the champion" if which == "@champion" else "") + known["consent"]
    return LocatedModel(Path(known["folder"]), description, name, version, tuple(known["cautions"]),
                        Path(known["folds"]) if known["folds"] else None, tuple(known["public_cautions"]))


def _way_out(name: str, newest: str | None) -> str:
    if newest is None:
        return "`heartml models` lists what is"
    return (f"its newest version is {name}/{newest}. Ask for that, or let it serve: `heartml promote {name}/{newest} "
            "--reason \"...\"`")


def _reply(question: str, ask: Callable[[], Reply]) -> Reply:
    """The registry's reply, cached for as long as a local store does not change; empty where there is no registry."""
    state = _store_state()
    lookup = paths.cache() / "models" / f"{sha256(question.encode())[:16]}.json"
    known = _cached(lookup, state)
    if known is None:
        mlflow_store.check_named_files()
        known = ask() if state or registry_file() is None else {}
        if state and known == _if_usable(known):
            write_json(lookup, {"state": state, "found": known})
    return known


def _if_usable(known: Reply) -> Reply | None:
    if "folder" not in known:
        return known
    whole = {"stored", "run_id", "consent", "public_cautions", "folds"} <= set(known)     # earlier versions' are not
    return known if whole and (Path(known["folder"]) / "model.json").is_file() else None


def _cached(lookup: Path, state: str | None) -> Reply | None:
    """The cached reply for this state of the store; `None` where the registry has to be asked again."""
    if state is None:
        return None
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        cached: dict[str, Any] = read_json(lookup)
        if cached["state"] == state:
            return _if_usable(cached["found"])
    return None


def _store_state() -> str | None:
    """A text that changes whenever the local registry changes; `None` where there is no local one."""
    store = registry_file()
    if store is None or not store.is_file():
        return None
    parts = [store, store.with_name(f"{store.name}-wal")]     # SQLite writes there first
    stats = [part.stat() for part in parts if part.is_file() and part.stat().st_size]
    return " ".join([str(store.resolve()), *(f"{s.st_size} {s.st_mtime_ns}" for s in stats)])


def _ask_registry(name: str, which: str) -> Reply:
    """Ask the registry and copy the model.

    Returns:
        Version, run, folders, consent and cautions; or nothing if there is none; or why no champion serves.
    """
    client = tracking.connect_to_existing()
    number, alias = which.removeprefix("/"), which.removeprefix("@")
    versions = registry.list_versions(client, name)
    retirement = registry.retirement(client, name) if versions and alias == registry.CHAMPION else None
    if retirement:
        return {"nothing_serves": champions.nothing_serves(name, retirement)}
    version = next((v for v in versions if v.number == number or alias in v.aliases), None)
    if version is None:
        return {"newest": versions[-1].number} if versions else {}
    folder = paths.cache() / "registered" / f"{name}-{version.number}-{sha256(version.source.encode())[:16]}"
    with exclusive(paths.LOCKS / "models.lock"):
        if not (folder / "MLmodel").is_file():
            with replacing_folder(folder) as temporary, temporary_folder() as place:
                shutil.copytree(model_files.download_unverified(client, version, place), temporary, dirs_exist_ok=True)
        folds = _copied_folds(client, version.run_id, folder.with_name(f"{folder.name}.folds.parquet"))
    withdrawn = " (consent for some of its data was withdrawn since: retrain)" if consent.describe(version) else ""
    return {"version": version.number, "run_id": version.run_id, "stored": str(folder),
            "folder": str(model_files.ensemble_folder(folder)), "consent": withdrawn,
            **_cautions(version, champions.read(client, name)), "folds": folds}


def _copied_folds(client: tracking.Client, run_id: str, to: Path) -> str:
    """The path of a copy of the run's table of folds, beside the copy of the model; empty where it has none."""
    if not to.is_file():
        if FOLDS not in tracking.list_files(client, run_id):
            return ""
        with temporary_folder() as place, replacing(to) as temporary:
            shutil.copyfile(tracking.fetch(client, run_id, FOLDS, place), temporary)
    return str(to)


def _ask_about_content(name: str, key: str) -> Reply:
    """The cautions of the registered version with this content key; nothing if there is none."""
    client = tracking.connect_to_existing()
    version = registry.find_by_key(client, name, key)
    return _cautions(version, champions.read(client, name)) if version else {}


def _ask_about_model(name: str, digest: str) -> Reply:
    """The cautions of the newest registered version whose model has this hash; nothing if there is none."""
    client = tracking.connect_to_existing()
    for version in reversed(registry.list_versions(client, name)):
        run = tracking.read_run(client, version.run_id)
        if run and run.tags.get(MODEL_TAG) == digest:
            return _cautions(version, champions.read(client, name))
    return {}


def _cautions(version: registry.Version, history: Sequence[champions.Entry]) -> dict[str, Any]:
    return {"cautions": version_cautions.of(version, history),
            "public_cautions": version_cautions.of(version, history, named=False)}
