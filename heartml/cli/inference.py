"""Commands that a schedule runs with a finished model: score, monitor."""

import json
import sys
from pathlib import Path

import click

DRIFTED = 3      # exit status
_MODEL = click.option("--model", "wanted", help="A folder, NAME, NAME@ALIAS or NAME/VERSION; else the task's champion.")
_TASK = click.option("--task", help="The task whose champion is used, where params.yaml names several tasks.")


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--to", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.parquet",
              help="The table to write; an existing one is replaced when the new one is complete.")
@_MODEL
@_TASK
@click.option("--json", "as_json", is_flag=True, help="Print a summary of the run as JSON.")
def score(source: Path, to: Path, wanted: str | None, task: str | None, as_json: bool) -> None:
    """Write a table of predictions for many recordings.

    SOURCE is a folder of sound files, or a CSV or TSV with a column `path` and optionally `patient_id` and `location`.
    The table has one row for each file, in the order of the files. A file that cannot be scored has a row with the
    reason. heartml/inference/score_table.py describes the columns.

    Predictions are cached by content in .heartml/scores. When five files are new, five are scored, whatever the files
    are called. After a kill, the same command goes on. A second run with the same model waits. With PREFECT_API_URL
    this runs as a Prefect flow on that server; otherwise it needs no server.

    Not a medical device.

    \b
    Reads        SOURCE, the model, params.yaml
    Writes       OUT.parquet (the table) and OUT.run.json (when, with which model, how many)
    Exit status  0: the table is written; 1: it is not, one line says why; 2: wrong usage

    \b
    Examples:
    heartml score incoming/ --to scores.parquet
    heartml score visits.csv --to scores.parquet --model circor-murmur/3 --json
    """
    from dataclasses import asdict

    if to.suffix.lower() in (".csv", ".tsv", ".json", ".xlsx"):
        raise click.BadParameter(f"the table is written as Parquet: name it {to.with_suffix('.parquet').name}",
                                 param_hint="--to")
    from flows.support import private_server
    from heartml.inference import batch
    from heartml.inference.predict import NOTICE

    if private_server.configured():
        from flows.support import run_local

        summary = run_local.score(source, to, wanted, task)
    else:
        summary = batch.run(source, to, wanted, task)
    if as_json:
        click.echo(json.dumps(asdict(summary), indent=2))
    else:
        click.echo(f"{summary.table}: {summary.files} files, {summary.units} units ({summary.scored} scored now, "
                   f"{summary.known} known from before), {summary.referred} referred to a human, "
                   f"{summary.faults} files that cannot be scored\n"
                   f"Model: {summary.model}. {NOTICE}")
        for words in summary.cautions:
            click.echo(f"Caution: {words}")


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@_MODEL
@_TASK
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with plots to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def monitor(source: Path, wanted: str | None, task: str | None, html: Path | None, as_json: bool) -> None:
    """Compare new recordings with a model's training data.

    Signals, embeddings and predictions are compared. SOURCE is what `heartml score` takes, and is scored in the same
    way, nothing twice. Recordings that the model was trained or tested on are left out. Of each patient one recording
    is compared. A difference counts as drift when it is certain and large; section `monitor` of params.yaml has the
    limits. With PREFECT_API_URL this runs as a Prefect flow on that server, which emits the event heartml.drift.

    \b
    Reads        SOURCE, the model with its reference, params.yaml
    Writes       the cache in .heartml/scores; the page where --html names a file (with PREFECT_API_URL always,
                 as reports/TASK-monitor.html)
    Exit status  0: no drift, or too few recordings to say; 3: drift; 1: it could not be done, one line says
                 why; 2: wrong usage

    \b
    Examples:
    heartml monitor incoming/ --html monitor.html
    heartml monitor visits.csv --model circor-murmur@champion --json
    """
    from flows.support import private_server
    from heartml.core import config
    from heartml.inference import monitoring
    from heartml.inference.monitoring import drift, page, show

    params = config.load().monitor
    if private_server.configured():
        from flows.support import run_local

        report = run_local.monitor(source, wanted, task, html)
    else:
        data = monitoring.run(source, wanted, task)
        report = data.report
        if html:
            page.write(data, params, html)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        show.show(report, params)
    sys.exit(DRIFTED if report.verdict == drift.DRIFT else 0)


@click.command("validate-source")
@click.argument("name")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="TABLE.csv")
@_MODEL
@_TASK
@click.option("--json", "as_json", is_flag=True, help="Print the evidence as JSON.")
def validate_source(name: str, table: Path, wanted: str | None, task: str | None, as_json: bool) -> None:
    """Measure a model on labelled recordings of a new sensor or clinic, so that it may judge them.

    A model refers recordings that are unlike those it was trained on. TABLE.csv has the columns `path` and `label` (a
    class of the task), and optionally `patient_id` and `location`. The model passes on source NAME where it is better
    than always saying the most frequent class, with the whole interval above zero, on ten units of every class or
    more, and where its confidence can be trusted (gate.calibration_limit). Its recordings are accepted when
    `predict.accepted_sources` in params.yaml names it. The model itself is not changed.

    \b
    Reads        TABLE.csv and its recordings, the model, params.yaml
    Writes       sources/NAME.json (the evidence) and sources/NAME.safetensors (what its recordings are like); for a
                 registered version, the evidence's hash as a tag in the registry
    Exit status  0: passed; 1: the evidence is not enough, or something cannot be read; 2: wrong usage

    \b
    Examples:
    heartml validate-source ward-3 ward3/labels.csv
    heartml validate-source ward-3 ward3/labels.csv --model circor-murmur/3 --json
    """
    from heartml.inference import source_validation

    outcome = source_validation.run(name, table, wanted, task)
    click.echo(json.dumps(outcome.evidence, indent=2) if as_json else source_validation.in_words(outcome))
    if not outcome.evidence["validated"]:
        sys.exit(1)


COMMANDS = (score, validate_source, monitor)
