"""Sources that a model was validated on since it was trained: `sources/NAME.json` and `.safetensors` in and out.

A model refers recordings that are unlike those of its training. `heartml validate-source` measures it on labelled
recordings of a new source (see `source_validation`) and writes both files: the evidence, and what recordings of that
source are like. `predict.accepted_sources` in `params.yaml` names the sources that predictions accept. The evidence
holds for one model: the next version is validated again.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import read_json, replacing, write_json
from heartml.core.system.hashing import sha256, sha256_folder
from heartml.inference.model_lookup import LocatedModel
from heartml.models.applicability import Reference
from heartml.models.fitted_model import Model

FOLDER = Path("sources")
TAG = "heartml.validated_source."      # of the registry, with the name of the source: SHA-256 of its evidence
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


class SourceError(HeartMLError):
    """A source cannot be accepted; the message says what to do."""


def write(evidence: dict[str, Any], reference: Reference) -> Path:
    """Write both files of a source and return the path of the evidence."""
    from safetensors.numpy import save

    data = save({"centre": reference.centre, "precision": np.ascontiguousarray(reference.precision)})
    limits = {"farthest": reference.farthest, "most_unusual": reference.most_unusual, "arrays_sha256": sha256(data)}
    path = FOLDER / f"{reference.name}.json"
    try:
        with replacing(FOLDER / f"{reference.name}.safetensors") as file:
            file.write_bytes(data)
        write_json(path, {**evidence, **limits})
    except (FileExistsError, NotADirectoryError):
        raise SourceError(f"{FOLDER} is a file, and has to be a folder: rename it") from None
    return path


def accept(model: Model, located: LocatedModel, names: Sequence[str]) -> tuple[Model, tuple[str, ...]]:
    """The model that also accepts recordings of the sources `names`.

    Returns:
        The model, and a caution for each source whose evidence is about another model; that one is not accepted.

    Raises:
        SourceError: a source has no evidence, or it did not pass.
    """
    if not names or model.applicability is None:
        return model, ()
    for name in names:
        if not NAME.fullmatch(name) or names.count(name) > 1:
            raise SourceError(f"params.yaml: predict.accepted_sources: {name!r} stands there twice, or is no name of a "
                              "source (small letters, digits and hyphens)")
    content = sha256_folder(located.folder)
    cautions, references = [], list(model.applicability.references)
    for name in names:
        evidence = _evidence(name)
        if evidence["model"]["sha256"] == content:
            references.append(_reference(name, evidence))
        else:
            cautions.append(f"source {name} was validated for another model and is not accepted: run `heartml "
                            f"validate-source {name}` again")
    return replace(model, applicability=replace(model.applicability, references=tuple(references))), tuple(cautions)


def _evidence(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        raise SourceError(f"params.yaml: predict.accepted_sources names {name}, and there is no {path}: run `heartml "
                          f"validate-source {name} TABLE.csv`")
    try:
        evidence: dict[str, Any] = read_json(path)
        if not evidence["validated"]:
            raise SourceError(f"params.yaml: predict.accepted_sources names {name}, which did not pass ({path}: "
                              f"{'; '.join(evidence['problems'])}): take it out")
        return {key: evidence[key] for key in ("model", "farthest", "most_unusual", "arrays_sha256")}
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path}: damaged ({type(error).__name__}): bring it back from git, or run `heartml "
                          f"validate-source {name}` again") from None


def _reference(name: str, evidence: dict[str, Any]) -> Reference:
    from safetensors.numpy import load

    try:
        data = (FOLDER / f"{name}.safetensors").read_bytes()
        if sha256(data) != evidence["arrays_sha256"]:
            raise ValueError("other bytes than those of the evidence")
        arrays = load(data)
        return Reference(name, np.asarray(arrays["centre"], np.float64), np.asarray(arrays["precision"], np.float64),
                         float(evidence["farthest"]), float(evidence["most_unusual"]))
    except Exception as error:  # noqa: BLE001 - whatever the library raises for a damaged or missing file
        raise SourceError(f"{FOLDER / name}.safetensors: cannot be read ({type(error).__name__}): run `heartml "
                          f"validate-source {name}` again") from None
