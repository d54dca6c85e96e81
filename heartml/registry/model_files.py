"""The files of a registered version: copied out of the store, held against their signature, the ensemble among them."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from heartml.core.system import untrusted
from heartml.registry import signing
from heartml.registry.mlflow_store import address
from heartml.registry.signing import keys
from heartml.registry.versions import RegistryError, Version

if TYPE_CHECKING:
    from mlflow import MlflowClient


def download(client: "MlflowClient", version: Version, into: Path) -> Path:
    """The fitted ensemble of a version (what `heartml.models.fitted_model.Model.load` reads), copied below `into` and
    verified.

    Raises:
        RegistryError: the stored model is gone.
        signing.Refused: it is not what was signed when it was registered, or nobody trusted here signed it.
    """
    folder = copied(client, version, into)
    verify(folder, version.name, version.number, version.run_id)
    return ensemble_in(folder)


def copied(client: "MlflowClient", version: Version, into: Path, *, as_it_is: bool = False) -> Path:
    """The model as it is stored, copied below `into`, nothing verified.

    Args:
        as_it_is: with the bytecode that a server left there.

    Raises:
        RegistryError: the stored model is gone.
    """
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(address())   # a `models:/` source is looked up there, whatever `tracking_uri` says
    try:
        folder = Path(download_artifacts(version.source, dst_path=str(into / "model"), tracking_uri=address()))
    except (OSError, MlflowException) as error:
        raise RegistryError(f"{version.name} version {version.number}: its files are gone: {error}") from None
    for cached in () if as_it_is else folder.rglob("__pycache__"):
        shutil.rmtree(cached)
    return folder


def ensemble_in(folder: Path) -> Path:
    """Where in a stored model the fitted ensemble lies.

    Raises:
        RegistryError: nowhere.
    """
    try:
        text = untrusted.text(folder / "MLmodel", most_bytes=untrusted.MOST_YAML_BYTES)
        told = untrusted.yaml_of(text, yaml.SafeLoader)
        inner = folder / str(told["flavors"]["python_function"]["artifacts"]["model"]["path"])
        inside = inner.resolve().is_relative_to(folder.resolve())
    except (untrusted.DocumentError, ValueError, KeyError, TypeError):
        raise RegistryError(f"{folder}: no stored model (MLmodel names no ensemble)") from None
    if not inside:
        raise RegistryError(f"{folder}: MLmodel names an ensemble outside of it, {inner}")
    return inner


def verify(folder: Path, name: str, number: str, run_id: str) -> None:
    """Hold a copy of a stored model against its signature, unless signatures were switched off.

    Raises:
        signing.Refused: it is not what was signed, or signed as another model or from another run.
    """
    if not signing.required():
        return
    what = f"{name} version {number}"
    said = signing.verify(folder, keys.trusted(), what).statement
    for of, expected in (("model", name), ("run_id", run_id)):
        if said.get(of) != expected:
            raise signing.SignatureRefused(f"{what}: its files were signed as {of} {said.get(of)}, not {expected}: "
                                          "somebody exchanged models in the registry")
