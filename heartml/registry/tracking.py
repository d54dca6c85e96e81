"""MLflow runs: connect to the store, write and read runs, and close runs that killed processes left open.

In: params, metrics, tags, files and a model. Out: run ids, stored runs, and copies of stored files.

`MLFLOW_TRACKING_URI` is the address of a shared server or database (docs/scale.md). Without it everything is in SQLite
and a folder under `.heartml`. Beside this module only versions, champions and model_files talk to MLflow.
"""

import contextlib
import logging
import os
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from heartml.core import paths
from heartml.core.system import processes
from heartml.core.system.files import canonical_json, temporary_folder
from heartml.registry import addresses, mlflow_store
from heartml.registry.mlflow_keys import valid_key, valid_keys
from heartml.registry.mlflow_store import sqlite_file, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

Client: TypeAlias = "MlflowClient"   # the name for the rest of the project, which does not import MLflow
STORED_FILES = paths.STATE / "mlartifacts"
ARTIFACTS = "HEARTML_ARTIFACTS"      # where runs and models keep their files, if no server decides that
_PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"),
           ("model_versions", "storage_location"))
_left_open: set[str] = set()
_BATCH_SIZE = 100   # params in one log_batch: the server's limit
_METRICS_AT_ONCE = 1000   # metrics in one log_batch: the server's limit
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"     # the pages open for machine learning
_QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
          "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}   # stdout is the command's
_NOISY_LOGGER = "mlflow.store.db.utils"      # logs each database error with its traceback, and then raises it as well
_NO_PICKLE = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}   # whatever the caller's environment says


@dataclass(frozen=True)
class RunRecord:
    """Params, metrics and tags of one run, before they are stored. The names are MLflow's."""

    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """One stored run, read back. `data` is what `log_data` stored: name, digest, and the full hash in `source`."""

    run_id: str
    name: str
    status: str                      # FINISHED, FAILED, KILLED, RUNNING
    deleted: bool                    # marked as deleted in the store; its files may still be there
    start_ms: int
    end_ms: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    data: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class PackedModel:
    """A model as MLflow stores it: the code that loads it, the files that the code reads, and its requirements."""

    entry: Path                      # MLflow's models-from-code: no pickle is written or read
    folder: Path                     # the fitted ensemble
    params: Path                     # params.yaml of this version; the entry reads from it which audio is accepted
    code: Path                       # the package that `entry` imports, stored beside the model
    requirements: tuple[str, ...]
    example: Any                     # DataFrame: what a caller sends
    prediction: Any                  # DataFrame: what comes back


def connect_to_existing() -> "MlflowClient":
    """`connect` for commands that only make sense where something is stored: a mistyped path makes no new store.

    Raises:
        StoreError: nothing answers at `MLFLOW_TRACKING_URI`, or the file that it names is missing.
    """
    return connect(create=False)


def connect(*, create: bool = True) -> "MlflowClient":
    """A client of the store. A store that does not exist yet is created first.

    The schema is created under a lock. Without it, several processes that first use a new SQLite file at the same time
    damage it for good, and of several that first use a new PostgreSQL database all but one fail.

    Args:
        create: see `mlflow_store.check`.

    Raises:
        StoreError: nothing answers at `MLFLOW_TRACKING_URI`.
    """
    mlflow_store.check(create=create)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ.update(_NO_PICKLE)
    logging.getLogger(_NOISY_LOGGER).addFilter(_without_traceback)
    import mlflow

    if mlflow_store.is_server():
        return mlflow.MlflowClient(tracking_uri())
    with mlflow_store.store_lock("schema"):
        file = sqlite_file()
        if file is None:
            return mlflow.MlflowClient(tracking_uri())
        file.parent.mkdir(parents=True, exist_ok=True)
        client = mlflow.MlflowClient(tracking_uri())
        with contextlib.closing(sqlite3.connect(file, timeout=60)) as database:
            database.execute("PRAGMA journal_mode=WAL")   # readers and one writer do not wait for each other
            if not os.environ.get(mlflow_store.VARIABLE):
                _update_moved_paths(database)
    return client


def _without_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def _update_moved_paths(database: sqlite3.Connection) -> None:
    """Correct the absolute paths of files that MLflow stores, if this repository was moved or copied."""
    here = addresses.of_folder(STORED_FILES)
    found = database.execute("SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?",
                          (f"%/{STORED_FILES}",)).fetchall()
    for (before,) in found:
        if before != here:
            for table, column in _PLACES:
                database.execute(f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? "
                              f"OR substr({column}, 1, ?) = ?",
                              (here, len(before) + 1, before, len(before) + 1, f"{before}/"))
    database.commit()


