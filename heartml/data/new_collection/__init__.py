"""Make a collection of a folder: `heartml init FOLDER` writes the mapping file that `heartml ingest generic` reads.

In: a folder with a table and sound files, or with one folder for each class. Out: `FOLDER/<name>.yaml`, and
`FOLDER/<name>_recordings.csv` where there is no table or patients come from the names of files. No file of a user is
changed.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from heartml.core.system.files import replacing
from heartml.core.system.text import short
from heartml.data.datasets import DATASETS, generic
from heartml.data.new_collection import guesses, mapping_text, names, survey
from heartml.data.new_collection.guesses import NOTHING, ROLES, Plan
from heartml.data.new_collection.survey import CollectionFolderError, Survey
from heartml.data.new_collection.words import empty_and_none

__all__ = ["NOTHING", "ROLES", "CollectionFolderError", "Plan", "Survey", "as_dict", "empty_and_none", "paths_of",
           "plan", "plan_of", "write"]


def plan(folder: Path, chosen: Mapping[str, str | None], table: str | None = None) -> Plan:
    """What the mapping file of a folder would say.

    Args:
        chosen: `name`, `label` or a role -> what a person says; `None`: guess; `NOTHING`: there is none.
        table: name of the table in the folder; `None`: the only one that names sound files.

    Raises:
        CollectionFolderError: the folder cannot become a collection; the message names the way out.
    """
    return plan_of(survey.read(folder, table), chosen)


def plan_of(found: Survey, chosen: Mapping[str, str | None]) -> Plan:
    """The same for a folder that was looked into.

    Raises:
        CollectionFolderError: as of `plan`.
    """
    name = chosen.get("name")
    if name and not names.is_name(name):
        raise CollectionFolderError(f"--name {short(name)}: small letters, digits and _, at most 40, a letter first, "
                                    f"and none of {', '.join(DATASETS)}")
    made = guesses.plan(found, chosen)
    return replace(made, notes=(*_about_name(made), *made.notes)) if name else _with_free_name(made)


def _with_free_name(made: Plan) -> Plan:
    name = names.free(made.survey)
    note = (f"data/ has another data set {made.name}, whose files are not those of this folder, so this one is {name}. "
            f"If it is more of {made.name}, add --name {made.name}",) if name != made.name else ()
    return replace(made, name=name, notes=(*note, *made.notes))


def _about_name(made: Plan) -> tuple[str, ...]:
    return (f"data/ has a data set {made.name} already, whose files are not those of this folder. Ingest adds to it; "
            "equal ids of patients are then one person. Another --name keeps the two apart",) \
        if names.of_another_folder(made.name, made.survey) else ()


def paths_of(made: Plan) -> dict[str, Path]:
    """The files that `write` writes: `mapping`, and `table` where one is needed."""
    folder = made.survey.folder
    found = {"mapping": folder / f"{made.name}.yaml"}
    return found if mapping_text.table(made) is None else {**found, "table": folder / mapping_text.table_name(made)}


def write(made: Plan, *, force: bool = False) -> Path:
    """Write the files of a plan and read them back; returns the mapping file.

    The former mapping file goes first, and the new one comes last, so that none ever stands beside another's table.

    Args:
        force: overwrite files that `heartml init` wrote; never those of a user.

    Raises:
        CollectionFolderError: one of them is there, and `force` is not given or `heartml init` did not write it.
    """
    wanted = paths_of(made)
    _refuse_what_is_there(made.survey.folder, made.name, wanted, force=force)
    texts = {"mapping": mapping_text.mapping(made), "table": mapping_text.table(made) or ""}
    with ExitStack() as both:      # it is left in the opposite order: the table first
        for what, path in wanted.items():
            both.enter_context(replacing(path)).write_text(texts[what], encoding="utf-8")
        wanted["mapping"].unlink(missing_ok=True)
    generic.open_collection(wanted["mapping"])
    return wanted["mapping"]


def _refuse_what_is_there(folder: Path, name: str, wanted: Mapping[str, Path], *, force: bool) -> None:
    there = {what: path for what, path in wanted.items() if path.exists() or path.is_symlink()}
    ours = {"mapping": survey.is_ours(folder, name), "table": survey.wrote_table(folder, name)}
    others = [path.name for what, path in there.items() if not ours[what] or path.is_dir() or path.is_symlink()]
    if others:
        raise CollectionFolderError(f"{folder}: {' and '.join(others)} is there, `heartml init` did not write it, and "
                                    "so does not overwrite it. Choose another --name")
    if there and not force:
        raise CollectionFolderError(f"{folder}: {' and '.join(path.name for path in there.values())} is there, and "
                                    "nothing is overwritten without --force. Or choose another --name")


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
