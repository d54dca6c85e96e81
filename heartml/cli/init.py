"""The command init: a folder of recordings becomes a collection that `heartml ingest generic` reads."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heartml.data.new_collection import Plan


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the data set; else the folder's.")
@click.option("--table", help="The CSV in FOLDER, where several name its sound files.")
@click.option("--label", metavar="COLUMN", help="The column with the classes.")
@click.option("--patient", metavar="COLUMN", help="The column with the patients; - for none.")
@click.option("--yes", is_flag=True, help="Ask nothing, take the guesses.")
@click.option("--force", is_flag=True, help="Overwrite what an earlier `heartml init` wrote.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and ask nothing.")
def init(folder: Path, name: str | None, table: str | None, label: str | None, patient: str | None, yes: bool,
         force: bool, as_json: bool) -> None:
    """Write the mapping file of a folder of recordings, so that its own classes can be learnt.

    FOLDER holds a CSV with one row for each recording, or one folder for each class. What the columns mean is guessed
    from their names and cells; on a terminal each guess can be corrected. The guesses stand in the file with their
    reasons. Sound files are not read, and none of yours is changed.

    \b
    Reads        FOLDER
    Writes       FOLDER/NAME.yaml; FOLDER/NAME_recordings.csv where there is no table, or patients come from file names
    Exit status  0: written; 1: the folder cannot become a collection; 2: wrong usage

    \b
    Example:
    heartml init ~/clinic && heartml ingest generic ~/clinic/clinic.yaml && heartml retrain
    """
    from heartml.data import new_collection

    chosen = {"name": name, "label": label, "patient": patient}
    made = new_collection.plan(folder, chosen, table)
    if not (yes or as_json) and _on_a_terminal():
        made = _ask(made, chosen, table)
    new_collection.write(made, force=force)
    if as_json:
        click.echo(json.dumps(new_collection.as_dict(made), indent=2))
    else:
        _show(made)


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _ask(made: "Plan", chosen: dict[str, str | None], table: str | None) -> "Plan":
    """The plan after a person has said yes or something else to each guess; a table's columns only."""
    from heartml.core.system.text import printable
    from heartml.data import new_collection
    from heartml.data.new_collection import NOTHING, ROLES

    folder, columns = made.survey.folder, [printable(column) for column in made.survey.columns]
    click.echo(f"{made.survey.table or 'folders'}: {len(made.survey.rows)} recordings. Enter takes the guess.")
    said = {**chosen, "name": click.prompt("name of the data set", default=made.name)}
    if made.survey.table is not None:
        click.echo(f"columns: {', '.join(columns)}; {NOTHING} is none")
        said["label"] = click.prompt(f"column with the classes ({made.label.reason})", default=made.label.column)
        for role in ROLES:
            guess = made.columns[role]
            if guess.column is not None or role == "patient":
                said[role] = click.prompt(f"column with the {role} ({guess.reason})", default=guess.column or NOTHING)
    if said.get("patient") == NOTHING and made.patients and chosen.get("patient") is None:
        file, person = next(iter(made.patients.items()))
        if click.confirm(f"is {printable(person)} the patient of {printable(file)}?", default=True):
            said["patient"] = None
    elif made.survey.table is None and made.patients:
        file, person = next(iter(made.patients.items()))
        if not click.confirm(f"is {printable(person)} the patient of {printable(file)}?", default=True):
            said["patient"] = NOTHING
    return new_collection.plan(folder, said, table)


def _show(made: "Plan") -> None:
    """Print the guesses with their reasons, the classes, what to know, and what comes next."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from heartml.core.system.text import printable
    from heartml.data import new_collection

    table = Table(title=Text(printable(f"data set {made.name}, task {made.name}-{made.task}")), title_justify="left",
                  show_edge=False, pad_edge=False)
    for heading in ("what", "column", "why"):
        table.add_column(heading, overflow="fold")
    said = new_collection.as_dict(made)["columns"]
    for role, guess in said.items():
        column = "from file names" if role == "patient" and made.patients else guess["column"] or "-"
        why = "" if role == "patient" and made.patients else guess["reason"]
        table.add_row(role, Text(printable(column)), Text(printable(why)))
    console = Console()
    console.print(table)
    counts = ", ".join(f"{name} {count}" for name, count in made.counts.items())
    lines = [f"classes: {counts}", *made.notes]
    files = new_collection.paths_of(made)
    lines += [f"written: {', '.join(map(str, files.values()))}",
              f"next: heartml ingest generic {files['mapping']} && heartml retrain"]
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


COMMANDS = (init,)
