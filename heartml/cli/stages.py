"""One command a DVC stage; `dvc repro` and `heartml retrain` run them."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heartml.core.system.parallel import Part


def _part(_: click.Context, __: click.Parameter, words: str | None) -> "Part | None":
    from heartml.core.system.parallel import Part

    try:
        return Part.parse(words) if words else None
    except ValueError:
        raise click.BadParameter(f"{words}: the second of three parts is written 2/3") from None


TASK = click.option("--task", required=True, help="One of `tasks` in params.yaml, e.g. circor-murmur.")
PART = click.option("--part", metavar="K/N", callback=_part, help="Before the stage, on any machine that sees this "
                    "folder: do part K of N of its work and keep it where the stage finds it (docs/scale.md).")


@click.command()
def validate() -> None:
    """Check recordings and signals with Great Expectations; errors stop the pipeline.

    \b
    artifacts/validation/index.html       what was found, for a person
    artifacts/validation/validation.json  the same for a program, with the rows
    .heartml/validation-failed/           both, where the data is not fit

    Limits stand in `validate` and `ingest` of params.yaml.
    """
    from heartml.stages import validate as stage

    stage.run()


@click.command()
@TASK
def split(task: str) -> None:
    """Draw stratified folds and a held-out part; groups never cross.

    Nearly the same audio counts as one group (validation finds it). A published split, a CSV of patient_id,part in
    splits/, takes the place of the draw: name it as `split.published` in params.yaml.
    """
    from heartml.stages import split as stage

    stage.run(task)


@click.command()
@TASK
@click.option("--encoder", required=True, help="One of `encoders` in params.yaml.")
@PART
def features(task: str, encoder: str, part: "Part | None") -> None:
    """Turn every recording of a task into frames under one encoder."""
    from heartml.stages import features as stage

    if part:
        stage.run_part(task, encoder, part)
    else:
        stage.run(task, encoder)


@click.command()
@TASK
@PART
def search(task: str, part: "Part | None") -> None:
    """Search encoder x pooling x head x numbers; keep every trial's out-of-fold probabilities."""
    from heartml.stages import search as stage

    if part:
        stage.run_part(task, part)
    else:
        stage.run(task)


@click.command()
@TASK
def ensemble(task: str) -> None:
    """Select and fit the ensemble, its decision rule and its calibration."""
    from heartml.stages import ensemble as stage

    stage.run(task)


@click.command()
@TASK
def evaluate(task: str) -> None:
    """Score the ensemble and the floors on the held-out part, with intervals."""
    from heartml.stages import evaluate as stage

    stage.run(task)


@click.command()
@TASK
def robustness(task: str) -> None:
    """Score the held-out part again under noise and through worse sensors.

    The conditions stand in `robustness` of params.yaml; the report draws what they cost.
    """
    from heartml.stages import robustness as stage

    stage.run(task)


@click.command()
@TASK
def report(task: str) -> None:
    """Write the one-page HTML report."""
    from heartml.stages import report as stage

    stage.run(task)


COMMANDS = (validate, split, features, search, ensemble, evaluate, robustness, report)
