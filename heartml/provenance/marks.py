"""What the registry says of consent that was withdrawn since a version was made: one tag, patient by patient."""

import json
from typing import Any

from heartml.registry import Version

TAG = "heartml.withdrawn"


def withdrawn(version: Version) -> dict[str, Any]:
    """Patient -> `recordings` (how many) and `in` (`training`, `held out`); empty where nobody has."""
    try:
        return dict(json.loads(version.tags.get(TAG, "{}")))
    except (ValueError, TypeError):
        return {}


def words(version: Version) -> str:
    """For people: `circor-9979 (4 recordings in training)`; empty where nobody has withdrawn."""
    return ", ".join(f"{patient} ({told['recordings']} recordings in {' and '.join(told['in'])})"
                     for patient, told in sorted(withdrawn(version).items()))