def close_stale_runs(client: "MlflowClient") -> list[str]:
    """Close runs that a killed process of this machine left RUNNING; returns their ids."""
    closed = []
    for experiment in client.search_experiments():
        for left in client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"):
            if processes.has_ended(left.data.tags.get("heartml.process", "")):
                client.set_tag(left.info.run_id, "heartml.ended", "its process was killed")
                client.set_terminated(left.info.run_id, "KILLED")
                closed.append(str(left.info.run_id))
    return closed


@contextlib.contextmanager
def run(client: "MlflowClient", experiment: str, name: str, started_ms: int | None = None) -> Iterator[str]:
    """Start a run and yield its id. It becomes FINISHED, or FAILED if the block raises an exception.

    Args:
        started_ms: when the work that the run is about began, in milliseconds since 1970; `None`: now.
    """
    tags = {
        "heartml.process": processes.own_name(), "mlflow.runName": name, "mlflow.user": processes.user_name(),
        "mlflow.source.name": "heartml retrain", "mlflow.source.type": "JOB",
    }
    _close_left_open(client)
    run_id = client.create_run(_experiment(client, experiment), start_time=started_ms, tags=tags).info.run_id
    _left_open.add(run_id)      # until its end is stored
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        _left_open.discard(run_id)
        raise
    client.set_terminated(run_id, "FINISHED")
    _left_open.discard(run_id)


def _close_left_open(client: "MlflowClient") -> None:
    """Close runs of this process whose end could not be stored. `close_stale_runs` closes those of killed processes."""
    for run_id in sorted(_left_open):
        client.set_terminated(run_id, "FAILED")
        _left_open.discard(run_id)


def _experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment, which is created if it does not exist.

    A server decides where files are stored. Without one it is `HEARTML_ARTIFACTS` (`s3://bucket/prefix`), or else a
    folder under `.heartml`.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found:
        if _KIND_TAG not in found.tags:       # made by an older version of this project
            client.set_experiment_tag(found.experiment_id, _KIND_TAG, _KIND)
        return str(found.experiment_id)
    place = None if mlflow_store.is_server() else os.environ.get(ARTIFACTS) or addresses.of_folder(STORED_FILES)
    try:
        return str(client.create_experiment(name, artifact_location=place, tags={_KIND_TAG: _KIND}))
    except MlflowException:
        found = client.get_experiment_by_name(name)   # another process may have created it meanwhile
        if found is None:
            raise
        return str(found.experiment_id)


