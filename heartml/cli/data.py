"""Commands that bring data in: simulate, ingest, tasks."""

import json
from pathlib import Path

import click

from heartml.core.system.errors import HeartMLError


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--children", type=int, help="How many; one in twenty comes back under a second id.")
@click.option("--seed", type=int, help="Another seed, other children; the same seed, the same bytes.")
@click.option("--seconds", type=float, help="Length of a recording, give or take a fifth.")
@click.option("--faults/--no-faults", default=True, show_default=True, help="Plant faults for validation to find.")
def simulate(folder: Path, children: int | None, seed: int | None, seconds: float | None, faults: bool) -> None:
    """Write simulated children to FOLDER, laid out as CirCor is; numbers not given come from params.yaml.

    \b
    heartml simulate demo && heartml ingest simulated demo
    """
    from heartml.core import config
    from heartml.data.simulation import corpus as simulator

    params = config.load().simulate
    corpus = simulator.run(
        folder, count=params.children if children is None else children, seed=params.seed if seed is None else seed,
        seconds=params.seconds if seconds is None else seconds, faults=faults,
    )
    click.echo("\n".join(corpus.lines()))


@click.command()
@click.argument("dataset")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--download", is_flag=True, help="Fetch it from its publisher first; continues where it was interrupted.")
@click.option("--into", type=click.Path(path_type=Path), help="Where to download to; else .heartml/downloads.")
@click.option("--mirror", envvar="HEARTML_MIRROR", help="Another address with the publisher's files (HEARTML_MIRROR).")
@click.option("--keep-tasks", is_flag=True, help="Leave `tasks` in params.yaml alone.")
@click.option("--replace", is_flag=True, help="FOLDER is all there is: drop what was ingested before and is not in it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def ingest(dataset: str, folder: Path | None, download: bool, into: Path | None, mirror: str | None,
           keep_tasks: bool, replace: bool, as_json: bool) -> None:
    """Check FOLDER, in the publisher's layout, and make it the next version of the data (data.dvc).

    DATASET is simulated, circor, pascal, bmdhs, physionet2016, yaseen or generic. What is refused goes into quarantine
    with its reason. Running it again changes nothing; other data sets, and files that were ingested before, are kept.
    With a Prefect server configured (PREFECT_API_URL) this runs as the flow `ingest`.

    \b
    heartml ingest pascal ~/pascal
    heartml ingest circor --download
    heartml ingest generic ~/clinic/clinic.yaml

    generic is any labelled collection: a CSV with a row a recording, and beside it a mapping file, whose name becomes
    the data set's. Needed: title, citation, licence, table, columns.path, labels.

    \b
    title: Heart sounds of our clinic         # clinic.yaml
    citation: Personal communication (2026)
    licence: CC-BY-4.0
    table: recordings.csv
    columns: {path: file, patient: subject, group: family, location: site, age: age, sex: sex, source: device}
    values: {location: {apex: MV}, sex: {f: Female}}        # other values are kept as they are
    labels:
      murmur: {column: diagnosis, classes: {systolic murmur: Present, normal: Absent}}     # a task, its classes
    """
    from flows.support.private_server import configured
    from heartml.cli import tables

    if (folder is None) != download:
        raise click.UsageError("name FOLDER, or --download, and not both")
    if configured():
        from flows.support import run_local

        outcome = run_local.ingest(dataset, folder, into, mirror, keep_tasks=keep_tasks, replace=replace)
    else:
        from heartml.data import datasets
        from heartml.data import ingest as stage
        from heartml.data.ingest.download import fetch

        source = folder or fetch(datasets.load(dataset), into, mirror)
        outcome = stage.run(dataset, source, keep_tasks=keep_tasks, replace=replace)
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), indent=2))
    else:
        tables.ingest(outcome)
    if not outcome.recordings:
        raise HeartMLError(f"no recording of {dataset} passed the checks; data/quarantine.parquet says why")


@click.command()
@click.option("--use", multiple=True, metavar="NAME...", help="Train these: writes `tasks` of params.yaml.")
@click.argument("more", nargs=-1, metavar="")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def tasks(use: tuple[str, ...], more: tuple[str, ...], as_json: bool) -> None:
    """List the tasks that the ingested data allow, with the counts of their classes; or choose those to train.

    A task is named <data set>-<task>; data sets joined with + are used together. A group's name, such as
    bmdhs-diseases, stands for those of its tasks that the data can teach.

    \b
    heartml tasks
    heartml tasks --use circor-murmur bmdhs-diseases
    """
    from dataclasses import asdict

    from heartml.cli import tables
    from heartml.core import config
    from heartml.core.tasks import expand
    from heartml.data.ingest import available_tasks

    if more and not use:
        raise click.UsageError(f"--use {' '.join(more)}? Without --use this lists tasks.")
    wanted = (*use, *more)
    if wanted:
        config.set_tasks(available_tasks.choose(wanted, config.load().validate_.min_class_groups))
    params, allowed = config.load(), available_tasks.read()
    if as_json:
        click.echo(json.dumps([asdict(task) for task in allowed], indent=2))
    else:
        tables.tasks(allowed, params.tasks, params.validate_.min_class_groups)
        if wanted:
            tables.chosen(params.tasks, [name for name in expand(wanted) if name not in params.tasks])


COMMANDS = (simulate, ingest, tasks)
