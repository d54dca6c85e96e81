"""What the registry says of consent that was withdrawn since a version was made: one tag, patient by patient."""

import json
from typing import Any

from heartml.registry.versions import Version

TAG = "heartml.withdrawn"


def withdrawn(version: Version) -> dict[str, Any]:
    """Patient -> `recordings` (how many) and `in` (`training`, `held out`); empty where nobody has."""
    try:
        told = dict(json.loads(version.tags.get(TAG, "{}")))
    except (ValueError, TypeError):
        return {}
    return {str(patient): what for patient, what in told.items() if isinstance(what, dict)}


def words(version: Version) -> str:
    """For people: `circor-9979 (4 recordings, training)`, or what else the tag says; empty where nobody has."""
    if (text := version.tags.get(TAG, "{}")) != "{}" and not withdrawn(version):
        return text
    return ", ".join(f"{patient} ({told.get('recordings', '?')} recordings, {' and '.join(told.get('in', []))})"
                     for patient, told in sorted(withdrawn(version).items()))