def log(client: "MlflowClient", run_id: str, record: RunRecord) -> None:
    """Store all params, metrics and tags in as few calls as the server allows."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    keys = valid_keys(record.metrics)
    metrics = [Metric(keys[name], value, now, 0) for name, value in record.metrics.items()]
    params = [Param(valid_key(name), value[:6000]) for name, value in record.params.items()]
    tags = [RunTag(valid_key(name), value[:5000]) for name, value in record.tags.items()]
    for some_metrics, some_params, some_tags in batches(metrics, params, tags):
        client.log_batch(run_id, metrics=some_metrics, params=some_params, tags=some_tags)


def batches(*lists: Sequence[Any]) -> Iterator[list[Sequence[Any]]]:
    """Lists of metrics, params and tags, cut side by side so that each batch is within the server's limit.

    >>> [[len(part) for part in batch] for batch in batches(range(250), range(120))]
    [[100, 100], [100, 20], [50, 0]]
    """
    for start in range(0, max(map(len, lists)), _BATCH_SIZE):
        yield [items[start : start + _BATCH_SIZE] for items in lists]


def log_curves(client: "MlflowClient", run_id: str, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Store curves: name -> step -> value."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    points = [Metric(valid_key(name), value, now, step) for name, curve in curves.items()
              for step, value in curve.items()]
    for start in range(0, len(points), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=points[start : start + _METRICS_AT_ONCE])


def log_data(client: "MlflowClient", run_id: str, name: str, content_hash: str, source: Mapping[str, Any]) -> None:
    """Store which data set a run used, with its full content hash (MLflow's own digest has only eight characters)."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = content_hash.removesuffix(".dir")   # the column holds 36 characters
    data = Dataset(name=name, digest=digest, source_type="dvc", source=canonical_json({**source, "hash": content_hash}))
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def log_files(client: "MlflowClient", run_id: str, items: Mapping[str, Path | str | bytes]) -> None:
    """Store files, folders, texts and bytes in a run, in one upload.

    Args:
        items: path in the run -> a file or folder on this disk, or the text or the bytes themselves.
    """
    with temporary_folder() as folder:
        for name, item in items.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(item, str):
                place.write_text(item, encoding="utf-8")
            elif isinstance(item, bytes):
                place.write_bytes(item)
            elif item.is_dir():
                shutil.copytree(item, place)
            else:
                shutil.copyfile(item, place)
        client.log_artifacts(run_id, str(folder))


def log_model(
    client: "MlflowClient", run_id: str, packed: PackedModel, seal: Callable[[Path], None] | None = None
) -> str:
    """Store a model with its schema and input example. Loading it reads no pickle.

    Args:
        seal: called with the folder before any of it is stored; it may add files, such as a signature.

    Returns:
        The address of the model in the store, `models:/...`.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    mlflow.set_tracking_uri(tracking_uri())   # a `models:/` address is looked up there
    made = client.create_logged_model(client.get_run(run_id).info.experiment_id, name="model", source_run_id=run_id)
    status = LoggedModelStatus.FAILED
    try:
        with temporary_folder() as place:
            folder = _saved(packed, place / "model", run_id, str(made.model_id))
            if seal:
                seal(folder)
            client.log_model_artifacts(made.model_id, str(folder))
        status = LoggedModelStatus.READY
    finally:
        client.finalize_logged_model(made.model_id, status)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return f"models:/{made.model_id}"


def _saved(packed: PackedModel, folder: Path, run_id: str, model_id: str) -> Path:
    """Write the model in MLflow's layout, without the bytecode that MLflow's test of the model leaves."""
    import mlflow
    from mlflow.models import Model, infer_signature

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # hints about integer columns and type hints
        mlflow.pyfunc.save_model(
            str(folder), mlflow_model=Model(artifact_path="model", run_id=run_id, model_id=model_id),
            python_model=str(packed.entry), artifacts={"model": str(packed.folder), "params": str(packed.params)},
            code_paths=[str(packed.code)], pip_requirements=list(packed.requirements),
            signature=infer_signature(packed.example, packed.prediction), input_example=packed.example,
        )
    for cached in folder.rglob("__pycache__"):
        shutil.rmtree(cached)
    return folder


def add_to_model(client: "MlflowClient", source: str, files: Sequence[Path]) -> None:
    """Add files to a stored model. Files of the same name are replaced."""
    for file in files:
        client.log_model_artifact(source.removeprefix("models:/"), str(file))


def read_run(client: "MlflowClient", run_id: str) -> Run | None:
    """One run as the store has it; `None` if it is gone."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return _read(found)


def training_runs(client: "MlflowClient") -> list[Run]:
    """Every run that fitted a model on a data version, oldest first, also those whose model was not registered."""
    found, token = [], None
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    while experiments:
        page = client.search_runs(experiments, "tags.`heartml.data` != ''", max_results=1000,
                                  order_by=["attributes.start_time ASC"], page_token=token)
        found += [_read(run) for run in page]
        token = page.token
        if not token:
            break
    return found


def _read(found: Any) -> Run:
    info, data = found.info, found.data
    inputs = tuple({"name": str(i.dataset.name), "digest": str(i.dataset.digest), "source": str(i.dataset.source)}
                   for i in (found.inputs.dataset_inputs if found.inputs else ()))
    return Run(str(info.run_id), str(info.run_name), str(info.status), info.lifecycle_stage == "deleted",
               int(info.start_time), info.end_time and int(info.end_time), dict(data.params), dict(data.metrics),
               dict(data.tags), inputs)


def list_files(client: "MlflowClient", run_id: str, folder: str | None = None) -> frozenset[str]:
    """Paths of the files and folders that a run keeps directly in `folder`; `None`: at the top level."""
    return frozenset(str(file.path) for file in client.list_artifacts(run_id, folder))


def fetch(client: "MlflowClient", run_id: str, name: str, into: Path) -> Path:
    """Copy one stored file or folder of a run below `into`; returns the path of the copy."""
    return Path(client.download_artifacts(run_id, name, str(into)))
