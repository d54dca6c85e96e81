"""One command a DVC stage; `dvc repro` and `heartml retrain` run them."""

import click

TASK = click.option("--task", required=True, help="One of `tasks` in params.yaml, e.g. circor-murmur.")


@click.command()
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


@click.command()
@TASK
def split(task: str) -> None:
    """Draw stratified folds and a held-out part; groups never cross.

    Nearly the same audio counts as one group (validation finds it). A published split, a CSV of patient_id,part in
    splits/, takes the place of the draw: name it as `split.published` in params.yaml.
    """
    from heartml import split as stage

    stage.run(task)


@click.command()
@TASK
@click.option("--encoder", required=True, help="One of `encoders` in params.yaml.")
def features(task: str, encoder: str) -> None:
    """Turn every recording of a task into frames under one encoder."""
    from heartml import features as stage

    stage.run(task, encoder)


@click.command()
@TASK
def search(task: str) -> None:
    """Search encoder x pooling x head x numbers; keep every trial's out-of-fold probabilities."""
    from heartml import search as stage

    stage.run(task)


@click.command()
@TASK
def ensemble(task: str) -> None:
    """Select and fit the ensemble, its decision rule and its calibration."""
    from heartml import ensemble as stage

    stage.run(task)


@click.command()
@TASK
def evaluate(task: str) -> None:
    """Score the ensemble and the floors on the held-out part, with intervals."""
    from heartml import evaluate as stage

    stage.run(task)


@click.command()
@TASK
def robustness(task: str) -> None:
    """Score the held-out part again under noise and through worse sensors.

    The conditions stand in `robustness` of params.yaml; the report draws what they cost.
    """
    from heartml import robustness as stage

    stage.run(task)


@click.command()
@TASK
def report(task: str) -> None:
    """Write the one-page HTML report."""
    from heartml import report as stage

    stage.run(task)


COMMANDS = (validate, split, features, search, ensemble, evaluate, robustness, report)
