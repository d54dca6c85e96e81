"""The content of `export.json`: what an exported model is, where it comes from, what its outputs mean."""

import importlib.metadata
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartml.core.config import Params
from heartml.core.schema import STATES
from heartml.core.system.files import read_json
from heartml.core.system.hashing import sha256_file, sha256_folder
from heartml.core.task_definition import HEART, Organ
from heartml.inference import exported
from heartml.inference.model_lookup import LocatedModel
from heartml.inference.predict import NOTICE
from heartml.models import applicability
from heartml.models.fitted_model import Model

if TYPE_CHECKING:
    import onnx

def facts(located: LocatedModel, model: Model, params: Params) -> dict[str, Any]:
    """Everything that is known before the files are written."""
    from heartml.export.graph import QUALITY, check_names

    checks, limits = model.applicability, params.for_organ(model.task.organ).validate_
    return {
        "format": exported.FORMAT, "notice": NOTICE, "name": model.assignment_name, "version": located.version,
        "model": located.description, "unit": model.task.unit, "classes": list(model.task.classes),
        "positive": model.task.positive, "title": model.task.name,
        "checks": list(check_names(model.task.organ)), "quality": list(QUALITY), "states": list(STATES),
        "reasons": {**applicability.words(model.task.organ), "unsure": f"less sure than {model.refer_below:.0%}"},
        "signal_limits": asdict(checks.signal) if checks else {},
        "references": checks.to_json()["references"] if checks else [],
        "warnings": {"short_seconds": limits.short_seconds, "quiet_peak": limits.quiet_peak,
                     "clipped_share": limits.clipped_share, "dc_offset": limits.dc_offset,
                     "bandwidth_hz": limits.bandwidth_hz, "contrast_db": limits.contrast_db},
        "accepts": {"min_seconds": params.ingest.min_seconds, "silence_peak": params.ingest.silence_peak},
        "refer_below": model.refer_below, "cautions": list(located.public_cautions or located.cautions),
        "model_sha256": sha256_folder(located.folder), "heartml": importlib.metadata.version("heartml"),
        "licence": importlib.metadata.metadata("heartml")["License-Expression"], **_origin(located),
        **({"own_classes": True} if model.own_task else {}),     # names that nobody has translated
        **(_of_organ(model.task.organ, params) if model.task.organ != HEART else {}),
    }


def _of_organ(organ: Organ, params: Params) -> dict[str, Any]:
    """What the page says and draws otherwise: the organ, and up to which frequency."""
    return {"organ": organ, "picture_hz": params.organ(organ).band_hz[1]}


def _origin(located: LocatedModel) -> dict[str, Any]:
    """Run, data, code and the data's licences of a registered version; nothing of a folder."""
    if located.name is None or located.version is None:
        return {"run_id": None, "data": None, "commit": None, "data_licences": []}
    from heartml.registry import tracking, versions

    client = tracking.connect_to_existing()
    version = versions.get(client, f"{located.name}/{located.version}")
    run = tracking.read_run(client, version.run_id)
    tags = run.tags if run else {}
    return {"run_id": version.run_id, "data": tags.get("heartml.data"), "commit": tags.get("mlflow.source.git.commit"),
            "content_key": tags.get("heartml.key"), "data_licences": _licences(client, version.run_id)}


def _licences(client: Any, run_id: str) -> list[str]:
    from heartml.core.system.files import temporary_folder
    from heartml.registry import tracking

    if "card.json" not in tracking.list_files(client, run_id):
        return []
    with temporary_folder() as folder:
        card = read_json(tracking.fetch(client, run_id, "card.json", folder))
    return sorted({str(one["licence"]) for one in card["collections"]})


def file_facts(path: Path) -> dict[str, Any]:
    """Hash and size of one file."""
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def add_metadata(model: "onnx.ModelProto", known: dict[str, Any]) -> None:
    """Write what the model is into the ONNX file itself, so that a file that was passed on still says it."""
    import json

    wanted = ("notice", "name", "version", "run_id", "data", "commit", "model_sha256", "licence", "data_licences",
              "classes", "checks", "quality", "states", "unit", "student")
    for key in wanted:
        if known.get(key) is not None:
            entry = model.metadata_props.add()
            entry.key, value = f"heartml.{key}", known[key]
            entry.value = value if isinstance(value, str) else json.dumps(value)
    model.producer_name, model.producer_version = "heartml", str(known["heartml"])
    model.doc_string = f"{known['model']}. {known['notice']}"
