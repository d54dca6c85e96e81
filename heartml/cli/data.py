"""Commands that bring data in: simulate, ingest, tasks."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--children", type=int, help="Number of children; one in twenty has a second id as well.")
@click.option("--seed", type=int, help="The same seed gives the same bytes.")
@click.option("--seconds", type=float, help="Length of a recording in seconds, plus or minus a fifth.")
@click.option("--faults/--no-faults", default=None, help="Add faults for the checks to find (hearts: yes).")
@click.option("--organ", type=click.Choice(["hearts", "lungs"]), default="hearts", show_default=True,
              help="What is heard: hearts in CirCor's layout, or lungs.")
def simulate(folder: Path, children: int | None, seed: int | None, seconds: float | None, faults: bool | None,
             organ: str) -> None:
    """Write recordings of simulated children to FOLDER: of their hearts in CirCor's layout, or of their lungs.

    \b
    Reads        section `simulate` of params.yaml, for numbers that are not given
    Writes       FOLDER: sound files, segmentations, a table of patients
    Exit status  0: written; 1: it could not be done

    \b
    Example:
    heartml simulate demo && heartml ingest simulated demo
    heartml simulate breaths --organ lungs && heartml ingest simulated-lungs breaths
    """
    from heartml.core import config
    from heartml.data.simulation import corpus, lung_corpus

    params = config.load().simulate
    count, seed = params.children if children is None else children, params.seed if seed is None else seed
    seconds = params.seconds if seconds is None else seconds
    if organ == "lungs" and faults:
        raise click.UsageError("--faults: none are planted among lungs")
    made = (lung_corpus.run(folder, count=count, seed=seed, seconds=seconds) if organ == "lungs" else
            corpus.run(folder, count=count, seed=seed, seconds=seconds, faults=faults is not False))
    click.echo("\n".join(made.lines()))


@click.command()
@click.argument("dataset")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--download", is_flag=True, help="Download it from its publisher first; an interrupted download goes on.")
@click.option("--into", type=click.Path(path_type=Path), help="Folder to download to; else .heartml/downloads.")
@click.option("--mirror", envvar="HEARTML_MIRROR", help="Another URL with the publisher's files (HEARTML_MIRROR).")
@click.option("--keep-tasks", is_flag=True, help="Do not change `tasks` in params.yaml.")
@click.option("--replace", is_flag=True, help="FOLDER is complete: drop what was ingested earlier and is not in it.")
@click.option("--dry-run", is_flag=True, help="Only show what would be taken and refused; nothing is written.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def ingest(dataset: str, folder: Path | None, download: bool, into: Path | None, mirror: str | None,
           keep_tasks: bool, replace: bool, dry_run: bool, as_json: bool) -> None:
    """Check a data set and make it part of the next version of the data.

    DATASET is simulated, circor, pascal, bmdhs, physionet2016, yaseen or generic, or of lungs, coughs and breath icbhi,
    sprsound, kauh, coswara, coughvid, hls-cmds or simulated-lungs. FOLDER holds it in its publisher's layout. A
    recording that fails the entry checks goes into quarantine with its reason. Recordings with near-duplicate audio
    join one group. Other data sets, and files that were ingested earlier, are kept. The same FOLDER again changes
    nothing, nor does a FOLDER of which no recording passes. With a Prefect server (PREFECT_API_URL) this runs there as
    the flow `ingest`; a dry run always runs here.

    \b
    Reads        FOLDER, or the publisher's server (--download)
    Writes       data/ (recordings, annotations, quarantine), data.dvc, `tasks` in params.yaml
    Exit status  0: done; 1: no recording passed the checks, or it could not be done; 2: wrong usage

    \b
    Examples:
    heartml ingest pascal ~/pascal
    heartml ingest circor --download
    heartml ingest generic ~/clinic/clinic.yaml

    generic stands for any labelled collection: a CSV with one row for each recording and a mapping file, both in one
    folder. The name of the mapping file is the name of the data set. The file must have title, citation, licence,
    table, columns.path, and labels or tasks. `heartml init FOLDER` writes one.

    \b
    title: Heart sounds of our clinic         # clinic.yaml
    citation: Personal communication (2026)
    licence: CC-BY-4.0
    table: recordings.csv
    columns: {path: file, patient: subject, group: family, location: site, age: age, sex: sex, source: device}
    values: {location: {apex: MV}, sex: {w: Female}}        # '' is nothing; see docs/collections.md
    labels:
      murmur: {column: diagnosis, classes: {systolic murmur: Present, normal: Absent}}     # a task, its classes
    tasks:                                                  # or a task of your own, with any classes
      pedal: {column: finding, classes: [click, rumble, none], positive: rumble}
    """
    from flows.support.private_server import configured
    from heartml.cli import tables

    if (folder is None) != download:
        raise click.UsageError("name either FOLDER or --download")
    if configured() and not dry_run:
        from flows.support import run_local

        outcome = run_local.ingest(dataset, folder, into, mirror, keep_tasks=keep_tasks, replace=replace)
    else:
        from heartml.data import datasets
        from heartml.data import ingest as stage
        from heartml.data.ingest.download import fetch

        source = folder or fetch(datasets.load(dataset), into, mirror)
        outcome = stage.run(dataset, source, keep_tasks=keep_tasks, replace=replace, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), indent=2))
    else:
        tables.ingest(outcome)


@click.command()
@click.option("--use", multiple=True, metavar="NAME...", help="Train these tasks: writes `tasks` of params.yaml.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def tasks(use: tuple[str, ...], more: tuple[str, ...], as_json: bool) -> None:
    """List the tasks that the ingested data allow, or choose those to train.

    A task is named <data set>-<task>. Data sets joined with + are used together. The name of a group of tasks, such as
    bmdhs-diseases, stands for those of its tasks that have enough data.

    \b
    Reads        data/, params.yaml
    Writes       nothing; with --use `tasks` of params.yaml
    Exit status  0: done; 1: there is no such task, or too few data for it; 2: wrong usage

    \b
    Examples:
    heartml tasks
    heartml tasks --use circor-murmur bmdhs-diseases
    """
    from dataclasses import asdict

    from heartml.cli import tables
    from heartml.core import config
    from heartml.core.tasks import expand_groups
    from heartml.data.ingest import available_tasks

    if more and not use:
        raise click.UsageError(f"to choose tasks, write --use {' '.join(more)}; without --use this command lists tasks")
    wanted = (*use, *more)
    if wanted:
        config.set_tasks(available_tasks.select_tasks(wanted, config.load().validate_.min_class_groups))
    params, allowed = config.load(), available_tasks.read()
    if as_json:
        click.echo(json.dumps([asdict(task) for task in allowed], indent=2))
    else:
        tables.tasks(allowed, params.tasks, params.validate_.min_class_groups)
        if wanted:
            tables.chosen_tasks(params.tasks, [name for name in expand_groups(wanted) if name not in params.tasks])


COMMANDS = (simulate, ingest, tasks)
