"""The link between an exported model and the registered version that it was made from."""

from pathlib import Path
from typing import Any

from heartml.audit.evidence import Evidence
from heartml.audit.links import LinkBroken, LinkMissing
from heartml.core.system.errors import HeartMLError
from heartml.inference import exported, predict_exported
from heartml.inference.exported import ExportError
from heartml.registry import tracking

MODEL_TAG = "heartml.sha256.model"


def version_of(folder: Path) -> str:
    """`NAME/VERSION` of the version that was exported into a folder.

    Raises:
        ExportError: the folder holds no export, or one that was made of a model in no registry.
    """
    facts = _statement(folder)
    if not (facts.get("name") and facts.get("version") and facts.get("run_id")):
        raise ExportError(f"{folder}: exported from a model that is in no registry, so nothing stands behind it. "
                          "Export a registered version: `heartml models` lists them")
    return f"{facts['name']}/{facts['version']}"


def check(folder: Path, evidence: Evidence) -> str:
    """The files are those that were signed, and they were made of this version's model."""
    try:
        facts = exported.read_statement(folder)
        if not (folder / exported.SIGNATURE).is_file():
            raise LinkMissing(f"{folder}: not signed (no {exported.SIGNATURE})")
        predict_exported.verify(folder, again=True)
    except HeartMLError as error:
        if isinstance(error, LinkMissing):
            raise
        raise LinkBroken(str(error)) from None
    run = tracking.read_run(evidence.client, evidence.version.run_id)
    known = {"run_id": evidence.version.run_id, "version": evidence.version.number,
             "model_sha256": run.tags.get(MODEL_TAG) if run else None}
    for key, expected in known.items():
        if facts[key] != expected:
            raise LinkBroken(f"{folder}: {key} is {facts[key]}, and that of the registered version is {expected}")
    made = "by a student of" if facts.get("student") else "of"
    return f"{len(facts['files'])} files as signed, made {made} model {str(facts['model_sha256'])[:16]}"


def _statement(folder: Path) -> dict[str, Any]:
    return dict(exported.read_statement(folder, with_files=False))
