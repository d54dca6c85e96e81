"""Consent that was withdrawn after a version was registered: one tag of the version, written and read here.

The tag holds, by patient id, how many recordings were used and in which part (`training`, `held out`).
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from heartml.registry import versions
from heartml.registry.mlflow_store import store_lock
from heartml.registry.versions import Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "heartml.withdrawn"


def withdrawn_patients(version: Version) -> dict[str, Any]:
    """Patient id -> `recordings` (how many) and `in` (`training`, `held out`); empty if nobody withdrew consent."""
    try:
        noted = dict(json.loads(version.tags.get(TAG, "{}")))
    except (ValueError, TypeError):
        return {}
    return {str(patient): use for patient, use in noted.items() if isinstance(use, dict)}


def add_patient(client: "MlflowClient", name: str, patient: str, recordings: int, parts: Iterable[str]) -> None:
    """Add a patient who has withdrawn consent to the tag of one version.

    This is done under a lock. Otherwise, if two processes read the tag before either writes it, one patient is lost.

    Args:
        client: of the registry.
        name: of the version, `<task>/<number>`.
        patient: patient id.
        recordings: how many of the patient's recordings the version used.
        parts: in which parts: `training`, `held out`.
    """
    with store_lock("consent"):
        version = versions.get(client, name)
        patients = {**withdrawn_patients(version), patient: {"recordings": recordings, "in": list(parts)}}
        versions.set_tag(client, version, TAG, json.dumps(patients, sort_keys=True))


def describe(version: Version) -> str:
    """For people: `circor-9979 (4 recordings, training)`; empty if nobody withdrew consent.

    A tag that cannot be read is returned as it is.
    """
    if (text := version.tags.get(TAG, "{}")) != "{}" and not withdrawn_patients(version):
        return text
    return ", ".join(f"{patient} ({use.get('recordings', '?')} recordings, {' and '.join(use.get('in', []))})"
                     for patient, use in sorted(withdrawn_patients(version).items()))
