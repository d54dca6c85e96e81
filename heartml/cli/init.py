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
@click.option("--force", is_flag=True, help="Overwrite what an earlier `heartml init` wrote; never your own files.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and ask nothing.")
def init(folder: Path, name: str | None, table: str | None, label: str | None, patient: str | None, yes: bool,
         force: bool, as_json: bool) -> None:
    """Write the mapping file of a folder of recordings, so that its own classes can be learnt.

    FOLDER holds a CSV with one row for each recording, or one folder for each class. What the columns mean is guessed
    from their names and cells; on a terminal each guess can be corrected. The guesses stand in the file with their
    reasons. No file of yours is changed. Where data/ has a data set of that name from another folder, another name is
    guessed.

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
    """The plan after a person has said yes or something else to each guess; a table's columns only.

    An answer that cannot be is asked for again at once.
    """
    from heartml.core.system.text import printable
    from heartml.data import new_collection
    from heartml.data.new_collection import NOTHING, ROLES

    columns = [printable(column) for column in made.survey.columns]
    click.echo(f"{made.survey.table or 'folders'}: {len(made.survey.rows)} recordings. Enter takes the guess.")
    said = dict(chosen)
    _prompt("name of the data set", made, said, "name", made.name)
    if made.survey.table is not None:
        click.echo(f"columns: {', '.join(columns)}; {NOTHING} is none")
        _prompt(f"column with the classes ({made.label.reason})", made, said, "label", str(made.label.column))
        _ask_about_none(made, said)
        for role in ROLES:
            guess = made.columns[role]
            if guess.column is not None or role == "patient":
                _prompt(f"column with the {role} ({guess.reason})", made, said, role, guess.column or NOTHING)
    if made.patients and said.get("patient") in (None, NOTHING) and chosen.get("patient") is None:
        file, person = next(iter(made.patients.items()))
        taken = click.confirm(f"is {printable(person)} the patient of {printable(file)}?", default=True)
        said["patient"] = None if taken else NOTHING
    return new_collection.plan_of(made.survey, said)


def _prompt(question: str, made: "Plan", said: dict[str, str | None], key: str, guess: str) -> None:
    """Ask until the answer is one with which there is a plan, and keep it in `said`."""
    from heartml.data import new_collection

    def checked(answer: str) -> str:
        try:
            new_collection.plan_of(made.survey, {**said, key: answer})
        except new_collection.CollectionFolderError as error:
            raise click.UsageError(str(error)) from None
        return answer

    answer = click.prompt(question, default=guess, value_proc=checked)
    if answer != guess:                    # a guess that is taken keeps its reason
        said[key] = answer


def _ask_about_none(made: "Plan", said: dict[str, str | None]) -> None:
    """Where cells are empty and others have the word `none`, a person says whether that is a class."""
    from heartml.data import new_collection

    label = new_collection.plan_of(made.survey, said).label.column or ""
    both = new_collection.empty_and_none(made.survey.cells_with_nothing(label))
    if all(both):
        empty, none = both
        answer = click.confirm(f"{none} rows have the word none, and {empty} are empty: is none a class?",
                               default=none > empty)
        said["none"] = "none" if answer else new_collection.NOTHING


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
