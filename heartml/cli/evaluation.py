"""Evaluations outside the stages: the protocol of a published study, and leaving a collection out."""

from pathlib import Path

import click


@click.group()
def protocol() -> None:
    """Score our models by the protocol of a published study."""


@protocol.command("circor-m2d")
@click.argument("named", metavar="DIR", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--splits", "first", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              metavar="CSV...", help="One or several CSVs of patient_id,part (train, validation, test).")
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Number of runs of each split.")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write all numbers to this file.")
def circor_m2d(named: tuple[Path, ...], first: Path, seeds: int, to: Path | None) -> None:
    """CirCor murmurs by the protocol of the M2D study (arXiv 2404.17107).

    DIR is CirCor in the publisher's layout, or a part of it. For each split it trains one network with the paper's
    decision rule, and the ensemble. It prints weighted accuracy, UAR and recalls on the test patients, the same without
    patients whose second id is in the development part, and the outcome cost of the 2022 challenge. After a kill, the
    same command goes on.

    \b
    Reads        DIR, the CSVs, params.yaml (run it in a project)
    Writes       finished runs in .heartml/protocol; with --json all numbers
    Exit status  0: done; 1: it could not be done; 2: wrong usage

    \b
    Example:
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
              help="What to leave out: data sets of the task, or sources within them (a sensor, a campaign).")
@click.option("--json", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write every number to this file.")
def leave_out(task: str, by: str, to: Path | None) -> None:
    """Score TASK on each collection by a model trained on the others.

    Search, ensemble and decision rule use nothing of the collection that is left out. A group with recordings in it and
    elsewhere is left out as a whole. For comparison it prints the baselines, and the task's own model on the same
    units, predicted out-of-fold. It takes one search for each collection. After a kill, the same command goes on.

    \b
    Reads        data/, params.yaml, artifacts/TASK (run `heartml retrain` first)
    Writes       finished runs in .heartml/leave-out; with --json all numbers
    Exit status  0: done; 1: it could not be done; 2: wrong usage

    \b
    Examples:
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
