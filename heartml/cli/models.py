"""Commands about finished models: retrain, models, predict."""

import json
import sys
from pathlib import Path

import click


@click.command()
@click.option("--wait/--no-wait", default=True, show_default=True,
              help="Take a turn behind another retraining, ingest or DVC command here; or say why not, status 1.")
@click.option("--force", is_flag=True, help="Run every stage again, fresh or not.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def retrain(wait: bool, force: bool, as_json: bool) -> None:
    """Run every stale stage, register the model, and promote it where the gate agrees.

    Reads the stages from dvc.yaml, runs the stale ones as Prefect tasks (on PREFECT_API_URL, or a private server for
    the time), logs to MLflow (MLFLOW_TRACKING_URI, or .heartml/mlflow.db), compares with the champion on the same
    held-out groups, and writes reports/TASK.html. Nothing new: nothing is registered. Killed: just run it again.

    Exit status 0: promoted, refused by the gate, or nothing new; 1: something failed.
    """
    from flows import start
    from heartml import publish
    from heartml.publish import results

    outcomes = start.retrain(wait=wait, force=force)
    if as_json:
        click.echo(json.dumps(results.as_json(outcomes), indent=2))
    else:
        results.show(outcomes)
    if any(outcome.state == publish.FAILED for outcome in outcomes):
        sys.exit(1)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def models(as_json: bool) -> None:
    """List registered models: versions, which is champion, and what the gate said of each."""
    from heartml import registry, tracking
    from heartml.publish import results

    client = tracking.connect()
    found = [version for name in registry.names(client) for version in registry.versions(client, name)]
    if as_json:
        click.echo(json.dumps([version.as_dict() for version in found], indent=2))
    else:
        results.show_versions(found)


@click.command()
@click.argument("named", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "wanted", help="A folder, NAME, NAME@ALIAS or NAME/VERSION; else the task's champion, or what "
                                        "the last `dvc repro` made where there is no champion.")
@click.option("--task", help="Whose champion, where params.yaml names several tasks.")
@click.option("--csv", "to", type=click.Path(path_type=Path, dir_okay=False), help="Write the answers to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def predict(named: tuple[Path, ...], wanted: str | None, task: str | None, to: Path | None, as_json: bool) -> None:
    """Score recordings: probabilities, decision, calibrated confidence, and what is wrong with the signal.

    INPUT is a sound file, a folder of them, or a CSV with a column `path` and, where known, `patient_id` and
    `location`. A task about patients takes files named like 2530_AV.wav as one patient's, any other file as a patient.

    A file that cannot be scored says why, the others are scored, and the exit status is 1. Not a medical device.

    \b
    heartml predict recording.wav
    heartml predict visits.csv --model circor-murmur/3 --csv answers.csv
    """
    from heartml import predict as scoring
    from heartml.predict import answers

    result = scoring.run(named, wanted, task)
    if to:
        answers.write_csv(result, to)
    if as_json:
        click.echo(answers.as_json(result))
    else:
        answers.show(result)
    for heard in result.faults:
        click.echo(f"heartml: {answers.complaint(heard)}", err=True)
    if result.faults:
        sys.exit(1)


COMMANDS = (retrain, models, predict)
