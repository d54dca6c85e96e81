"""Small files beside recordings: lists without a header line, and JSON objects. What cannot be read is refused."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartml.data.datasets import PublisherFolder

_SEPARATOR = re.compile(r"[,;\t ]+")


def fields(source: PublisherFolder, path: Path) -> list[list[str]]:
    """The lines of a list whose fields are separated by commas, semicolons, tabs or spaces; none if it is missing."""
    return [_SEPARATOR.split(line.strip()) for line in source.text(path, None).splitlines() if line.strip()]


def json_object(source: PublisherFolder, path: Path, patient_id: str | None) -> Mapping[str, Any]:
    """The object in a JSON file; empty where the file is missing, or holds no object and is refused."""
    text = source.text(path, patient_id)
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        source.refuse(source.relative(path), patient_id, "unreadable", f"not JSON: {str(error)[:200]}")
        return {}
    if not isinstance(found, dict):
        source.refuse(source.relative(path), patient_id, "unreadable", "its JSON is no object")
        return {}
    return found
