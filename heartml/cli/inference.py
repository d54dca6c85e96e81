"""Commands that a schedule runs with a finished model: score, monitor."""

import json
import sys
from pathlib import Path

import click

DRIFTED = 3      # exit status
_MODEL = click.option("--model", "wanted", help="A folder, NAME, NAME@ALIAS or NAME/VERSION; else the task's champion.")
_TASK = click.option("--task", help="Whose champion, where params.yaml names several tasks.")


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--to", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.parquet",
              help="The table to write; one that is there is replaced when the new one is whole.")
@_MODEL
@_TASK
@click.option("--json", "as_json", is_flag=True, help="Print what the run came to as JSON.")
def score(source: Path, to: Path, wanted: str | None, task: str | None, as_json: bool) -> None:
    """Score every recording of a folder or a table, once for each model: a Parquet table of probabilities.

    SOURCE is a folder of sound files, or a CSV with a column `path` and, where known, `patient_id` and `location`. One
    row for each file, in their order; a file that cannot be scored is a row that says why. The columns are described in
    heartml/inference/score_table.py, and what the run did stands in OUT.run.json.

    Answers are kept by content under .heartml/scores: run it again over a folder with five new files and five are
    scored, under whatever names. Killed: run it again. A second run with the same model waits. With PREFECT_API_URL it
    is a Prefect flow there, otherwise it needs no server.

    Exit status 0: the table is written; 1: it is not, and one line says why. Not a medical device.

    \b
    heartml score incoming/ --to scores.parquet
    heartml score visits.csv --to scores.parquet --model circor-murmur/3 --json
    """
    from dataclasses import asdict

    from flows.support import private_server
    from heartml.inference import batch

    if private_server.configured():
        private_server.check()
        from flows.score import score as flow
        from flows.support import stale_runs

        with stale_runs.signed():
            found = flow(source, to, wanted, task)
    else:
        found = batch.run(source, to, wanted, task)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        click.echo(f"{found.table}: {found.files} files, {found.units} units ({found.scored} scored now, {found.known} "
                   f"known from before), {found.faults} files that cannot be scored\nModel: {found.model}. "
                   "Not a medical device: for research, not for diagnosis.")


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@_MODEL
@_TASK
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the page with the pictures there.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def monitor(source: Path, wanted: str | None, task: str | None, html: Path | None, as_json: bool) -> None:
    """Compare new recordings with what a model learnt from: signals, embeddings, predictions.

    SOURCE is what `heartml score` takes, and is scored as there: nothing twice. Recordings that the model learnt from
    or was tested on are left out; of each patient one recording is drawn. A drift is certain and large, see `monitor`
    in params.yaml. With PREFECT_API_URL it is a Prefect flow there that tells of a drift by the event heartml.drift.

    Exit status 0: no drift, or not enough to say; 3: drift; 1: it could not be done, and one line says why.

    \b
    heartml monitor incoming/ --html monitor.html
    heartml monitor visits.csv --model circor-murmur@champion --json
    """
    from flows.support import private_server
    from heartml.core import config
    from heartml.inference import monitoring as watching
    from heartml.inference.monitoring import drift, page, show

    params = config.load().monitor
    if private_server.configured():
        private_server.check()
        from flows.monitor import monitor as flow
        from flows.support import stale_runs

        with stale_runs.signed():
            watch = flow(source, wanted, task, html)
    else:
        compared = watching.run(source, wanted, task)
        watch = compared.watch
        if html:
            page.write(compared, params, html)
    if as_json:
        click.echo(json.dumps(watch.as_json(), indent=2))
    else:
        show.show(watch, params)
    sys.exit(DRIFTED if watch.verdict == drift.DRIFT else 0)


COMMANDS = (score, monitor)
