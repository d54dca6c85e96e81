"""A request's files -> an answer: names are checked, bytes are written into a folder of their own and read there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartml.core.schema import LOCATIONS
from heartml.core.system import cells
from heartml.core.system.cells import CellError
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import temporary_folder
from heartml.core.system.text import short
from heartml.inference import inputs, output, predict_exported
from heartml.inference.inputs import InputFile
from heartml.server.served import Served

MAX_FILES = 32                    # of one request: more recordings than a visit has
MAX_BYTES = 100_000_000           # of one request: twenty minutes at 44.1 kHz
MAX_NAME = 200                    # bytes of a file's name, characters of a patient's


class BadRequest(HeartMLError):  # noqa: N818 - HTTP's own word
    """A request that cannot be answered; the message says what is wrong with it."""


@dataclass(frozen=True)
class Upload:
    """One file of a request.

    Attributes:
        name: as the sender gave it, for messages and answers; never used as a path.
        content: the bytes of the file.
        patient_id, location: where given.
    """

    name: str
    content: bytes
    patient_id: str | None = None
    location: str | None = None


def check(
    names: Sequence[str], patients: Sequence[str], locations: Sequence[str]
) -> list[tuple[str | None, str | None]]:
    """Patient and location of each file `[n]`.

    Args:
        names: of the files `[n]`.
        patients, locations: none at all, one for all files, or one for each.

    Raises:
        BadRequest: their numbers do not fit, a name cannot be used, or a location is none of the known ones.
    """
    if not 0 < len(names) <= MAX_FILES:
        raise BadRequest(f"{len(names)} files in one request, not 1 to {MAX_FILES}: send them as `file`")
    for what, given in (("patient_id", patients), ("location", locations)):
        if len(given) not in (0, 1, len(names)):
            raise BadRequest(f"{len(given)} values of `{what}` for {len(names)} files: give none, one, or one for each")
    for name in names:
        plain = name and Path(name).name == name and not name.startswith(".") and name.isprintable()
        if not plain or len(name.encode()) > MAX_NAME:
            raise BadRequest(f"{short(name)}: no plain file name")
        if names.count(name) > 1:
            raise BadRequest(f"{short(name)}: two files have this name")
    return list(zip(map(_patient, _for_each(patients, len(names))), map(_location, _for_each(locations, len(names))),
                    strict=True))


def _for_each(given: Sequence[str], count: int) -> Sequence[str]:
    return [""] * count if not given else list(given) * count if len(given) == 1 else given


def _patient(cell: str) -> str | None:
    if len(cell) > MAX_NAME or not cell.isprintable():
        raise BadRequest(f"patient_id: {short(cell)} is no name of up to {MAX_NAME} characters")
    try:
        return cells.identifier(cell)
    except CellError as error:
        raise BadRequest(f"patient_id: {error}") from None


def _location(cell: str) -> str | None:
    found = cells.choice(cell, LOCATIONS)
    if found is None and not cells.is_missing(cell):
        raise BadRequest(f"location: {short(cell)} is none of {', '.join(LOCATIONS)}")
    return found


def answer(uploads: Sequence[Upload], served: Served) -> dict[str, Any]:
    """What `heartml predict --json` says of these files, under the names that the sender gave them."""
    with temporary_folder() as folder:
        items = [_written(one, folder / f"{number}") for number, one in enumerate(uploads)]
        result = predict_exported.predict_files(items, served.model, served.located, served.params)
        values = output.as_values(result)
        for number, one in enumerate(uploads):
            values = _renamed(values, f"{folder / str(number)}", one.name)
        return values


def _written(upload: Upload, path: Path) -> InputFile:
    """The bytes in a file with a name of our own: what the sender calls it decides nothing but patient and location."""
    path.write_bytes(upload.content)
    named = inputs.from_name(Path(upload.name))
    patient = upload.patient_id or named.patient_id
    return InputFile(path, patient, upload.location or named.location, path.parent if patient else None)


def _renamed(value: Any, path: str, name: str) -> Any:
    """The same values with the sender's name in the place of our path."""
    if isinstance(value, dict):
        return {key: _renamed(one, path, name) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, path, name) for one in value]
    return name if value == path else value
