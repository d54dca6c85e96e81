"""One command for each DVC stage; `dvc repro` and `heartml retrain` run them."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heartml.core.system.parallel import Part


def _part(_: click.Context, __: click.Parameter, words: str | None) -> "Part | None":
    from heartml.core.system.parallel import Part

    try:
        return Part.parse(words) if words else None
    except ValueError:
        raise click.BadParameter(f"{words}: write 2/3 for the second of three parts") from None


TASK = click.option("--task", required=True, help="One of `tasks` in params.yaml, e.g. circor-murmur.")
PART = click.option("--part", metavar="K/N", callback=_part, help="Instead of the stage, precompute part K of N of its "
                    "work where the stage finds it, on any machine that has this folder (docs/scale.md).")


@click.command()
def validate() -> None:
    """Check tables and signals with Great Expectations.

    An error stops the tasks of the data set that it concerns, a warning stops nothing. The limits are in sections
    `validate` and `ingest` of params.yaml.

    \b
    Reads        data/
    Writes       artifacts/validation/index.html (the findings, as a page)
                 artifacts/validation/validation.json (the same for a program, with the rows)
                 .heartml/validation-failed/ (both, where every data set has an error)
    Exit status  0: a data set without an error; 1: every data set has one

    \b
    Example:
    heartml validate
    """
    from heartml.stages import validate as stage

    stage.run()


@click.command()
@TASK
def split(task: str) -> None:
    """Draw stratified folds and a held-out part.

    A group is never in two parts. Recordings with near-duplicate audio, which validation finds, belong to one group. A
    published split, a CSV of patient_id,part in splits/, replaces the draw: name it in `split.published` of
    params.yaml.

    \b
    Reads        data/recordings.parquet, artifacts/validation/groups.parquet
    Writes       artifacts/TASK/folds.parquet
    Exit status  0: written; 1: it could not be done

    \b
    Example:
    heartml split --task circor-murmur
    """
    from heartml.stages import split as stage

    stage.run(task)


@click.command()
@TASK
@click.option("--encoder", required=True, help="One of `encoders` in params.yaml.")
@PART
@click.option("--missing", is_flag=True, help="Instead of the stage, print the recordings that have no frames yet.")
def features(task: str, encoder: str, part: "Part | None", missing: bool) -> None:
    """Compute the frames of every recording of a task with one encoder.

    \b
    Reads        data/audio, artifacts/TASK/folds.parquet
    Writes       artifacts/TASK/features/ENCODER
    Exit status  0: written; 1: it could not be done

    \b
    Examples:
    heartml features --task circor-murmur --encoder logspec
    heartml features --task circor-murmur --encoder logspec --part 2/3
    """
    from heartml.stages import features as stage

    if missing:
        stage.print_missing(task, encoder)
    elif part:
        stage.run_part(task, encoder, part)
    else:
        stage.run(task, encoder)


@click.command()
@TASK
@PART
def search(task: str, part: "Part | None") -> None:
    """Search over encoders, poolings, heads and hyperparameters.

    Every trial is cross-validated on the folds; its out-of-fold probabilities are stored. The held-out part is not
    used.

    \b
    Reads        artifacts/TASK/folds.parquet, artifacts/TASK/features, labels in data/
    Writes       artifacts/TASK/search
    Exit status  0: written; 1: it could not be done

    \b
    Example:
    heartml search --task circor-murmur
    """
    from heartml.stages import search as stage

    if part:
        stage.run_part(task, part)
    else:
        stage.run(task)


@click.command()
@TASK
def ensemble(task: str) -> None:
    """Select and fit the ensemble, its decision rule and its calibration.

    \b
    Reads        artifacts/TASK/search, artifacts/TASK/features, labels in data/
    Writes       artifacts/TASK/model, artifacts/TASK/out_of_fold.parquet
    Exit status  0: written; 1: it could not be done

    \b
    Example:
    heartml ensemble --task circor-murmur
    """
    from heartml.stages import ensemble as stage

    stage.run(task)


@click.command()
@TASK
def evaluate(task: str) -> None:
    """Score the ensemble and the baselines on the held-out part, with intervals.

    \b
    Reads        artifacts/TASK/model, out-of-fold predictions, features, tables in data/
    Writes       artifacts/TASK/evaluation, artifacts/TASK/heart_states
    Exit status  0: written; 1: it could not be done

    \b
    Example:
    heartml evaluate --task circor-murmur
    """
    from heartml.stages import evaluate as stage

    stage.run(task)


@click.command()
@TASK
def robustness(task: str) -> None:
    """Score the held-out part again with degraded recordings: noise, filters, gain, clipping.

    The conditions are in section `robustness` of params.yaml. The report draws how much each costs.

    \b
    Reads        artifacts/TASK/model, artifacts/TASK/folds.parquet, data/audio
    Writes       artifacts/TASK/robustness.json, artifacts/TASK/robustness.csv
    Exit status  0: written; 1: it could not be done

    \b
    Example:
    heartml robustness --task circor-murmur
    """
    from heartml.stages import robustness as stage

    stage.run(task)


@click.command()
@TASK
def report(task: str) -> None:
    """Write the report of a task as one HTML page.

    \b
    Reads        artifacts/validation, artifacts/TASK, tables in data/
    Writes       artifacts/TASK/report.html
    Exit status  0: written; 1: it could not be done

    \b
    Example:
    heartml report --task circor-murmur
    """
    from heartml.stages import report as stage

    stage.run(task)


COMMANDS = (validate, split, features, search, ensemble, evaluate, robustness, report)
