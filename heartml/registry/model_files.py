"""The files of a registered version: copied from the store and checked against their signature.

In: a version and an empty folder. Out: paths of the copies below that folder.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from heartml.core.system import untrusted
from heartml.registry import signing
from heartml.registry.mlflow_store import tracking_uri
from heartml.registry.signing import keys
from heartml.registry.versions import RegistryError, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient


def download(client: "MlflowClient", version: Version, into: Path) -> Path:
    """Copy a version's fitted ensemble below `into` and verify it; `Model.load` of `fitted_model` reads the result.

    Raises:
        RegistryError: the stored model is gone.
        SignatureRefused: the files are not what was signed, or no trusted key signed them.
    """
    folder = download_unverified(client, version, into)
    verify(folder, version.name, version.number, version.run_id)
    return ensemble_folder(folder)


def download_unverified(client: "MlflowClient", version: Version, into: Path, *, with_bytecode: bool = False) -> Path:
    """Copy the stored model below `into`, without verifying anything.

    Args:
        with_bytecode: keep the `__pycache__` folders that a server left there.

    Raises:
        RegistryError: the stored model is gone.
    """
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri())   # a `models:/` source is looked up there, whatever the argument says
    try:
        folder = Path(download_artifacts(version.source, dst_path=str(into / "model"), tracking_uri=tracking_uri()))
    except (OSError, MlflowException) as error:
        raise RegistryError(f"{version.name} version {version.number}: its files are gone: {error}") from None
    for cached in () if with_bytecode else folder.rglob("__pycache__"):
        shutil.rmtree(cached)
    return folder


def ensemble_folder(folder: Path) -> Path:
    """The folder of the fitted ensemble inside a stored model.

    Raises:
        RegistryError: the folder is not an MLflow model, or it names an ensemble outside itself.
    """
    try:
        text = untrusted.read_text(folder / "MLmodel", max_bytes=untrusted.MAX_YAML_BYTES)
        mlmodel = untrusted.parse_yaml(text, yaml.SafeLoader)
        inner = folder / str(mlmodel["flavors"]["python_function"]["artifacts"]["model"]["path"])
        inside = inner.resolve().is_relative_to(folder.resolve())
    except (untrusted.DocumentError, ValueError, KeyError, TypeError):
        raise RegistryError(f"{folder}: no stored model (MLmodel names no ensemble)") from None
    if not inside:
        raise RegistryError(f"{folder}: MLmodel names an ensemble outside of it, {inner}")
    return inner


def verify(folder: Path, name: str, number: str, run_id: str) -> None:
    """Check a copy of a stored model against its signature, unless signatures are switched off.

    Raises:
        SignatureRefused: it is not what was signed, or it was signed as another model or from another run.
    """
    if not signing.required():
        return
    what = f"{name} version {number}"
    statement = signing.verify(folder, keys.trusted(), what).statement
    for key, expected in (("model", name), ("run_id", run_id)):
        if statement.get(key) != expected:
            raise signing.SignatureRefused(f"{what}: its files were signed as {key} {statement.get(key)}, not "
                                           f"{expected}: somebody exchanged models in the registry")
