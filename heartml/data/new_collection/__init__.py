"""Make a collection of a folder: `heartml init FOLDER` writes the mapping file that `heartml ingest generic` reads.

In: a folder with a table and sound files, or with one folder for each class. Out: `FOLDER/<name>.yaml`, and
`FOLDER/<name>_recordings.csv` where there is no table or patients come from the names of files. No file of a user is
changed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartml.core.system.files import replacing
from heartml.core.system.text import short
from heartml.data.datasets import DATASETS, generic
from heartml.data.new_collection import guesses, mapping_text, survey
from heartml.data.new_collection.guesses import NOTHING, ROLES, Plan
from heartml.data.new_collection.survey import CollectionFolderError, Survey

__all__ = ["NOTHING", "ROLES", "CollectionFolderError", "Plan", "Survey", "as_dict", "paths_of", "plan", "write"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def plan(folder: Path, chosen: Mapping[str, str | None], table: str | None = None) -> Plan:
    """What the mapping file of a folder would say.

    Args:
        chosen: `name`, `label` or a role -> what a person says; `None`: guess; `NOTHING`: there is none.
        table: name of the table in the folder; `None`: the only one that names sound files.

    Raises:
        CollectionFolderError: the folder cannot become a collection; the message names the way out.
    """
    name = chosen.get("name")
    if name and (not _NAME.fullmatch(name) or name in DATASETS):
        raise CollectionFolderError(f"--name {short(name)}: small letters, digits and _, at most 40, a letter first, "
                                    f"and none of {', '.join(DATASETS)}")
    return guesses.plan(survey.read(folder, table), chosen)


def paths_of(made: Plan) -> dict[str, Path]:
    """The files that `write` writes: `mapping`, and `table` where one is needed."""
    folder = made.survey.folder
    found = {"mapping": folder / f"{made.name}.yaml"}
    return found if mapping_text.table(made) is None else {**found, "table": folder / mapping_text.table_name(made)}


def write(made: Plan, *, force: bool = False) -> Path:
    """Write the files of a plan and read them back; returns the mapping file.

    Raises:
        CollectionFolderError: one of them is there, and `force` is not given.
    """
    wanted = paths_of(made)
    there = [path.name for path in wanted.values() if path.exists()]
    if there and not force:
        raise CollectionFolderError(f"{made.survey.folder}: {' and '.join(there)} is there, and nothing is overwritten "
                                    "without --force. Or choose another --name")
    texts = {"mapping": mapping_text.mapping(made), "table": mapping_text.table(made) or ""}
    for what, path in reversed(wanted.items()):      # a mapping file never names a table that is not there yet
        with replacing(path) as temporary:
            temporary.write_text(texts[what], encoding="utf-8")
    generic.open_collection(wanted["mapping"])
    return wanted["mapping"]


def as_dict(made: Plan) -> dict[str, Any]:
    """For `--json`: the files, the task with its classes, and each role's column with the reason."""
    roles = {"path": {"column": made.survey.path, "reason": f"names {made.survey.named} files"},
             "label": {"column": made.label.column, "reason": made.label.reason, "others": list(made.label.others)}}
    roles |= {role: {"column": guess.column, "reason": guess.reason, "others": list(guess.others)}
              for role, guess in made.columns.items()}
    return {
        "name": made.name, "task": f"{made.name}-{made.task}", "classes": dict(made.counts), "positive": made.positive,
        "columns": roles, "values": {role: dict(of) for role, of in made.values.items()},
        "patients_from_names": len(set(made.patients.values())), "notes": list(made.notes),
        "files": {what: str(path) for what, path in paths_of(made).items()},
        "next": f"heartml ingest generic {paths_of(made)['mapping']}",
    }
