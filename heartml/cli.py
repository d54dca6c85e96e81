"""The command line: `heartml COMMAND`. Heavy libraries are imported inside the command that needs them.

A user's mistake ends in one line on stderr and exit status 1 (2 for wrong usage); a traceback is a fault of ours.
"""

import json
import os
import sys
from pathlib import Path

import click

from heartml.core.errors import HeartMLError
from heartml.core.process import die_with_dvc

QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
TASK = click.option("--task", required=True, help="One of `tasks` in params.yaml, e.g. circor-murmur.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="heartml")
def cli() -> None:
    """From stethoscope recordings to an audited, registered heart-sound model. Not a medical device.

    \b
    Data in      simulate, ingest, tasks
    Stages       validate, split, features, search, ensemble, evaluate, robustness, report   (`dvc repro` runs them)
    Flow         retrain, models
    Evaluation   leave-out, protocol
    Model out    predict

    Start with `make run`, or: heartml ingest pascal DIR && heartml retrain
    """


@cli.command()
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
    from heartml import simulate as simulator
    from heartml.core import config

    params = config.load().simulate
    corpus = simulator.run(
        folder, count=params.children if children is None else children, seed=params.seed if seed is None else seed,
        seconds=params.seconds if seconds is None else seconds, faults=faults,
    )
    click.echo("\n".join(corpus.lines()))


@cli.command()
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
    from flows.server import configured
    from heartml import listing

    if (folder is None) != download:
        raise click.UsageError("name FOLDER, or --download, and not both")
    if configured():
        from flows.ingest import ingest as flow

        outcome = flow(dataset, folder, into, mirror, keep_tasks, replace)
    else:
        from heartml import datasets
        from heartml import ingest as stage
        from heartml.ingest.download import fetch

        source = folder or fetch(datasets.load(dataset), into, mirror)
        outcome = stage.run(dataset, source, keep_tasks=keep_tasks, replace=replace)
    if as_json:
        click.echo(json.dumps(outcome.as_dict(), indent=2))
    else:
        listing.ingest(outcome)
    if not outcome.recordings:
        raise HeartMLError(f"no recording of {dataset} passed the checks; data/quarantine.parquet says why")


@cli.command()
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

    from heartml import listing
    from heartml.core import config
    from heartml.ingest import inventory

    if more and not use:
        raise click.UsageError(f"--use {' '.join(more)}? Without --use this lists tasks.")
    if use:
        config.set_tasks(inventory.choose((*use, *more), config.load().validate_.min_class_groups))
    params, allowed = config.load(), inventory.read()
    if as_json:
        click.echo(json.dumps([asdict(task) for task in allowed], indent=2))
    else:
        listing.tasks(allowed, params.tasks, params.validate_.min_class_groups)


@cli.command()
def validate() -> None:
    """Check recordings and signals with Great Expectations; errors stop the pipeline.

    \b
    artifacts/validation/index.html       what was found, for a person
    artifacts/validation/validation.json  the same for a program, with the rows
    .heartml/validation-failed/           both, where the data is not fit

    Limits stand in `validate` and `ingest` of params.yaml.
    """
    from heartml import validate as stage

    stage.run()


@cli.command()
@TASK
def split(task: str) -> None:
    """Draw stratified folds and a held-out part; groups never cross.

    Nearly the same audio counts as one group (validation finds it). A published split, a CSV of patient_id,part in
    splits/, takes the place of the draw: name it as `split.published` in params.yaml.
    """
    from heartml import split as stage

    stage.run(task)


@cli.command()
@TASK
@click.option("--encoder", required=True, help="One of `encoders` in params.yaml.")
def features(task: str, encoder: str) -> None:
    """Turn every recording of a task into frames under one encoder."""
    from heartml import features as stage

    stage.run(task, encoder)


@cli.command()
@TASK
def search(task: str) -> None:
    """Search encoder x pooling x head x numbers; keep every trial's out-of-fold probabilities."""
    from heartml import search as stage

    stage.run(task)


@cli.command()
@TASK
def ensemble(task: str) -> None:
    """Select and fit the ensemble, its decision rule and its calibration."""
    from heartml import ensemble as stage

    stage.run(task)


@cli.command()
@TASK
def evaluate(task: str) -> None:
    """Score the ensemble and the floors on the held-out part, with intervals."""
    from heartml import evaluate as stage

    stage.run(task)


@cli.command()
@TASK
def robustness(task: str) -> None:
    """Score the held-out part again under noise and through worse sensors.

    The conditions stand in `robustness` of params.yaml; the report draws what they cost.
    """
    from heartml import robustness as stage

    stage.run(task)


@cli.command()
@TASK
def report(task: str) -> None:
    """Write the one-page HTML report."""
    from heartml import report as stage

    stage.run(task)


@cli.command()
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


@cli.group()
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
    from heartml.core import config, files
    from heartml.protocol import circor_m2d as study
    from heartml.protocol import table

    folders, more = [p for p in named if p.is_dir()], [p for p in named if not p.is_dir()]
    if len(folders) != 1:
        raise click.UsageError(f"name one folder, not {len(folders)}")
    found = study.run(folders[0], [first, *more], config.load(), seeds)
    table.show(found)
    if to:
        files.write_json(to, found)


@cli.command("leave-out")
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
    from heartml import leave_out as evaluation
    from heartml import listing
    from heartml.core.files import write_json

    found = evaluation.run(task, "source" if by == "source" else "dataset")
    if to:
        write_json(to, found)
    listing.leave_out(found)


@cli.command()
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


@cli.command()
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


def main() -> None:
    """Entry point of `heartml` and `python -m heartml`."""
    if "DVC_STAGE" in os.environ:   # before the slow imports of a stage, so that no orphan comes to life
        die_with_dvc()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")   # before numpy is imported, or it does not count
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HeartMLError as error:
        click.echo(f"heartml: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
