"""Evaluations that no stage makes: a study's own protocol, leaving a collection out."""

from pathlib import Path

import click


@click.group()
def protocol() -> None:
    """Score our models by a published study's own protocol, on the publisher's files."""


@protocol.command("circor-m2d")
@click.argument("named", metavar="DIR", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--splits", "first", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="CSV...", help="One or several CSVs of patient_id,part (train, validation, test).")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each split.")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers to this file.")
def circor_m2d(named: tuple[Path, ...], first: Path, seeds: int, to: Path | None) -> None:
    """CirCor murmurs by the protocol of the M2D study (arXiv 2404.17107).

    DIR is CirCor in the publisher's layout, or any part of it. For each split: one network under the paper's rule and
    the ensemble, W.acc, UAR and recalls on its test patients, also without those whose twin id is in development,
    and the 2022 challenge's outcome cost. Run it in a project (it reads params.yaml). Killed: just run it again.

    \b
    heartml protocol circor-m2d DIR --splits split1.csv split2.csv split3.csv --json out.json
    """
    from heartml.core import config
    from heartml.core.system import files
    from heartml.evaluation.protocols import circor_m2d as study
    from heartml.evaluation.protocols import table

    folders, more = [p for p in named if p.is_dir()], [p for p in named if not p.is_dir()]
    if len(folders) != 1:
        raise click.UsageError(f"name one folder, not {len(folders)}")
    found = study.run(folders[0], [first, *more], config.load(), seeds)
    table.show(found)
    if to:
        files.write_json(to, found)


@click.command("leave-out")
@click.argument("task")
@click.option("--by", type=click.Choice(["dataset", "source"]), default="dataset", show_default=True,
              help="What is left out: data sets of the task, or sources within them (a sensor, a campaign).")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write every number to this file.")
def leave_out(task: str, by: str, to: Path | None) -> None:
    """Score TASK on each collection in turn, with a model that has learnt from the others alone.

    Search, ensemble and decision rule see nothing of what is left out; a group that is in it and elsewhere is left out
    whole. Beside it: the floors, and what the task's own model says of the same units. Takes a search a collection;
    killed, the same command goes on. Needs a task that was retrained.

    \b
    heartml leave-out circor+simulated-murmur --json left-out.json
    heartml leave-out physionet2016-normal --by source
    """
    from heartml.cli import tables
    from heartml.core.system.files import write_json
    from heartml.evaluation import leave_out as evaluation

    found = evaluation.run(task, "source" if by == "source" else "dataset")
    if to:
        write_json(to, found)
    tables.leave_out(found)


COMMANDS = (protocol, leave_out)
